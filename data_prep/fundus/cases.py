"""The cases of a fundus release: naming them, checking that their labels are read by the right coding, writing them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data_prep.folder_cases import FoundCase, relative_to, repeated_names
from data_prep.folder_spec import FolderSpec
from data_prep.fundus.labels import REGIONS, implausible, shown_values
from data_prep.fundus.layouts import ListedCase
from data_prep.fundus.releases import Release, misfit
from data_prep.image_files import UnusableCase, array_hash, centre_crop, read_image, write_png
from data_prep.import_summary import LeftOut

CHANNELS = 3
SAMPLE = 5
"""Labels of a domain that are looked at before the import, to notice a wrong coding early."""


@dataclass
class FundusCase(FoundCase):
    """A case on its way into the data set, with what the listing of the release says of it."""

    listed: ListedCase = field(kw_only=True)


def fundus_cases(spec: FolderSpec, listed: Sequence[ListedCase], base: Path) -> list[FundusCase]:
    """Name the cases; each is a group of its own, because no release tells which images are of one patient."""
    cases = []
    for domain in spec.domains:
        members = [entry for entry in listed if entry.domain == domain.name]
        names = _names([entry.image for entry in members])
        for name, entry in sorted(zip(names, members, strict=True), key=lambda pair: pair[0]):
            label = entry.labels[0] if entry.labels else base
            cases.append(FundusCase(domain, name, entry.image, label, group=name, listed=entry))
    return cases


def _names(paths: Sequence[Path]) -> list[str]:
    """Name cases by their file, and by their folders as well where file names repeat, as those of RIGA do."""
    common = Path(os.path.commonpath([path.parent for path in paths]))
    choices: list[Callable[[Path], str]] = [
        lambda path: path.stem,
        lambda path: "_".join((path.parent.relative_to(common) / path.stem).parts),
        lambda path: "_".join(path.relative_to(common).parts).replace(".", "_"),
    ]
    for choice in choices:
        names = [choice(path) for path in paths]
        repeated = repeated_names(names)
        if not repeated:
            return names
    twins = ", ".join(str(paths[index]) for index in repeated)
    raise ValueError(f"these images cannot be told apart by name: {twins}; rename or remove one.")


def check_coding(release: Release, cases: Sequence[FundusCase], base: Path) -> None:
    """Look at a few labels of each domain, because a wrong coding would spoil all of them.

    Raises:
        ValueError: most labels of a domain have a value without a meaning, or do not look like an optic disc.
    """
    for domain in dict.fromkeys(case.domain.name for case in cases):
        members = [case for case in cases if case.domain.name == domain and not case.listed.fault]
        odd = []
        looked_at = 0
        for case in members[:: max(1, -(-len(members) // SAMPLE))]:
            try:
                found, label = _read_label(release, case)
            except UnusableCase:
                continue
            looked_at += 1
            reason = "some have no meaning there" if label is None else implausible(label)
            if reason:
                odd.append((case, found, reason))
        if 2 * len(odd) > looked_at:
            case, found, reason = odd[0]
            reason = f"read so, {reason} ({len(odd)} of {looked_at} labels looked at)"
            raise misfit(release, domain, case.label, found, reason, base)


def _read_label(release: Release, case: FundusCase) -> tuple[tuple[NDArray[Any], ...], NDArray[np.uint8] | None]:
    """Return the values in the label files of a case, and the label; None where a value has no meaning."""
    for path in case.listed.labels:
        if not path.is_file():
            raise UnusableCase(f"no label {path.name}", "add it from the release")
    coding = release.coding_of(case.domain.name)
    found = coding.read(case.listed.labels)
    return found, coding.decode(found)


def import_cases(
    release: Release, cases: Sequence[FundusCase], folder: Path, base: Path, left_out: list[LeftOut]
) -> list[FoundCase]:
    """Read and write all cases, and report those that cannot be used; return the rest."""
    written: list[FoundCase] = []
    for case in tqdm(cases, desc=f"import {release.name}", unit="image"):
        try:
            label = _take(release, case, folder)
        except UnusableCase as problem:
            image = relative_to(case.image, base)
            left_out.append(LeftOut(case.domain.name, image, str(problem), problem.remedy))
            continue
        case.shares = {region: float(np.isin(label, values).mean()) for region, values in REGIONS.items()}
        written.append(case)
    return written


def _take(release: Release, case: FundusCase, folder: Path) -> NDArray[np.uint8]:
    """Check a case and write its image and label below ``folder``; return the label as written."""
    if case.listed.fault:
        raise UnusableCase(case.listed.fault, case.listed.remedy)
    found, label = _read_label(release, case)
    if label is None:
        # Labels of the domain were looked at before, and most of them fit: this file is at fault, and not the coding.
        meaning = release.coding_of(case.domain.name).meaning
        reason = f"label {case.label.name} has values {shown_values(found)}, some of which mean nothing ({meaning})"
        raise UnusableCase(reason, "it may be damaged: restore it from the release")
    image = read_image(case.image, CHANNELS)
    if image.shape[:2] != label.shape:
        sizes = " and ".join(f"{shape[0]} x {shape[1]}" for shape in (image.shape, label.shape))
        reason = f"image and label differ in size: {sizes} (rows x columns)"
        raise UnusableCase(reason, "restore both from the release")
    ratio, limit = max(label.shape) / min(label.shape), case.domain.max_aspect_ratio
    if limit is not None and ratio > limit:
        reason = f"aspect ratio {ratio:.2f} of {label.shape[0]} x {label.shape[1]} is over {limit:g}"
        raise UnusableCase(reason, "cut image and label to the framing of the others")
    if case.domain.centre_crop:
        image, label = (centre_crop(values, case.domain.centre_crop) for values in (image, label))
    oddity = implausible(label)
    if oddity:
        raise UnusableCase(
            f"label {case.label.name} cannot be right: {oddity}", "look at it, and restore or correct it"
        )
    case.outputs = (
        folder / "images" / case.domain.name / f"{case.name}.png",
        folder / "labels" / case.domain.name / f"{case.name}.png",
    )
    for path, values in zip(case.outputs, (image, label), strict=True):
        write_png(path, values)
    case.pixels = array_hash(image)
    return label
