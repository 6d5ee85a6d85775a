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
from mixstyleflow_monai.data.resplit import resplit_dataset

EXAMPLES = Path(data_prep.__file__).parent / "examples"
SETTINGS: dict[str, dict[str, Any]] = {
    "white_cells": {"image_size": [96, 96]},
    "fundus": {"image_size": [160, 160]},
    "nuclei": {"image_size": [128, 128]},
    "white_cells_image_styles": {"image_size": [96, 96]},
    # The rival of styles: every image scaled by its own range.
    "white_cells_slice_range": {"image_size": [96, 96], "intensity": "slice_range"},
}
OVERLAYS = {"white_cells_image_styles": "demo,image_styles"}
WITH_ALL_SEEDS = ("white_cells", "white_cells_image_styles")


def main(
    data: str,
    output: str = "runs/real",
    tasks: tuple[str, ...] = tuple(SETTINGS),
    seeds: tuple[int, ...] = (0, 1, 2),
) -> None:
    """Prepare the data sets, run all trainings, and print the tables. Goes on where it stopped.

    White cells run in both directions with all seeds; everything else with the first seed only.

    Args:
        data: folder of the real images.
        output: folder for data sets, runs and tables.
        tasks: some of "white_cells", "white_cells_image_styles", "fundus", "nuclei", "white_cells_slice_range".
        seeds: of the trainings.
    """
    root = Path(output)
    tasks = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    seeds = (seeds,) if isinstance(seeds, int) else tuple(seeds)
    experiments: list[Experiment] = []
    for task in tasks:
        images = "white_cells" if task.startswith("white_cells") else task
        dataset = root / "data" / images
        if not (dataset / "dataset.json").is_file():
            make_folder_dataset(str(EXAMPLES / f"{images}.yaml"), str(dataset), root=data)
        if images != "white_cells":
            experiments.append(Experiment(task, dataset, seeds[:1], SETTINGS[task]))
            continue
        reverse = root / "data" / "white_cells_reverse"
        if not (reverse / "dataset.json").is_file():
            resplit_dataset(str(dataset), "white_stain", str(reverse))
        chosen, suffix = seeds if task in WITH_ALL_SEEDS else seeds[:1], task.removeprefix(images)
        for direction, folder in (("yellow_to_white", dataset), ("white_to_yellow", reverse)):
            name, overlay = f"white_cells_{direction}{suffix}", OVERLAYS.get(task, "demo")
            experiments.append(Experiment(name, folder, chosen, SETTINGS[task], overlay))
    run_experiments(experiments, root)
    report(experiments, root)


if __name__ == "__main__":
    fire.Fire(main)
