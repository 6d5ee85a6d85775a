"""DICOM series as NIfTI volumes with their labels (``python -m data_prep dicom``).

ITK reads the voxels (decompression, rescale slope and intercept, direction of oblique slices), highdicom those of
multi-frame objects. The result is what ``python -m data_prep folder`` takes next::

    images/NAME.nii.gz   labels/NAME.nii.gz   segments.json   series.csv

Names are made of a number for the patient (counted in this run), the modality, the series number and eight digits of
the hash of the SeriesInstanceUID, as in ``p01_MR_004_5f3a9c21``. So one patient's images can be kept together by
``group: '^(p\\d+)_'``, and no name holds a patient's name, id or date, nor the series description, which is free text.
``series.csv`` has the SeriesInstanceUIDs, which those who hold the archive can trace, and no file names of the input.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from tqdm import tqdm

from data_prep.building import building
from data_prep.dicom.report import SEGMENTS_FILE, Entry, print_entries, print_next_steps, write_csv
from data_prep.dicom.segmentation import find_label, write_nifti
from data_prep.dicom.series import Series, Tree, scan
from data_prep.dicom.voxels import DamagedVoxels, read_volume
from data_prep.image_files import UnusableCase
from mixstyleflow_monai.artifacts import write_json
from mixstyleflow_monai.data.schema_checks import did_you_mean

ALL = "all"


def convert_dicom(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    series: str | Sequence[str] | None = None,
    console: Console | None = None,
) -> Path:
    """Convert the DICOM series below a folder to NIfTI, with their labels.

    Args:
        input: folder, searched with its subfolders; it is only read.
        output: folder to make; must be absent or empty.
        series: SeriesInstanceUIDs (one, a list, or text with commas), or "all" for every one that is a volume; None
            where there is only one.
        console: where the tables are printed; standard output by default.

    Returns:
        The output folder.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no DICOM file, no volume, several volumes and no choice, a choice that is not there, not a volume
            or not readable, or an output that is not empty or lies in the input.
    """
    # A pipe has no width of its own; Rich would fold the tables at 80 columns.
    console = console or Console(width=None if sys.stdout.isatty() else 160)
    root, output = Path(input), Path(output)
    if not root.is_dir():
        raise FileNotFoundError(f"--input {root}: no such folder; give the folder that holds the DICOM files.")
    if output.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"--output {output}: lies in --input {root}, which is only read; choose a folder outside it.")
    with building(output) as folder:
        tree = scan(root)
        entries = {item.uid: Entry.of_series(item) for item in tree.series}
        try:
            chosen = _choose(tree, series, root)
        except ValueError:
            print_entries(console, list(entries.values()), tree, root)
            raise
        names = _names(tree.series)
        segments: dict[str, Any] = {}
        for item in tqdm(chosen, desc="convert series", unit="series"):
            _convert_one(item, entries[item.uid], names[item.uid], folder, tree, chosen, segments)
        rows = [*entries.values(), *_segmentation_entries(tree, chosen)]
        failed = [entry for entry in entries.values() if entry.failed]
        if failed and (len(failed) == len(chosen) or series not in (None, ALL)):
            print_entries(console, rows, tree, root)
            raise ValueError(f"--input {root}: series {failed[0].uid} {failed[0].shown_reason}. Nothing was written.")
        write_csv(folder, rows, tree)
        write_json(folder / SEGMENTS_FILE, segments)
    print_entries(console, rows, tree, root)
    print_next_steps(console, output, segments)
    return output


def _choose(tree: Tree, wanted: str | Sequence[str] | None, root: Path) -> list[Series]:
    """Return the series to convert.

    Raises:
        ValueError: see :func:`convert_dicom`.
    """
    volumes = [item for item in tree.series if not item.problem]
    if not tree.series and not tree.segmentations:
        bad = f" ({tree.unreadable[0][0]} {tree.unreadable[0][1]})" if tree.unreadable else ""
        found = f"{len(tree.unreadable)} unreadable DICOM files{bad} and {tree.ignored} files of other kinds"
        raise ValueError(f"--input {root}: no DICOM image found, only {found}. Give the folder of the images.")
    if wanted is None or wanted == ALL:
        if not volumes:
            reasons = "; ".join(f"{item.uid}: {item.problem}" for item in tree.series[:3])
            raise ValueError(f"--input {root}: none of {len(tree.series)} series is a volume. {reasons}.")
        if wanted is None and len(volumes) > 1:
            raise ValueError(
                f"--input {root}: {len(volumes)} series are volumes ({', '.join(item.uid for item in volumes)}). "
                "Choose with --series UID (several separated by commas), or take each with --series all."
            )
        return volumes
    # Fire makes a number of what looks like one.
    parts = [str(part) for part in wanted] if isinstance(wanted, list | tuple) else str(wanted).split(",")
    known = {item.uid: item for item in tree.series}
    chosen: dict[str, Series] = {}
    for uid in filter(None, (part.strip() for part in parts)):
        if uid not in known:
            allowed = ", ".join(item.uid for item in volumes) or "none"
            raise ValueError(f"--series {uid}: not in {root}, allowed: {allowed}, or all{did_you_mean(uid, known)}")
        if known[uid].problem:
            raise ValueError(f"--series {uid}: cannot be converted: {known[uid].problem}.")
        chosen[uid] = known[uid]
    if not chosen:
        raise ValueError(f"--series: found {wanted!r}, give a SeriesInstanceUID or all.")
    return list(chosen.values())


def _names(series: Sequence[Series]) -> dict[str, str]:
    """Return the name of each series; of all, so that a choice does not change a patient's number."""
    patients = sorted({item.patient for item in series}, key=lambda name: hashlib.sha256(name.encode()).digest())
    width = max(2, len(str(len(patients))))
    numbers = {patient: f"p{index:0{width}d}" for index, patient in enumerate(patients, 1)}
    names = {}
    for item in series:
        modality = re.sub(r"[^A-Za-z0-9]", "", item.tags["Modality"]) or "XX"
        digest = hashlib.sha256(item.uid.encode()).hexdigest()[:8]
        names[item.uid] = f"{numbers[item.patient]}_{modality}_{max(item.number, 0):03d}_{digest}"
    if len(set(names.values())) < len(names):
        raise ValueError("two series have the same name, a coincidence of hashes; convert them one after the other.")
    return names


