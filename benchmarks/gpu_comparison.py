"""Photographs at 256 pixels and white cells at 128, with longer trainings: ``python -m benchmarks.gpu_comparison``.

The comparison that needs a GPU: three seeds of the baseline, the paper's setting, the recipe and the best rival; 3000
steps of Phase I, which they share, and then 900 each. It is made for GPUs that are lent by the minute:

1. ``python -m benchmarks.gpu_comparison OUTPUT --data FOLDER --prepare_only`` makes the two data sets, about 35 MB in
   ``OUTPUT/data``, where the images are. Only they are read from then on.
2. ``python -m benchmarks.gpu_comparison OUTPUT --minutes 9`` trains for so long and ends in good order; the exit code
   is 75 while something is left. Run again, it goes on from the last checkpoint. What is finished is in
   ``OUTPUT/results``: the cells, the tables, and in ``times.md`` what a step took, for ``--seconds_per_step`` of
   `benchmark`, which estimates the hours of the paper's settings.

Where ``OUTPUT`` is lost between two runs but for its results, ``--finished FOLDER`` takes finished cells from there. It
was not run on a GPU yet.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import fire
import pandas as pd
import torch

from benchmarks.methods import FLOWS, PAPER, RECIPE, dataset_of, words
from mixstyleflow_monai.artifacts import atomic_path
from mixstyleflow_monai.benchmark.plan import BASELINE, PHASE_ONE
from mixstyleflow_monai.benchmark.tables import markdown
from mixstyleflow_monai.data.dataset_description import read_json
from mixstyleflow_monai.stopping import PATIENCE, only_one

COMPARISONS = {"white_cells": (128, "all"), "fundus": (256, None)}
"""Data set -> height and width of the network's images, and the sources."""
METHODS = (BASELINE, PAPER, RECIPE, "big_aug")
EPOCH = 25
"""Steps, see the overlay ``demo``."""
TIME_IS_UP = 75
"""Exit code: not an error, something is left (EX_TEMPFAIL)."""


def main(
    output: str,
    data: str | None = None,
    prepare_only: bool = False,
    minutes: float = 9.0,
    tasks: str | Sequence[str] = tuple(COMPARISONS),
    methods: str | Sequence[str] = METHODS,
    seeds: int | Sequence[int] = (0, 1, 2),
    jobs: int = 3,
    phase1_steps: int = 3000,
    phase3_steps: int = 900,
    finished: str | None = None,
) -> int:
    """Train what is missing, as far as the time goes, and write the results.

    Args:
        output: folder for data sets, trainings and results.
        data: folder of the real images, where the data sets are still to be made.
        prepare_only: make the data sets and train nothing.
        minutes: after which trainings are ended; they go on at the next run.
        tasks: of white_cells and fundus.
        methods: to compare.
        seeds: of the trainings.
        jobs: trainings at the same time; small networks leave a GPU idle.
        phase1_steps: of Phase I, a multiple of 25.
        phase3_steps: of every method, a multiple of 25.
        finished: folder with finished cells, as in OUTPUT/results/cells.

    Returns:
        0; 75 if the time is up; otherwise what `benchmark` returned.

    Raises:
        ValueError: a task, time or number of steps that is not possible.
    """
    chosen = words(tasks)
    _check(chosen, minutes, {"phase1_steps": phase1_steps, "phase3_steps": phase3_steps})
    root = Path(output).resolve()
    datasets = {name: dataset_of(name, Path(data).resolve() if data else None, root) for name in chosen}
    if prepare_only:
        return 0
    end = time.monotonic() + 60.0 * minutes
    code = 0
    numbers = (seeds,) if isinstance(seeds, int) else tuple(seeds)
    with only_one(root):
        for name, dataset in datasets.items():
            options = _options(name, words(methods), numbers, phase1_steps, phase3_steps)
            options |= {"jobs": jobs} | ({} if finished is None else {"reuse": str(Path(finished).resolve())})
            ended = _benchmark(dataset, root / name, options, end)
            # A failure is told even where the time is up for the rest.
            code = ended if code in (0, TIME_IS_UP) and ended else code
            _keep(root / name, root / "results", name)
        _write_times(root / "results", phase3_steps, jobs)
    return code


