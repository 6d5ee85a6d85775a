"""What ``python -m data_prep check`` can tell from ``dataset.json``, and from all cases together.

:func:`~mixstyleflow_monai.data.load_dataset` refuses a file with a problem. Here its problems are listed, and the cases
that are sound are looked at all the same, so that one run tells everything.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from data_prep.check_case import CaseResult
from mixstyleflow_monai.data.dataset_description import (
    SPLITS,
    Case,
    DatasetDescription,
    case_from_entry,
    dataset_file,
    dataset_schema,
    description_problems,
    read_dataset_file,
)
from mixstyleflow_monai.data.label_field import MIN_SHARE_FILLED, SMALL_REMEDY
from mixstyleflow_monai.data.schema_checks import schema_problems

_SHOWN_TWINS = 5
_LITTLE = 0.25
"""Of a type's range; 12 bits in 16 are 0.06."""
_COARSE = 1.5
"""Edge of a voxel within axial slices over that across them; axial series are below 1, isotropic ones at 1."""


@dataclass(frozen=True)
class Problem:
    """One line of the report.

    Attributes:
        severity: "error" or "warning", see :class:`~mixstyleflow_monai.data.file_faults.Fault`.
        case: id of the case, or what else it concerns (a split, a domain); "-" for the whole data set.
        file: relative to the folder of ``dataset.json``.
        fault: what was found, and what was expected.
        remedy: what to do.
    """

    severity: Literal["error", "warning"]
    case: str
    file: str
    fault: str
    remedy: str


def read_description(dataset: str | os.PathLike[str]) -> tuple[DatasetDescription, list[Problem]]:
    """Read ``dataset.json`` as far as it can be understood.

    Files are not looked for: whoever reads them finds out.

    Returns:
        The data set with those of its cases whose entries are sound (``sha256`` stays empty), and all problems.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a readable JSON object, or one that gives a key twice.
    """
    path = dataset_file(dataset)
    content, _ = read_dataset_file(path)
    folder = path.parent.resolve()
    problems = [_problem(line, path.name) for line in description_problems(content, folder, check_files=False)]
    sound = _sound_entries(content)
    known = content if sound else {}
    description = DatasetDescription(
        path=path,
        name=known.get("name", path.parent.name),
        spatial_dims=known.get("spatial_dims", 2),
        channels=known.get("channels", 1),
        regions=known.get("regions", {}),
        source_domain=known.get("source_domain") or "",
        cases=tuple(case_from_entry(entry, folder) for entry in sound),
        processing={},
        sha256="",
    )
    return description, problems


def _sound_entries(content: Any) -> list[dict[str, Any]]:
    """Return the entries of ``cases`` that can be understood; none where what they share cannot be."""
    entries: Any = content.get("cases") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        return []
    if not schema_problems(dataset_schema(), content):
        return entries
    return [entry for entry in entries if not schema_problems(dataset_schema(), {**content, "cases": [entry]})]


def _problem(line: str, file: str) -> Problem:
    """Divide a problem, as ``load_dataset`` words it, into its parts."""
    named = re.match(r"case '(?P<id>.+?)': (?P<text>.+)", line, re.DOTALL)
    if named is None:
        named = re.search(r"\(id '(?P<id>.+?)'\)", line)
    fault, _, remedy = (named["text"] if named and "text" in named.groupdict() else line).partition("; ")
    return Problem("error", named["id"] if named else "-", file, fault, remedy or "correct dataset.json")


def duplicates(description: DatasetDescription, results: Sequence[CaseResult]) -> list[Problem]:
    """List the images with equal values, whatever their file format.

    In two splits or two domains they are a leak, because any domain may become the source of a resplit; in one split
    they only count twice.
    """
    by_pixels: dict[str, list[Case]] = defaultdict(list)
    for case, result in zip(description.cases, results, strict=True):
        if result.pixels is not None:
            by_pixels[result.pixels].append(case)
    problems = []
    for cases in by_pixels.values():
        splits, domains = ({getattr(case, key) for case in cases} for key in ("split", "domain"))
        recorded = {case.sha256["image"] for case in cases}
        if len(cases) == 1 or (len(splits) > 1 and len(domains) == 1 and len(recorded) == 1):
            continue  # equal files in two splits are a problem of dataset.json itself
        first, *others = cases
        twins = ", ".join(f"{case.id} ({case.domain}, {case.split})" for case in others[:_SHOWN_TWINS])
        more = f" and {len(others) - _SHOWN_TWINS} more" if len(others) > _SHOWN_TWINS else ""
        labels = {case.sha256.get("label") for case in cases}
        contradicting = ", but not the same label" if len(labels) > 1 else ""
        leak = len(splits) > 1 or len(domains) > 1
        remedy = "keep the one that is right" if contradicting else "remove one, unless it is to count twice"
        if leak:
            remedy = (
                "keep one of them" if len(domains) > 1 else "keep one of them, or put them into one split and group"
            )
        problems.append(
            Problem(
                "error" if leak else "warning",
                first.id,
                shown(first.image, description),
                f"({first.domain}, {first.split}) has the same pixels as {twins}{more}{contradicting}",
                remedy,
            )
        )
    return problems