def _convert_one(
    series: Series,
    entry: Entry,
    name: str,
    folder: Path,
    tree: Tree,
    chosen: Sequence[Series],
    segments: dict[str, Any],
) -> None:
    """Write one image and its label, and say in ``entry`` and ``segments`` what came of it."""
    try:
        values, affine = read_volume(series)
    except UnusableCase as error:
        entry.status, entry.reason, entry.failed = "left out", str(error), True
        entry.file = str(error.file) if isinstance(error, DamagedVoxels) else ""
        return
    write_nifti(folder / "images" / f"{name}.nii.gz", values, affine)
    entry.status, entry.name = "converted", name
    try:
        label = find_label(series, tree.segmentations, chosen)
    except UnusableCase as error:
        entry.label, entry.reason = "left out", "; ".join([*series.notes, f"label: {error}"])
        return
    if label is None:
        return
    segments[name] = label.write(folder, name, affine)
    entry.label = label.source
    if label.overlaps:
        entry.reason = "; ".join([*series.notes, "segments overlap: one file a segment"])


def _segmentation_entries(tree: Tree, chosen: Sequence[Series]) -> list[Entry]:
    """Return an entry for each SEG object that refers to none of the chosen series."""
    uids = {item.uid for item in chosen}
    present = {item.uid for item in tree.series}
    entries = []
    for seg in tree.segmentations:
        if seg.referenced & uids:
            continue
        where = "is not converted" if seg.referenced & present else "is not in the folder"
        reason = f"refers to series {', '.join(sorted(seg.referenced))}, which {where}"
        entries.append(Entry.of_segmentation(seg, reason if seg.referenced else "refers to no series"))
    return entries
