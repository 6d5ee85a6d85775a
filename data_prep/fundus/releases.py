"""The public optic disc and cup releases: how each is recognised, where its files are, and how its labels are coded.

What is said here of a release is told by these public sources:

- five-domain: Chen et al., MICCAI 2023, record https://zenodo.org/record/8009107 (domains and counts) and the loader
  published with it (https://github.com/Chen-Ziyang/TriD: csv columns, rater suffix of .tif masks, grey values).
- riga-plus: Hu et al., record https://zenodo.org/record/6325549 and the loaders of its authors
  (https://github.com/ShishuaiHu/DoCR, https://github.com/ShishuaiHu/CCSDG: csv names, rater suffix, grey values).
- dofe: Wang et al., IEEE TMI 39(12), 2020, and https://github.com/emma-sjwang/Dofe (folders, thresholds).
- refuge: Orlando et al., Medical Image Analysis 59, 2020 (cameras), https://refuge.grand-challenge.org/Details (grey
  values), and the file lists of https://gitlab.idiap.ch/bob/bob.ip.binseg (folders).
- drishti-gs: Sivaswamy et al., ISBI 2014, and the file lists of bob.ip.binseg (folders, equal sizes of image and map).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from data_prep.fundus.labels import CUP, RIM, ExpertShares, GreyCoding, LabelCoding, implausible, shown_values
from data_prep.fundus.layouts import (
    REFUGE_SETS,
    ListedCase,
    dofe_cases,
    drishti_cases,
    refuge_cases,
    subfolders,
    windows_cases,
)
from data_prep.fundus.lists import RATERS, csv_cases
from mixstyleflow_monai.data.schema_checks import did_you_mean

AUTO = "auto"

CUP_BLACK = GreyCoding(((255, 255, 0), (128, 128, RIM), (0, 0, CUP)))
RIM_WHITE = GreyCoding(((0, 0, 0), (255, 255, RIM), (128, 128, CUP)))
CUP_BLACK_THRESHOLDS = GreyCoding(((201, 255, 0), (51, 200, RIM), (0, 50, CUP)))
INDEX = GreyCoding(((0, 0, 0), (1, 1, RIM), (2, 2, CUP)))
THREE_OF_FOUR_EXPERTS = ExpertShares(experts=4, needed=3)
"""A clear majority. The release leaves the number open, and public readers of it take one, two, three or all four."""


@dataclass(frozen=True)
class Release:
    """One release.

    Attributes:
        name: value of ``--release``.
        title: what it is, for messages.
        origin: public address.
        domains: each domain with what is known of it.
        marks: glob patterns, relative to the folder of the release, that no other release matches.
        shared_marks: patterns that count only where no release has a mark of its own.
        list_cases: lists the cases in a folder, for a rater.
        coding: what the label values mean.
        domain_codings: codings of single domains that differ.
        raters: annotations of one image, at most.
        scattered: whether archives may spread the release over several folders, of which the common one is meant.
        max_aspect_ratio: images with a larger ratio of long to short side are left out; None accepts all.
        centre_crops: rows and columns to keep, by domain.
        counts: images with labels of each domain as published, by which a part that is not there is noticed.
    """

    name: str
    title: str
    origin: str
    domains: Mapping[str, str] = field(hash=False)
    marks: tuple[str, ...]
    list_cases: Callable[[Path, int], list[ListedCase]]
    coding: LabelCoding
    shared_marks: tuple[str, ...] = ()
    domain_codings: Mapping[str, LabelCoding] = field(default_factory=dict, hash=False)
    raters: int = 1
    scattered: bool = False
    max_aspect_ratio: float | None = None
    centre_crops: Mapping[str, tuple[int, int]] = field(default_factory=dict, hash=False)
    counts: Mapping[str, int] = field(default_factory=dict, hash=False)

    def coding_of(self, domain: str) -> LabelCoding:
        """Return what the label values of a domain mean."""
        return self.domain_codings.get(domain, self.coding)


FIVE_DOMAINS = {
    "BinRushed": "RIGA, Bin Rushed eye centre; six raters",
    "Magrabia": "RIGA, Magrabi eye centre; six raters",
    "REFUGE": "training set of REFUGE",
    "ORIGA": "ORIGA-light",
    "Drishti_GS": "Drishti-GS",
}
RIGA_PLUS_DOMAINS = {
    "BinRushed": FIVE_DOMAINS["BinRushed"],
    "Magrabia": FIVE_DOMAINS["Magrabia"],
    "MESSIDOR_Base1": "RIGA, MESSIDOR base 1; six raters",
    "MESSIDOR_Base2": "RIGA, MESSIDOR base 2; six raters",
    "MESSIDOR_Base3": "RIGA, MESSIDOR base 3; six raters",
}
WINDOW_DOMAINS = {"drishti_gs": "Drishti-GS", "refuge_train": "training set of REFUGE"}

RELEASES = (
    Release(
        name="five-domain",
        title="fundus images for domain generalization, five centres",
        origin="https://zenodo.org/record/8009107",
        domains=FIVE_DOMAINS,
        marks=tuple(f"{name}_{part}.csv" for name in ("REFUGE", "ORIGA", "Drishti_GS") for part in ("train", "test")),
        shared_marks=("BinRushed_train.csv", "Magrabia_train.csv"),
        list_cases=lambda root, rater: csv_cases(root, tuple(FIVE_DOMAINS), rater),
        coding=CUP_BLACK,
        raters=RATERS,
        counts={"BinRushed": 195, "Magrabia": 95, "REFUGE": 400, "ORIGA": 650, "Drishti_GS": 101},
    ),
    Release(
        name="riga-plus",
        title="RIGA+",
        origin="https://zenodo.org/record/6325549",
        domains=RIGA_PLUS_DOMAINS,
        marks=("MESSIDOR_Base[123]_*.csv",),
        shared_marks=("BinRushed_train.csv", "Magrabia_train.csv"),
        list_cases=lambda root, rater: csv_cases(root, tuple(RIGA_PLUS_DOMAINS), rater),
        coding=RIM_WHITE,
        raters=RATERS,
        counts={
            "BinRushed": 195,
            "Magrabia": 95,
            "MESSIDOR_Base1": 173,
            "MESSIDOR_Base2": 148,
            "MESSIDOR_Base3": 133,
        },
    ),
    Release(
        name="dofe",
        title="fundus data of DoFE",
        origin="https://github.com/emma-sjwang/Dofe",
        domains={
            "Domain1": "Drishti-GS",
            "Domain2": "RIM-ONE r3",
            "Domain3": "training set of REFUGE",
            "Domain4": "validation set of REFUGE",
        },
        marks=("Domain[1234]/*/ROIs",),
        list_cases=lambda root, _: dofe_cases(root),
        coding=CUP_BLACK_THRESHOLDS,
        counts={"Domain1": 101, "Domain2": 159, "Domain3": 400, "Domain4": 400},
    ),
    Release(
        name="refuge",
        title="REFUGE as released",
        origin="https://refuge.grand-challenge.org",
        domains={
            "REFUGE_Zeiss": "training set, Zeiss Visucam 500",
            "REFUGE_Canon": "validation and test set, Canon CR-2",
        },
        marks=tuple(sorted({name for _, images, labels in REFUGE_SETS for name in (*images, *labels)})),
        list_cases=lambda root, _: refuge_cases(root),
        coding=CUP_BLACK,
        scattered=True,
        counts={"REFUGE_Zeiss": 400, "REFUGE_Canon": 800},
    ),
    Release(
        name="drishti-gs",
        title="Drishti-GS as released",
        origin="https://cvit.iiit.ac.in/projects/mip/drishti-gs/mip-dataset2/Home.php",
        domains={"Drishti_GS": "Aravind eye hospital; soft maps of four experts"},
        marks=("Training/Images", "Test/Images", "Training/GT", "Test/Test_GT"),
        list_cases=lambda root, _: drishti_cases(root),
        coding=THREE_OF_FOUR_EXPERTS,
        scattered=True,
        counts={"Drishti_GS": 101},
    ),
    Release(
        name="windows",
        title="windows around the disc of Drishti-GS (index labels) and REFUGE",
        origin="no public address",
        domains=WINDOW_DOMAINS,
        marks=tuple(f"{name}/{kind}" for name in WINDOW_DOMAINS for kind in ("images", "masks")),
        list_cases=lambda root, _: windows_cases(root, tuple(WINDOW_DOMAINS)),
        coding=INDEX,
        domain_codings={"refuge_train": CUP_BLACK},
        # A window is about as high as wide; one image of 512 x 1024 pixels is of another framing, or stretched.
        max_aspect_ratio=1.5,
        # The windows of REFUGE are wider; their centre has the framing of the others.
        centre_crops={"refuge_train": (560, 560)},
    ),
)
"""Every release that is known, in the order in which they are listed to the user."""


def find_release(root: Path, name: str = AUTO) -> tuple[Release, Path]:
    """Recognise the release in a folder, which may lie up to two folders deeper.

    Args:
        root: folder that the user gives.
        name: the release, or ``"auto"``.

    Returns:
        The release and its own folder.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: unknown name, nothing recognised, several releases or copies; says what was found and how to choose.
    """
    if name != AUTO and name not in (known := [release.name for release in RELEASES]):
        raise ValueError(f"--release: found {name!r}, allowed: {AUTO}, {', '.join(known)}{did_you_mean(name, known)}")
    if not root.is_dir():
        what = "is a file; unpack it and give the folder" if root.exists() else "no such folder; give the release's own"
        raise FileNotFoundError(f"--root {root}: {what}.")
    folders = subfolders(root)
    wanted = [release for release in RELEASES if name in (AUTO, release.name)]
    hits = {release: found for release in wanted if (found := _hits(folders, release.marks))}
    hits = hits or {release: found for release in wanted if (found := _hits(folders, release.shared_marks))}
    if not hits:
        raise ValueError(_nothing_found(root, wanted))
    if len(hits) > 1:
        lines = [f"  --release {release.name}: {release.title}; found {_first(hits[release])}" for release in hits]
        raise ValueError(
            f"--root {root}: the files could be of several releases. Give the one that it is, or the folder of one "
            "release as --root:\n" + "\n".join(lines)
        )
    ((release, found),) = hits.items()
    if release.scattered:
        return release, Path(os.path.commonpath(list(found)))
    if len(found) > 1:
        places = ", ".join(str(folder) for folder in found)
        raise ValueError(
            f"--root {root}: the release {release.name} is there more than once: {places}; give one of them."
        )
    return release, next(iter(found))


def _hits(folders: Sequence[Path], patterns: Sequence[str]) -> dict[Path, Path]:
    """Return the folders in which a pattern matches, with what matches first."""
    hits = {}
    for folder in folders:
        first = next((path for pattern in patterns for path in sorted(folder.glob(pattern))), None)
        if first is not None:
            hits[folder] = first
    return hits


def _first(hits: Mapping[Path, Path]) -> Path:
    return next(iter(hits.values()))


def _nothing_found(root: Path, wanted: Sequence[Release]) -> str:
    lines = [
        f"  {release.name} ({release.title}): {', '.join(release.marks[:4])}{', ...' if release.marks[4:] else ''}"
        for release in wanted
    ]
    return (
        f"--root {root}: holds no file of {'any known release' if len(wanted) > 1 else 'the release'}, down to two "
        "folders below. Give the folder of the unpacked release, or describe your files with `python -m data_prep "
        "folder`. Looked for:\n" + "\n".join(lines)
    )


def misfit(
    release: Release, domain: str, path: Path, found: Sequence[NDArray[Any]], reason: str, base: Path
) -> ValueError:
    """Return the error for labels that the release's coding does not explain.

    It offers the releases whose coding would, if they can be read from the same folder.

    Args:
        release: the release that was recognised or named.
        domain: domain of the label.
        path: a label file.
        found: its values.
        reason: what does not fit.
        base: folder of the release.
    """
    coding = release.coding_of(domain)
    fitting = []
    for other in RELEASES:
        if other.coding != coding and other.coding.files == len(found):
            label = other.coding.decode(found)
            if label is not None and implausible(label) is None and _is_readable(other, base):
                fitting.append(f"{other.name} ({other.coding.meaning})")
    advice = (
        f"They would fit: {'; '.join(fitting)}. Give the right release by --release"
        if fitting
        else "They fit no release whose files are in the folder: the file may be damaged or edited. Restore the masks "
        "from the release"
    )
    return ValueError(
        f"{path}: label has values {shown_values(found)}, which do not fit the release {release.name} "
        f"({coding.meaning}): {reason}. {advice}, or describe the files with `python -m data_prep folder` (key "
        "label_values)."
    )


def _is_readable(release: Release, base: Path) -> bool:
    """Say whether naming this release would find its files in a folder."""
    try:
        release, place = find_release(base, release.name)
        return bool(release.list_cases(place, 1))
    except (ValueError, OSError):
        return False
