"""Data sets of small images that are made in a moment, and settings that train on them in seconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.data import save_dataset
from mixstyleflow_monai.data.splits import assign_splits

PAIR_FRACTIONS = (0.5, 0.2, 0.3)

SMALL = {
    "image_size": [32, 32],
    "batch_size": 4,
    "epoch_length": 2,
    "max_epochs": 1,
    "val_interval": 1,
    "preview_interval": 1,
    "statistics_passes": 1,
    "statistics_batch_size": 4,
}


@dataclass(frozen=True)
class SmallCase:
    """A case to write: ``image`` and ``label`` are arrays of bytes (H, W); its group is itself if none is given."""

    id: str
    domain: str
    split: str
    image: np.ndarray
    label: np.ndarray
    group: str | None = None


def write_cases(
    folder: Path, cases: Iterable[SmallCase], name: str, region: str = "thing", **more: dict[str, Any]
) -> Path:
    """Write a data set of grey images with one region, and return its folder; the first case is of the source."""
    entries: list[dict[str, Any]] = []
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        files = {"image": f"{case.id}.png", "label": f"{case.id}_label.png"}
        for key, array in (("image", case.image), ("label", case.label)):
            Image.fromarray(array.astype(np.uint8)).save(folder / files[key])
        hashes = {key: sha256_file(folder / file) for key, file in files.items()}
        entry = {"id": case.id, "domain": case.domain, "group": case.group or case.id, "split": case.split}
        entries.append({**entry, **files, "sha256": hashes, "spacing": None})
    task = {"format": 1, "name": name, "spatial_dims": 2, "channels": 1, "regions": {region: [1]}}
    save_dataset(folder, {**task, "source_domain": entries[0]["domain"], "cases": entries, **more})
    return folder


def make_dataset(folder: Path) -> Path:
    """Write grey 32 x 32 discs of two domains."""
    cases = []
    for number in range(8):
        split = "test" if number >= 4 else "validation" if number == 3 else "train"
        axis = np.arange(32) - 15.5
        disc = axis[:, None] ** 2 + axis[None] ** 2 < (6 + number % 3) ** 2
        image = np.where(disc, 200, 60) + np.random.default_rng(number).integers(0, 30, (32, 32))
        cases.append(SmallCase(f"c{number}", "home" if number < 5 else "far", split, image, disc))
    return write_cases(folder, cases, "discs", "disc")


def make_pairs(folder: Path, groups: int, **more: dict[str, Any]) -> Path:
    """Write noise of two domains, "left" and "right", in groups of two cases; half of the source's are train."""
    splits = {
        case["group"]: case["split"]
        for case in assign_splits(
            [{"domain": "left", "group": f"g{number}"} for number in range(groups)], "left", fractions=PAIR_FRACTIONS
        )
    }
    cases = []
    for domain in ("left", "right"):
        for number in range(2 * groups):
            group = f"g{number // 2}"
            noise = np.random.default_rng(len(cases)).integers(0, 255, (4, 4))
            split = splits[group] if domain == "left" else "test"
            cases.append(SmallCase(f"{domain}{number}", domain, split, noise, noise, group))
    return write_cases(folder, cases, "pairs", **more)
