"""What if the flows had learnt the unseen domain itself? ``python -m benchmarks.unseen_styles --data FOLDER``.

Phase II gathers styles of the unseen domains' images in place of the source's, with the Phase I of
`benchmarks.methods`, and the recipe trains with flows of these at temperature 1, on source images as ever. No one who
has one site alone can do that. What it gains is what the unseen domains' own channel statistics are worth, a mark to
hold sampled styles against: for understanding only, and nothing here may choose a setting. Records, with the Dice of
every case, are in ``benchmarks/unseen_style_cells``, away from those of trainings that saw the source alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fire
import pandas as pd
import torch

from benchmarks import methods
from benchmarks.factors import lend
from benchmarks.methods import CONTROL, FLOWS, RECIPE, SETTINGS, common_settings, dataset_of, words
from mixstyleflow_monai.artifacts import manifest_path, read_manifest, sha256_file, write_json
from mixstyleflow_monai.benchmark import benchmark
from mixstyleflow_monai.benchmark.data import source_dataset, source_name
from mixstyleflow_monai.benchmark.plan import BASELINE, PHASE_ONE, PHASE_TWO, Cell
from mixstyleflow_monai.benchmark.records import case_table
from mixstyleflow_monai.benchmark.tables import difference, markdown, runs_of, spread
from mixstyleflow_monai.data import DatasetDescription, SliceDataset, Task, TrainingLoader, load_dataset
from mixstyleflow_monai.data.dataset_description import read_json
from mixstyleflow_monai.engines import load_network, style_statistics_file
from mixstyleflow_monai.evaluation.comparison import summary
from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.stopping import only_one

CELLS = Path(__file__).parent / "unseen_style_cells"
TASKS = ("white_cells", "prostate_phantom", "fundus_phantom")
UNSEEN = "styles of the unseen domains"
"""Name of the method in the table; `RECIPE` in the trainings."""
PREPARED_FILE = "unseen_statistics.json"
"""In the folder of a seed: which statistics its flows are to be fitted to."""
COLUMNS = {"baseline": BASELINE, "permuted": CONTROL, "recipe": RECIPE, UNSEEN: UNSEEN}
TEMPERATURES = {level: 1.0 for level in FLOWS["phase2:temperatures"]}


def main(
    data: str | None = None,
    output: str = "runs/methods",
    tasks: str | Sequence[str] = TASKS,
    seeds: int | Sequence[int] = (3, 4, 5),
    jobs: int = 1,
    report_only: bool = False,
) -> int:
    """Train what is missing and print the table. Goes on where it stopped.

    Args:
        data: folder of the real images, where their data sets are still to be made.
        output: folder of the trainings of `benchmarks.methods`, whose Phase I and Phase II have to be there.
        tasks: names of comparisons with all training cases.
        seeds: of the trainings.
        jobs: cells that train at the same time.
        report_only: train nothing.

    Returns:
        0, or 1 if a cell failed.

    Raises:
        ValueError: no comparison of a name.
        FileNotFoundError: no training of a seed.
    """
    code = 0
    known = [name for name, setting in SETTINGS.items() if setting.train_fraction == 1.0]
    for name in words(tasks):
        if name not in known:
            raise ValueError(f"--tasks: no comparison {name!r}, allowed: {', '.join(known)}.")
    for name in () if report_only else words(tasks):
        numbers = (seeds,) if isinstance(seeds, int) else tuple(seeds)
        code |= run(name, Path(data).resolve() if data else None, Path(output).resolve(), numbers, jobs)
    print(report())
    return code


def run(name: str, images: Path | None, output: Path, seeds: Sequence[int], jobs: int = 1) -> int:
    """Train what is missing of one comparison, and put its finished cells into `CELLS`."""
    dataset = dataset_of(name, images, output)
    description = load_dataset(str(dataset))
    folder = output / "unseen_styles" / name
    trainings = folder / "trainings"
    other = {"phase2:temperatures": TEMPERATURES}
    with only_one(folder):
        lend(output / name, trainings, other, seeds)
        for seed in seeds:
            trained = sorted((output / name).glob(f"*/seed{seed}/{PHASE_TWO}"))
            if not trained:
                raise FileNotFoundError(f"{output / name}: no training of seed {seed}; benchmarks.methods trains one.")
            for phase2 in trained:
                source = read_manifest(phase2 / "models" / "model.pt")["source_domain"]
                # The one that `benchmark` trains on: phase 2 gathers styles anew where the data set is another.
                of_source = source_dataset(description, source, 1.0, trainings / "data")
                prepare(
                    phase2.parent, trainings / phase2.parent.relative_to(output / name), load_dataset(str(of_source))
                )
        settings = {**common_settings(SETTINGS[name]), **other}
        sources = SETTINGS[name].sources
        code = benchmark(
            str(dataset), str(trainings), methods=(RECIPE,), seeds=list(seeds), sources=sources, jobs=jobs, **settings
        )
    CELLS.mkdir(exist_ok=True)
    for path in sorted((trainings / "cells").glob(f"*{RECIPE}*.json")):
        record = read_json(path)
        check_flows(trainings / source_name(record["request"]["source"]) / f"seed{record['request']['seed']}")
        write_json(CELLS / path.name, {**record, "styles_of": "unseen domains"})
    return code


def prepare(trained: Path, folder: Path, description: DatasetDescription) -> None:
    """Write the styles of the unseen domains where Phase II looks for those of the source.

    Args:
        trained: folder of a seed, with ``phase2/``.
        folder: the same for the trainings to come, with ``phase1/``; left alone once its flows are there.
        description: data set that Phase II is to be trained on, with the source of ``trained``.
    """
    statistics = folder / PHASE_TWO / "models" / "style_statistics.pt"
    if manifest_path(statistics.with_name("style_flows.pt")).is_file():
        return
    network_path = folder / PHASE_ONE / "models" / "model.pt"
    # What phase 2 compares before it takes a file for its own.
    settings = read_manifest(trained / PHASE_TWO / "models" / "style_statistics.pt")["settings"]
    settings = {**settings, "dataset_sha256": description.sha256}
    task = Task.from_model(network_path)
    network = DualDecoderNet(**task.network_settings())
    load_network(network, network_path)
    common = {name: settings[name] for name in ("levels", "passes", "noise_std", "seed", "batch_norm")}
    style_statistics_file(
        statistics,
        network=network,
        network_path=network_path,
        loaders=_loaders(description, task, settings),
        device=torch.device("cpu"),
        facts={key: value for key, value in settings.items() if key not in common},
        **common,
    )
    write_json(folder / PREPARED_FILE, {"sha256": sha256_file(statistics)})


def check_flows(folder: Path) -> None:
    """Check that the flows of a seed were fitted to the styles that `prepare` wrote.

    Args:
        folder: of the seed, with ``phase2/``.

    Raises:
        RuntimeError: Phase II gathered other styles, which are those of the source.
    """
    flows = folder / PHASE_TWO / "models" / "style_flows.pt"
    used = read_manifest(flows)["made_from"]["statistics"]["sha256"]
    if used != read_json(folder / PREPARED_FILE)["sha256"]:
        raise RuntimeError(f"{flows}: was not fitted to the unseen domains' styles. Remove {folder}, and train again.")


def _loaders(description: DatasetDescription, task: Task, settings: Mapping[str, Any]) -> dict[str, TrainingLoader]:
    """Return loaders like those of phase 2, of the test cases of all unseen domains."""
    unseen = [case for case in description.datalist("test") if case["domain"] != description.source_domain]
    plain: dict[str, Any] = {"transform": task.training_preprocessing(), "slices": settings["slices"]}
    augmented = {**plain, "augmentation": task.training_augmentation(settings["augmentation"]), "keep_plain": True}
    return {
        name: TrainingLoader(SliceDataset(unseen, **options), settings["batch_size"], seed=settings["seed"])
        for name, options in (("train", augmented), ("validation", plain))
    }


def report(folder: Path = CELLS) -> str:
    """Return the table as Markdown: unseen Dice, and differences paired by case, over the seeds that were trained."""
    rows = []
    for data, records in sorted(_with_references(folder).items()):
        cases = case_table(records)
        sources = list(dict.fromkeys(cases["source"]))
        for chosen in ([sources] if len(sources) > 1 else []) + [[source] for source in sources]:
            part = cases[cases["source"].isin(chosen)]
            totals = summary(part, list(COLUMNS.values()))
            unseen = {str(method): found["unseen"].tolist() for method, found in totals.groupby("method")}
            row = {"data": data, "source": "mean of all" if len(chosen) > 1 else chosen[0]}
            row["seeds"] = runs_of(set(part["seed"]))
            row |= {heading: spread(unseen.get(method, [])) for heading, method in COLUMNS.items()}
            row["to the baseline"] = difference(part, UNSEEN, BASELINE)
            row["to the recipe"] = difference(part, UNSEEN, RECIPE)
            rows.append(row)
    return markdown(pd.DataFrame(rows)) if rows else "No finished cells.\n"


def _with_references(folder: Path) -> dict[str, list[tuple[Cell, dict[str, Any]]]]:
    """Return the records of each data set with those of the compared methods of the same Phase I."""
    compared = methods.finished()
    joined = {}
    for (data, share), records in methods.finished(folder).items():
        begun = {(cell.source, cell.seed): record["phase1_sha256"] for cell, record in records}
        joined[data] = [(Cell(cell.source, UNSEEN, cell.seed), record) for cell, record in records] + [
            (cell, record)
            for cell, record in compared.get((data, share), [])
            if cell.method in COLUMNS.values() and begun.get((cell.source, cell.seed)) == record["phase1_sha256"]
        ]
    return joined


if __name__ == "__main__":
    # Fire would print what it returns.
    raise SystemExit(fire.Fire(main, serialize=lambda _: None))
