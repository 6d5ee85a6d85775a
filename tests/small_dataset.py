"""A data set of two domains that is made in a moment, and settings that train on it in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.data import save_dataset

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


def make_dataset(folder: Path) -> Path:
    """Write grey 32 x 32 discs of two domains."""
    cases = []
    for number in range(8):
        domain = "home" if number < 5 else "far"
        split = "test" if number >= 4 else "validation" if number == 3 else "train"
        axis = np.arange(32) - 15.5
        disc = axis[:, None] ** 2 + axis[None] ** 2 < (6 + number % 3) ** 2
        image = np.where(disc, 200, 60) + np.random.default_rng(number).integers(0, 30, (32, 32))
        files = {"image": f"images/{number}.png", "label": f"labels/{number}.png"}
        for key, array in (("image", image), ("label", disc)):
            path = folder / files[key]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(path)
        hashes = {key: sha256_file(folder / name) for key, name in files.items()}
        cases.append(
            {"id": f"c{number}", "domain": domain, "group": f"c{number}", "split": split, **files}
            | {"sha256": hashes, "spacing": None}
        )
    content = {
        "format": 1,
        "name": "discs",
        "spatial_dims": 2,
        "channels": 1,
        "regions": {"disc": [1]},
        "source_domain": "home",
        "cases": cases,
    }
    save_dataset(folder, content)
    return folder
