"""Another domain as the source of an existing data set (``python -m data_prep resplit``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from data_prep.splits import FRACTIONS, SPLITS, assign_splits
from mixstyleflow_monai.data.dataset_description import (
    DATASET_FILE,
    Case,
    DatasetDescription,
    load_dataset,
    save_dataset,
)
from mixstyleflow_monai.data.schema_checks import did_you_mean


def resplit_dataset(
    dataset_dir: str | os.PathLike[str],
    source: str,
    output: str | os.PathLike[str],
    seed: int | None = None,
) -> Path:
    """Write a ``dataset.json`` in which ``source`` is divided and every other domain is unseen.

    Images and labels are referenced where they are, not copied; hashes and groups are kept. The fractions are those of
    the data set, or 0.7, 0.1, 0.2 where it does not record any.

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
    folder = Path(output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--output {folder}: exists and is not an empty folder; choose another or remove it first.")
    split = description.processing.get("split", {})
    fractions = tuple(split.get(name, default) for name, default in zip(SPLITS, FRACTIONS, strict=True))
    seed = split.get("seed", 0) if seed is None else seed
    # Links are followed, because ".." after a link would lead elsewhere than the text of the path says.
    entries = [_entry(case, folder.resolve()) for case in description.cases]
    try:
        cases = assign_splits(entries, source, fractions=fractions, seed=seed)
    except ValueError as error:
        raise ValueError(f"{description.path}: {error}") from error
    content = _content(description, source, cases)
    content["processing"] = {
        **description.processing,
        "split": {**dict(zip(SPLITS, fractions, strict=True)), "seed": seed},
        "resplit": {"from_source_domain": description.source_domain, "from_sha256": description.sha256},
    }
    return save_dataset(folder / DATASET_FILE, content)


def _entry(case: Case, folder: Path) -> dict[str, Any]:
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


def _content(description: DatasetDescription, source: str, cases: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": 1,
        "name": description.name,
        "spatial_dims": description.spatial_dims,
        "channels": description.channels,
        "regions": description.regions,
        "source_domain": source,
        "cases": cases,
    }
