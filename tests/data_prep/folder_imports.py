"""Imports of small folders by a spec."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from data_prep.folder import make_folder_dataset
from mixstyleflow_monai.data.dataset_description import DatasetDescription, load_dataset

Spec = dict[str, Any]


def run(spec: Spec, root: Path, name: str = "out") -> DatasetDescription:
    path = root.parent / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return load_dataset(make_folder_dataset(path, root.parent / name, root, console=Console(file=io.StringIO())))


def left_out(description: DatasetDescription) -> dict[str, str]:
    with open(description.path.parent / "left_out.csv", newline="") as stream:
        return {row["image"]: row["reason"] for row in csv.DictReader(stream)}