def _options(
    name: str, methods: Sequence[str], seeds: Sequence[int], phase1_steps: int, phase3_steps: int
) -> dict[str, object]:
    """Return the options of `benchmark` that belong to the comparison."""
    size, sources = COMPARISONS[name]
    epochs = {"phase1": phase1_steps // EPOCH, "phase3": phase3_steps // EPOCH}
    return {
        "methods": ",".join(methods),
        "seeds": ",".join(map(str, seeds)),
        **({} if sources is None else {"sources": sources}),
        "overlay": "demo",
        "tracking": "none",
        "amp": True,
        "image_size": f"[{size},{size}]",
        **{f"{phase}:max_epochs": count for phase, count in epochs.items()},
        # Validation chooses nothing here: once at the end, and in between for whoever watches.
        **{f"{phase}:val_interval": max(1, count // 4) for phase, count in epochs.items()},
        **{key: str(value).replace(" ", "") for key, value in FLOWS.items()},
    }


def _check(tasks: Sequence[str], minutes: float, steps: Mapping[str, int]) -> None:
    unknown = [name for name in tasks if name not in COMPARISONS]
    if unknown or not tasks:
        raise ValueError(f"--tasks: no comparison {unknown}, allowed: {', '.join(COMPARISONS)}.")
    if not minutes > 0:
        raise ValueError(f"--minutes {minutes!r}: expected a number above 0.")
    for name, count in steps.items():
        if count < EPOCH or count % EPOCH:
            raise ValueError(f"--{name} {count!r}: expected a multiple of {EPOCH}, the steps of an epoch.")


def _benchmark(dataset: Path, folder: Path, options: Mapping[str, object], end: float) -> int:
    """Run the command until it is done or the time is up; asked to end, it ends its trainings first."""
    left = end - time.monotonic()
    if left <= 0:
        return TIME_IS_UP
    given = {"dataset_dir": dataset, "output_dir": folder, **options}
    arguments = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    program = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "mixstyleflow_monai", "benchmark", *arguments])
    try:
        ended = program.wait(left)
        return ended if ended >= 0 else 1  # ended by a signal, for want of memory for example
    except subprocess.TimeoutExpired:
        print("The time is up; the same command goes on from here.", flush=True)
        return TIME_IS_UP
    finally:
        program.terminate()
        try:
            program.wait(3 * PATIENCE)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()


def _keep(folder: Path, results: Path, name: str) -> None:
    """Copy what is finished."""
    cells = results / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    for path in sorted((folder / "cells").glob("*.json")):
        shutil.copyfile(path, cells / path.name)
    for path in sorted(folder.glob("benchmark.*")):
        shutil.copyfile(path, results / f"{name}{path.suffix}")


def _write_times(results: Path, steps: int, jobs: int) -> None:
    """Write what the trainings of the methods took, that were not stopped in between."""
    rows = []
    for record in (read_json(path) for path in sorted((results / "cells").glob("*.json"))):
        request, seconds = record["request"], record["seconds"]
        if request["method"] != PHASE_ONE:
            rows.append(
                {
                    "data": record["dataset"],
                    "source": request["source"],
                    "method": request["method"],
                    "seed": str(request["seed"]),
                    "unseen": f"{record['unseen_mean_dice']:.1f}",
                    "seconds": "-" if seconds is None else f"{seconds:.0f}",
                    "seconds a step": "-" if seconds is None else f"{seconds / steps:.3f}",
                }
            )
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    text = f"{name}, {steps} steps, up to {jobs} trainings at the same time, validation and start included.\n\n"
    with atomic_path(results / "times.md") as partial:
        partial.write_text(text + markdown(pd.DataFrame(rows)), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(fire.Fire(main))
