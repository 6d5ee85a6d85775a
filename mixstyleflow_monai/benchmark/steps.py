"""How many optimizer steps a plan takes, counted from its data and its configurations before anything is trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mixstyleflow_monai.benchmark.plan import PHASE_ONE, Cell, Plan
from mixstyleflow_monai.data import DatasetDescription, SliceDataset, Task, load_dataset


def count_steps(plan: Plan, datasets: Mapping[str, Path]) -> dict[str, dict[int, int]]:
    """Return source -> phase (1 or 3) -> optimizer steps of a training.

    Args:
        plan: of the benchmark.
        datasets: folder of the data set of each source.
    """
    return {
        source: {phase: _steps(plan, phase, load_dataset(datasets[source])) for phase in (1, 3)}
        for source in plan.sources
    }


def _steps(plan: Plan, phase: int, description: DatasetDescription) -> int:
    settings, first = plan.settings(phase), plan.settings(1)
    epochs, length = int(settings["max_epochs"]), settings["epoch_length"]
    if length in (None, "null"):
        # Half of a batch are slices, each augmented and plain; see `TrainingLoader`.
        length = max(1, _slices(description, first, settings["slices"]) // (int(settings["batch_size"]) // 2))
    return int(length) * epochs


def _slices(description: DatasetDescription, first: Mapping[str, Any], slices: str) -> int:
    """Return the number of training slices; of volumes, after reading them."""
    data = description.datalist("train")
    if description.spatial_dims == 2:
        return len(data)
    names = ("pixel_spacing", "percentiles", "intensity", "activation")
    task = Task.from_dataset(description, first["image_size"], **{name: first[name] for name in names})
    return len(SliceDataset(data, task.training_preprocessing(), slices=slices, cache_rate=0.0, progress=False))


def describe_steps(
    plan: Plan,
    steps: Mapping[str, Mapping[int, int]],
    seconds_per_step: float | None = None,
    finished: Collection[Cell] = (),
) -> str:
    """Return the plan in words: cells, steps, and the time where the time of a step is known.

    Args:
        plan: of the benchmark.
        steps: of `count_steps`.
        seconds_per_step: of a step with hard examples; one without counts half.
        finished: cells that are recorded. A Phase I that is there for one of the others is counted all the same.
    """
    trained = [cell for cell in plan.cells if cell.method != PHASE_ONE and cell not in finished]
    starts = {(cell.source, cell.seed) for cell in plan.cells if cell not in finished}
    done = sum(cell.method != PHASE_ONE for cell in finished)
    total: dict[int, int] = {
        1: sum(steps[source][1] for source, _ in starts),
        3: sum(steps[cell.source][3] for cell in trained),
    }
    lines = [
        f"{len(trained)} cells to train: {len(plan.methods) - 1} methods x {len(plan.seeds)} seeds x "
        f"{len(plan.sources)} sources, from {len(starts)} trainings of Phase I"
        + (f"; {done} more are finished." if done else "."),
        *(f"  source {source}: {of[1]} steps of Phase I, {of[3]} of each method" for source, of in steps.items()),
        f"  in all {total[1]} steps of Phase I and {total[3]} of methods, besides Phase II; Phase I is scored as well",
    ]
    if seconds_per_step is not None:
        hours = (0.5 * total[1] + total[3]) * seconds_per_step / 3600.0
        lines.append(
            f"  about {hours:.1f} hours at {seconds_per_step:g} s a step (half of that in Phase I), one at a time, "
            "without Phase II, evaluation and the inner loop of max_style"
        )
    return "\n".join(lines)
