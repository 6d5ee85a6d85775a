"""Another domain as the source of an existing data set (``python -m data_prep resplit``)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixstyleflow_monai.data.dataset_description import (
    DATASET_FILE,
    SPLITS,
    Case,
    DatasetDescription,
    load_dataset,
    save_dataset,
)
from mixstyleflow_monai.data.output_folder import empty_output
from mixstyleflow_monai.data.schema_checks import did_you_mean
from mixstyleflow_monai.data.splits import FRACTIONS, assign_splits

_OLD_DIVISION = ("split", "train_fraction", "unused_training_patients", "notes")
"""Facts under ``processing`` that are of the division which is replaced."""


def resplit_dataset(
    dataset_dir: str | os.PathLike[str],
    source: str,
    output: str | os.PathLike[str],
    seed: int | None = None,
) -> Path:
    """Write a ``dataset.json`` in which ``source`` is divided and every other domain is unseen.

    Images and labels are referenced where they are, not copied; hashes and groups are kept. The fractions are those of
    the data set, or 0.7, 0.1, 0.2 where it does not record three that can be used, which is said. What the data set
    records of its own division is kept below ``processing``, ``resplit``, ``from``.

    Args:
        dataset_dir: the existing data set, which is not changed.
        source: the domain to train on.
        output: folder for the new file; must be absent or empty.
        seed: seed of the division; that of the data set by default.

    Returns:
        Path of the written file.

    Raises:
        FileNotFoundError: no data set there.
        ValueError: no such domain, a domain that cannot be divided, or an output that is not empty.
    """
    description = load_dataset(dataset_dir)
    if source not in description.domains:
        hint = did_you_mean(source, description.domains)
        raise ValueError(
            f"--source: {description.path} has no domain {source!r}, allowed: {', '.join(description.domains)}{hint}"
        )
    # Links are followed, because ".." after a link would lead elsewhere than the text of the path says.
    folder = empty_output(output)
    fractions, recorded_seed = _recorded_division(description)
    seed = recorded_seed if seed is None else seed
    entries = [referenced_entry(case, folder) for case in description.cases]
    try:
        cases = assign_splits(entries, source, fractions=fractions, seed=seed)
    except ValueError as error:
        raise ValueError(f"{description.path}: {error}") from error
    content = content_with_cases(description, source, cases)
    content["processing"] = {
        **{key: value for key, value in description.processing.items() if key not in _OLD_DIVISION},
        "split": {**dict(zip(SPLITS, fractions, strict=True)), "seed": seed},
        "resplit": {
            "from_source_domain": description.source_domain or None,
            "from_sha256": description.sha256,
            "from": {key: description.processing[key] for key in _OLD_DIVISION if key in description.processing},
        },
    }
    return save_dataset(folder / DATASET_FILE, content)


def _recorded_division(description: DatasetDescription) -> tuple[tuple[float, ...], int]:
    """Return the fractions and the seed that the data set records, and the defaults where these cannot be used.

    ``processing`` holds free facts, so that a data set made by hand may have anything there.
    """
    split = description.processing.get("split")
    known: Mapping[str, Any] = split if isinstance(split, Mapping) else {}
    shares = [known.get(name) for name in SPLITS]
    fractions = tuple(float(share) for share in shares if isinstance(share, int | float) and 0 < share < 1)
    if len(fractions) < len(SPLITS) or not math.isclose(sum(fractions), 1.0, abs_tol=1e-6):
        # The phantom has the default's shares, and records the seed; without a source nothing was divided.
        if description.source_domain and (split is None or known.keys() != {"seed"}):
            found = "nothing" if split is None else repr(split)[:80]
            defaults = ", ".join(f"{name} {share:g}" for name, share in zip(SPLITS, FRACTIONS, strict=True))
            print(
                f"note: {description.path}: processing.split has {found}, and not three shares above 0 with sum 1; "
                f"divided by the default {defaults}."
            )
        fractions = FRACTIONS
    seed = known.get("seed", 0)
    return fractions, seed if isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 else 0


def referenced_entry(case: Case, folder: Path) -> dict[str, Any]:
    """Return a case as ``dataset.json`` in ``folder`` would have it, its files where they are and without a split."""
    return {
        "id": case.id,
        "domain": case.domain,
        "group": case.group,
        "split": "",
        "image": Path(os.path.relpath(case.image, folder)).as_posix(),
        "label": Path(os.path.relpath(case.label, folder)).as_posix(),
        "sha256": case.sha256,
        "spacing": None if case.spacing is None else list(case.spacing),
    }


def content_with_cases(description: DatasetDescription, source: str, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a ``dataset.json`` of the same task with other cases, without its processing facts."""
    return {
        "format": 1,
        "name": description.name,
        "spatial_dims": description.spatial_dims,
        "channels": description.channels,
        "regions": description.regions,
        "source_domain": source,
        "cases": cases,
    }
