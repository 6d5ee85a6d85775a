"""Phase I, equal-steps baseline and Phase III on real images: ``python -m benchmarks.real --data FOLDER``.

The images are not part of this repository; ``data_prep/examples`` says what the folder must hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fire

import data_prep
from benchmarks.experiment import Experiment, report, run_experiments
from data_prep.folder import make_folder_dataset
from data_prep.resplit import resplit_dataset

EXAMPLES = Path(data_prep.__file__).parent / "examples"
SETTINGS: dict[str, dict[str, Any]] = {
    "white_cells": {"image_size": [96, 96]},
    "fundus": {"image_size": [160, 160]},
    "nuclei": {"image_size": [128, 128]},
}


def main(
    data: str,
    output: str = "runs/real",
    tasks: tuple[str, ...] = ("white_cells", "fundus", "nuclei"),
    seeds: tuple[int, ...] = (0, 1, 2),
) -> None:
    """Prepare the data sets, run all trainings, and print the tables. Goes on where it stopped.

    White cells run in both directions with all seeds; fundus and nuclei with the first seed only.

    Args:
        data: folder of the real images.
        output: folder for data sets, runs and tables.
        tasks: some of "white_cells", "fundus", "nuclei".
        seeds: of the trainings.
    """
    root = Path(output)
    tasks = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    seeds = (seeds,) if isinstance(seeds, int) else tuple(seeds)
    experiments: list[Experiment] = []
    for task in tasks:
        dataset = root / "data" / task
        if not (dataset / "dataset.json").is_file():
            make_folder_dataset(str(EXAMPLES / f"{task}.yaml"), str(dataset), root=data)
        if task != "white_cells":
            experiments.append(Experiment(task, dataset, seeds[:1], SETTINGS[task]))
            continue
        reverse = root / "data" / "white_cells_reverse"
        if not (reverse / "dataset.json").is_file():
            resplit_dataset(str(dataset), "white_stain", str(reverse))
        experiments.append(Experiment("white_cells_yellow_to_white", dataset, seeds, SETTINGS[task]))
        experiments.append(Experiment("white_cells_white_to_yellow", reverse, seeds, SETTINGS[task]))
    run_experiments(experiments, root)
    report(experiments, root)


if __name__ == "__main__":
    fire.Fire(main)
