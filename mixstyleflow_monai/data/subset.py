"""A share of the training cases of an existing data set, for experiments with little data."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from mixstyleflow_monai.data.dataset_description import DATASET_FILE, load_dataset, save_dataset
from mixstyleflow_monai.data.output_folder import empty_output
from mixstyleflow_monai.data.resplit import content_with_cases, referenced_entry


def subset_dataset(
    dataset_dir: str | os.PathLike[str], train_fraction: float, output: str | os.PathLike[str], seed: int = 0
) -> Path:
    """Write a ``dataset.json`` with a share of the training cases; validation, test and other domains stay whole.

    Whole groups (patients, near-duplicates) are kept or left out, in a seeded order until the share, rounded down, is
    reached; one at least. A smaller share of the same seed is part of a larger one. Images and labels are referenced
    where they are, not copied.

    Args:
        dataset_dir: the existing data set, which is not changed.
        train_fraction: above 0 and up to 1.
        output: folder for the new file; must be absent or empty.
        seed: of the order of groups.

    Returns:
        Path of the written file.

    Raises:
        ValueError: a fraction out of its range, or an output that is not empty.
    """
    if isinstance(train_fraction, bool) or not 0.0 < train_fraction <= 1.0:
        raise ValueError(f"train_fraction {train_fraction}: expected a share above 0 and up to 1, such as 0.1.")
    description = load_dataset(dataset_dir)
    folder = empty_output(output)
    training = description.select("train")
    groups = sorted({case.group for case in training})
    order = [groups[position] for position in np.random.default_rng(seed).permutation(len(groups))]
    wanted = max(1, math.floor(train_fraction * len(training) + 1e-9))
    kept: set[str] = set()
    count = 0
    for group in order:
        size = sum(case.group == group for case in training)
        if kept and count + size > wanted:
            break
        kept.add(group)
        count += size
    cases = [
        {**referenced_entry(case, folder), "split": case.split}
        for case in description.cases
        if case.split != "train" or case.group in kept
    ]
    content = content_with_cases(description, description.source_domain, cases)
    content["processing"] = {
        **description.processing,
        "train_fraction": {"share": train_fraction, "seed": seed, "cases": count, "from_sha256": description.sha256},
    }
    return save_dataset(folder / DATASET_FILE, content)
