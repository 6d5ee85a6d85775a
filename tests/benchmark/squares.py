"""A tiny data set of three domains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.data import DatasetDescription, load_dataset, save_dataset

SPLITS = ("train", "train", "train", "train", "validation", "test")


def tiny_dataset(folder: Path) -> Path:
    """Write 2-D images of bright squares: six of the source, two of each other domain, which is darker."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    cases = []
    for domain, light in (("site_a", 1.0), ("site_b", 0.6), ("site_c", 0.4)):
        for number, split in enumerate(SPLITS):
            name = f"{domain}_{number}"
            top, left = random.integers(2, 14, 2)
            label = np.zeros((32, 32), dtype=np.uint8)
            label[top : top + 14, left : left + 14] = 1
            image = np.clip((0.2 + 0.6 * label + random.normal(0, 0.05, label.shape)) * light, 0, 1)
            files = {"image": folder / f"{name}.png", "label": folder / f"{name}_label.png"}
            Image.fromarray((255 * image).astype(np.uint8)).save(files["image"])
            Image.fromarray(label).save(files["label"])
            cases.append(
                {
                    "id": name,
                    "domain": domain,
                    "group": name,
                    "split": split if domain == "site_a" else "test",
                    **{kind: path.name for kind, path in files.items()},
                    "sha256": {kind: sha256_file(path) for kind, path in files.items()},
                    "spacing": None,
                }
            )
    content = {
        "format": 1,
        "name": "squares",
        "spatial_dims": 2,
        "channels": 1,
        "regions": {"square": [1]},
        "source_domain": "site_a",
        "cases": cases,
    }
    save_dataset(folder, content)
    return folder


def tiny_description(folder: Path) -> DatasetDescription:
    """The same, loaded."""
    return load_dataset(tiny_dataset(folder / "squares"))