def missing_regions(description: DatasetDescription, results: Sequence[CaseResult]) -> list[Problem]:
    """List the regions that no label of a split of the source, or of an unseen domain, shows.

    A part with a label that cannot be read is left out: what that label shows is not known.
    """
    parts: dict[tuple[str, str], list[CaseResult]] = defaultdict(list)
    for case, result in zip(description.cases, results, strict=True):
        parts[case.domain, case.split].append(result)
    problems = []
    for (domain, split), members in sorted(parts.items()):
        sizes = [result.region_sizes for result in members if result.region_sizes is not None]
        absent = [name for name in description.regions if not any(size[name] for size in sizes)]
        if len(sizes) < len(members) or not absent:
            continue
        if absent == list(description.regions):
            fault = f"all of the {len(members)} labels in {split!r} of the domain {domain!r} are background only"
        else:
            fault = f"no label in {split!r} of the domain {domain!r} shows {', '.join(absent)}"
        needed = domain == description.source_domain and split != SPLITS[-1]
        severity: Literal["error", "warning"] = (
            "error" if needed or len(absent) == len(description.regions) else "warning"
        )
        remedy = (
            "check how label values were mapped; if they are right, divide the cases anew (`python -m data_prep "
            "resplit`, --seed), or remove the region"
            if needed
            else "check the labels"
        )
        problems.append(Problem(severity, "-", description.path.name, fault, remedy))
    return problems


def dark_domains(description: DatasetDescription, results: Sequence[CaseResult]) -> list[Problem]:
    """List the domains most of whose pictures use little of their type's range, such as 12 bits in files of 16.

    By default a picture's values are divided by the largest that its type can hold, so that such ones are nearly black
    to the network.
    """
    domains: dict[str, list[float]] = defaultdict(list)
    for case, result in zip(description.cases, results, strict=True):
        if result.used_range is not None:
            domains[case.domain].append(result.used_range)
    # The window is one of values as they are stored.
    window = "" if description.channels == 3 else ", or with a window of values such as --intensity [0,4095]"
    remedy = f"train with --percentiles [1,99.8]{window}"
    return [
        Problem(
            "warning",
            "-",
            description.path.name,
            f"half of the images of {domain!r} use at most {100 * median(shares):.0f} % of the range that their "
            "files can hold",
            remedy,
        )
        for domain, shares in sorted(domains.items())
        if median(shares) < _LITTLE
    ]


def domains_of_other_planes(description: DatasetDescription, results: Sequence[CaseResult]) -> list[Problem]:
    """List the domains of sagittal or coronal series: networks see axial slices, which are interpolated there."""
    domains: dict[str, list[float]] = defaultdict(list)
    for case, result in zip(description.cases, results, strict=True):
        if result.coarseness is not None:
            domains[case.domain].append(result.coarseness)
    remedy = (
        "such slices are blurred along one axis: give axial series, or the slices of these ones as 2-D images with a "
        "group a patient"
    )
    return [
        Problem(
            "warning",
            "-",
            description.path.name,
            f"half of the volumes of {domain!r} have voxels at least {median(ratios):.1f} times as long within axial "
            "slices, which the network gets, as across them",
            remedy,
        )
        for domain, ratios in sorted(domains.items())
        if median(ratios) > _COARSE
    ]


def small_domains(description: DatasetDescription, results: Sequence[CaseResult]) -> list[Problem]:
    """List the domains whose volumes are far smaller than what the network sees, which is mostly padding then."""
    domains: dict[str, list[float]] = defaultdict(list)
    for case, result in zip(description.cases, results, strict=True):
        if result.filled is not None:
            domains[case.domain].append(result.filled)
    return [
        Problem(
            "warning",
            "-",
            description.path.name,
            f"half of the volumes of {domain!r} fill at most {100 * median(shares):.2g} % of what the network sees "
            "(image_size x pixel_spacing)",
            SMALL_REMEDY,
        )
        for domain, shares in sorted(domains.items())
        if median(shares) < MIN_SHARE_FILLED
    ]


def shown(path: Path, description: DatasetDescription) -> str:
    """Return a path as seen from the folder of ``dataset.json``, with forward slashes."""
    return Path(os.path.relpath(path, description.path.parent)).as_posix()
