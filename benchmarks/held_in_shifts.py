"""Dice on source validation images under shifts set by hand, to choose among recipes without any unseen domain.

``python -m benchmarks.held_in_shifts RUN --dataset_dir DATASET`` prints, for folders with ``models/model.pt``, the mean
Dice of plain and of shifted source validation slices, see `mixstyleflow_monai.engines.shifted_validation`.
"""

from __future__ import annotations

import json
from pathlib import Path

import fire

from mixstyleflow_monai.data import Task, load_dataset
from mixstyleflow_monai.engines import load_network
from mixstyleflow_monai.engines.shifted_validation import shifted_dice, validation_slices
from mixstyleflow_monai.networks import DualDecoderNet


def main(*runs: str, dataset_dir: str) -> None:
    """Print the Dice of each run as a line of JSON.

    Args:
        runs: folders with ``models/model.pt``.
        dataset_dir: the data set that they were trained on.
    """
    for run in runs:
        print(json.dumps({"run": str(run), **shifts_of_run(Path(run), Path(dataset_dir))}), flush=True)


def shifts_of_run(run: Path, dataset_dir: Path) -> dict[str, float]:
    """Return `shifted_dice` of a trained network on the labelled validation slices of its source domain.

    Args:
        run: folder with ``models/model.pt``.
        dataset_dir: the data set that it was trained on.
    """
    path = run / "models" / "model.pt"
    task = Task.from_model(path)
    network = DualDecoderNet(**task.network_settings())
    load_network(network, path)
    images, target = validation_slices(load_dataset(str(dataset_dir)).datalist("validation"), task)
    return shifted_dice(network.eval(), task, images, target)


if __name__ == "__main__":
    fire.Fire(main)
