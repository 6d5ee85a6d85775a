"""The data sets of a benchmark: each source domain in turn, and shares of its training cases."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from mixstyleflow_monai.data.dataset_description import DATASET_FILE, DatasetDescription, load_dataset
from mixstyleflow_monai.data.resplit import resplit_dataset
from mixstyleflow_monai.data.subset import subset_dataset


def source_dataset(description: DatasetDescription, source: str, train_fraction: float, output: Path) -> Path:
    """Return the folder of a data set with this source domain and this share of its training cases.

    Images are referenced, not copied. What was written by an earlier call is used again if it is of the same data set.

    Args:
        description: the data set as given.
        source: domain to train on.
        train_fraction: share of its training cases, above 0 and up to 1; validation and test stay whole.
        output: folder for derived data sets.

    Raises:
        ValueError: a derived data set of other data is there already.
    """
    folder, sha256 = description.path.parent, description.sha256
    name = source_name(source)
    if source != description.source_domain:
        given = folder
        folder = _derived(output / name, "resplit", sha256, lambda new: resplit_dataset(given, source, new))
        sha256 = load_dataset(folder).sha256
    if train_fraction < 1.0:
        whole, target = folder, output / f"{name}_{train_fraction:g}"
        folder = _derived(target, "train_fraction", sha256, lambda new: subset_dataset(whole, train_fraction, new))
    return folder


def source_name(source: str) -> str:
    """Return the name of a source domain's folders."""
    return re.sub(r"[^\w.-]+", "_", source)


def _derived(folder: Path, facts: str, before: str, make: Callable[[Path], object]) -> Path:
    """Return ``folder``, made first if it is not there; what is there must be derived from the data set ``before``."""
    if not (folder / DATASET_FILE).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        make(folder)
    found = load_dataset(folder).processing.get(facts, {}).get("from_sha256")
    if found != before:
        raise ValueError(
            f"{folder}: was derived from another data set ({str(found)[:12]}..., now {before[:12]}...). Give another "
            "--output_dir."
        )
    return folder
