"""A tiny data set of three domains."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mixstyleflow_monai.data import DatasetDescription, load_dataset
from tests.small_dataset import SmallCase, write_cases

SPLITS = ("train", "train", "train", "train", "validation", "test")


def tiny_dataset(folder: Path) -> Path:
    """Write 2-D images of bright squares, six of each domain; the two that are not the source are darker."""
    random = np.random.default_rng(0)
    cases = []
    for domain, light in (("site_a", 1.0), ("site_b", 0.6), ("site_c", 0.4)):
        for number, split in enumerate(SPLITS):
            top, left = random.integers(2, 14, 2)
            label = np.zeros((32, 32), dtype=np.uint8)
            label[top : top + 14, left : left + 14] = 1
            image = 255 * np.clip((0.2 + 0.6 * label + random.normal(0, 0.05, label.shape)) * light, 0, 1)
            cases.append(SmallCase(f"{domain}_{number}", domain, split if domain == "site_a" else "test", image, label))
    return write_cases(folder, cases, "squares", "square")


def tiny_description(folder: Path) -> DatasetDescription:
    """The same, loaded."""
    return load_dataset(tiny_dataset(folder / "squares"))
