"""Finding the DICOM series of a folder, and saying which of them are regular volumes.

Only headers are read here. A series that is no volume with one grid keeps the reason in :attr:`Series.problem`; ITK
would stack its slices all the same, on a grid that is wrong from the gap on. Geometry is in DICOM's own axes (LPS,
millimetres).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data_prep.dicom.files import (
    DIVIDERS,
    Instance,
    Segmentation,
    Unreadable,
    name_and_birth,
    person,
    read_header,
    without_identity,
)
from data_prep.dicom.grid import RepeatedPositions, slice_grid, slice_order
from data_prep.image_files import UnusableCase

WITHHELD = "(withheld)"
_NAMED = "no PatientID: told apart by name and date of birth, which may be alike for several patients"
_NAMELESS = (
    "no PatientID, name or date of birth: patients cannot be told apart, and each study counts as one; "
    "change `group` where a patient has several"
)
_SHARED = (
    "this PatientID has several names or dates of birth, or is a placeholder: all of it counts as one patient; "
    "change `group` where it is several"
)
_PLACEHOLDERS = ("", "anon", "anonymous", "anonymized", "anonymised", "deidentified", "unknown", "none", "na", "null")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass
class Series:
    """The images of one SeriesInstanceUID.

    Attributes:
        instances: the images; of a regular volume in the order of the grid's third axis.
        patient: tells patients apart in one run; identifying, so it is never written.
        problem: why it cannot be converted, or "".
        notes: what a user should know of a series that can be.
        affine: (4, 4) from (column, row, slice) to LPS mm, or None.
        size: columns, rows and slices (or images).
    """

    uid: str
    instances: tuple[Instance, ...]
    patient: str
    problem: str = ""
    notes: list[str] = field(default_factory=list)
    affine: NDArray[np.float64] | None = None
    size: tuple[int, int, int] = (0, 0, 0)

    @property
    def tags(self) -> dict[str, Any]:
        """Tags of the first image."""
        return self.instances[0].tags

    @property
    def number(self) -> int:
        """SeriesNumber, 0 where there is none."""
        return int((self.tags["SeriesNumber"] or (0,))[0])

    @property
    def description(self) -> str:
        """SeriesDescription, withheld where it holds the patient's name or id."""
        return without_identity(self.tags["SeriesDescription"], self.tags, WITHHELD)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Millimetres along columns' direction, rows' direction and slices; empty if unknown."""
        return () if self.affine is None else tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))


@dataclass
class Tree:
    """What a folder holds.

    Attributes:
        series: image series, by number and UID.
        segmentations: DICOM SEG objects, copies left out.
        unreadable: DICOM files and folders that cannot be read, with the reason.
        ignored: how many files are not DICOM.
    """

    series: list[Series] = field(default_factory=list)
    segmentations: list[Segmentation] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    ignored: int = 0


def scan(folder: Path) -> Tree:
    """Read the headers of all DICOM files below ``folder``; links to folders are not followed.

    Args:
        folder: an existing folder.
    """
    tree = Tree()
    by_uid: dict[str, list[Instance]] = {}
    seen: set[str] = set()

    def report(error: OSError) -> None:
        tree.unreadable.append((Path(error.filename), f"cannot be searched ({type(error).__name__})"))

    paths = sorted(Path(parent) / name for parent, _, names in os.walk(folder, onerror=report) for name in names)
    for path in tqdm(paths, desc="read DICOM headers", unit="file"):
        try:
            found = read_header(path)
        except Unreadable as error:
            tree.unreadable.append((path, str(error)))
            continue
        if found is None:
            tree.ignored += 1
        elif isinstance(found, Instance):
            by_uid.setdefault(found.tags["SeriesInstanceUID"], []).append(found)
        elif found.instance.tags["SOPInstanceUID"] not in seen:
            seen.add(found.instance.tags["SOPInstanceUID"])
            tree.segmentations.append(found)
    tree.series = [judge(uid, instances) for uid, instances in by_uid.items()]
    tree.series.sort(key=lambda series: (series.number, series.uid))
    _join_patients(tree.series)
    return tree


def _join_patients(series: Sequence[Series]) -> None:
    """Take series of one PatientID for one patient where an issuer is missing, and note what an id does not tell.

    Two groups of one patient could become training and test images; one group of two patients costs a better split.
    """
    by_id: dict[str, list[Series]] = {}
    for item in series:
        kind, *rest = person(item.tags) or ("",)
        if kind == "id":
            by_id.setdefault(rest[0], []).append(item)
    for number, items in by_id.items():
        if len({item.patient for item in items}) > 1 and any(not item.tags["IssuerOfPatientID"] for item in items):
            for item in items:
                item.patient = number
        for patient in {item.patient for item in items}:
            same = [item for item in items if item.patient == patient]
            people = {name_and_birth(item.tags) for item in same} - {()}
            studies = {item.tags["StudyInstanceUID"] for item in same}
            if len(people) > 1 or (len(studies) > 1 and re.sub(r"\W|0", "", number) in _PLACEHOLDERS):
                for item in same:
                    item.notes.append(_SHARED)


def judge(uid: str, instances: Sequence[Instance]) -> Series:
    """Say whether the instances of a series are one regular volume, and on which grid."""
    unique = {(i.tags["SOPInstanceUID"], i.tags["ImagePositionPatient"]): i for i in reversed(instances)}
    kept = sorted(unique.values(), key=lambda i: (i.tags["InstanceNumber"] or (0.0,), i.tags["SOPInstanceUID"]))
    tags = kept[0].tags
    series = Series(uid, tuple(kept), "\\".join(person(tags) or ("study", tags["StudyInstanceUID"])))
    columns, rows = (int((tags[name] or (0,))[0]) for name in ("Columns", "Rows"))
    series.size = (columns, rows, sum(instance.frames for instance in kept))
    if len(kept) < len(instances):
        series.notes.append(f"copies of the same image left out: {len(instances) - len(kept)}")
    if tags["PhotometricInterpretation"] == "MONOCHROME1":
        done = "inverted, so that 0 is black" if kept[0].frames == 1 else "kept, so that it looks like a negative"
        series.notes.append(f"stored with 0 as white (MONOCHROME1): values are {done}")
    if not tags["PatientID"]:
        series.notes.append(_NAMED if person(tags) else _NAMELESS)
    series.problem = _kind_problem(kept) or _mixture_problem(kept)
    if not series.problem:
        (_judge_frames if kept[0].frames > 1 else _judge_slices)(series)
    return series


def _kind_problem(instances: Sequence[Instance]) -> str:
    """Say why images of this kind are not converted, or ""."""
    from pydicom.uid import UID

    kinds: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
        ("no image ({})", lambda t: not t["Rows"]),
        ("secondary capture: a picture of a screen, without a place in the patient", _is_secondary_capture),
        ("localizer: planning images, not a volume", lambda t: "LOCALIZER" in t["ImageType"].upper().split("\\")),
        ("colour images; only grey ones are converted", lambda t: (t["SamplesPerPixel"] or (1,))[0] > 1),
        ("palette colours; only grey images are converted", lambda t: "PALETTE" in t["PhotometricInterpretation"]),
    ]
    for reason, applies in kinds:
        hits = [instance for instance in instances if applies(instance.tags)]
        if hits:
            share = f" ({len(hits)} of {len(instances)} images)" if len(hits) < len(instances) else ""
            return reason.format(UID(hits[0].tags["SOPClassUID"]).name) + share
    return ""


def _is_secondary_capture(tags: dict[str, Any]) -> bool:
    # The class of old, and those of multi-frame captures below it.
    return f"{tags['SOPClassUID']}.".startswith(f"{_SECONDARY_CAPTURE}.")


def _mixture_problem(instances: Sequence[Instance]) -> str:
    """Say what the images of a series do not share, or ""."""
    named: list[tuple[str, list[Any]]] = [
        ("sizes (columns x rows)", [_size(instance.tags) for instance in instances]),
        ("orientations", _near([instance.tags["ImageOrientationPatient"] for instance in instances])),
        ("pixel spacings", _near([instance.tags["PixelSpacing"] for instance in instances])),
        ("frames of reference", [instance.tags["FrameOfReferenceUID"] for instance in instances]),
        # GDCM inverts the values of those that show 0 as white.
        ("photometric interpretations", [i.tags["PhotometricInterpretation"] or "MONOCHROME2" for i in instances]),
        ("patients", [person(instance.tags) for instance in instances]),
    ]
    for name, values in named:
        counts = Counter(values)
        if len(counts) > 1:
            shown = "" if name in ("patients", "frames of reference") else f": {_listed(counts)}"
            return f"mixed {name}{shown}; put the images of each kind into a folder of their own"
    if len(instances) > 1 and any(instance.frames > 1 for instance in instances):
        return f"{len(instances)} objects, some with several frames; put the one to convert into a folder of its own"
    return ""


def _size(tags: dict[str, Any]) -> str:
    return f"{(tags['Columns'] or (0,))[0]:g} x {tags['Rows'][0]:g}"


def _near(values: Sequence[tuple[float, ...] | None]) -> list[str]:
    """Name each value by the first one that is equal to it but for rounding."""
    firsts: list[tuple[float, ...]] = []
    names = []
    for value in values:
        if value is None:
            names.append("none")
            continue
        first = next((f for f in firsts if len(f) == len(value) and np.allclose(f, value, rtol=0, atol=1e-3)), None)
        if first is None:
            first = value
            firsts.append(value)
        names.append(" ".join(f"{number:.4g}" for number in first))
    return names


def _listed(counts: Counter[Any]) -> str:
    shown = [
        f"{value} ({count} images)" if count > 1 else f"{value} (1 image)" for value, count in counts.most_common(3)
    ]
    return ", ".join(shown) + (", ..." if len(counts) > 3 else "")


def _judge_slices(series: Series) -> None:
    """Set the grid of a series of single-frame images, and bring them into its order; or say why there is none."""
    instances, tags = series.instances, series.tags
    for name, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        if any(len(instance.tags[name] or ()) != count for instance in instances):
            series.problem = f"no {name}, so the place in the patient is unknown"
            return
    if len(instances) < 2:
        series.problem = "one image, not a volume"
        return
    positions = [instance.tags["ImagePositionPatient"] for instance in instances]
    order = slice_order(positions, tags["ImageOrientationPatient"])
    series.instances = tuple(instances[index] for index in order)
    try:
        series.affine = slice_grid(
            [positions[index] for index in order], tags["ImageOrientationPatient"], tags["PixelSpacing"]
        )
    except UnusableCase as error:
        hint = _divider(series.instances) if isinstance(error, RepeatedPositions) else ""
        series.problem = f"{error}{hint}"
        return
    numbers = sorted(instance.tags["InstanceNumber"] or (0.0,) for instance in instances)
    if len(set(numbers)) == len(numbers) and numbers[-1][0] - numbers[0][0] != len(numbers) - 1:
        # Evenly spaced all the same: every other slice may be missing, or this is the vendor's way of counting.
        series.notes.append(f"{len(numbers)} images are numbered {numbers[0][0]:g} to {numbers[-1][0]:g}")


def _divider(instances: Sequence[Instance]) -> str:
    """Say which tag tells images at the same position apart."""
    at: dict[tuple[float, ...], list[Instance]] = {}
    for instance in instances:
        at.setdefault(tuple(round(number, 2) for number in instance.tags["ImagePositionPatient"]), []).append(instance)
    for name in (*DIVIDERS, "ImageType"):
        stacks = [[instance.tags[name] for instance in members] for members in at.values()]
        if all(len(set(stack)) == len(stack) for stack in stacks):
            values = sorted({value for stack in stacks for value in stack}, key=lambda value: (len(value), value))
            shown = ", ".join(values[:4]) + (", ..." if len(values) > 4 else "")
            return f"; {name} tells them apart ({shown}): put the files of each into a folder of their own"
    return "; no tag tells them apart: keep one image a position"


def _judge_frames(series: Series) -> None:
    """Set the grid of one multi-frame object, which lies in the tags of its frames."""
    import highdicom

    try:
        image = highdicom.imread(series.instances[0].path, lazy_frame_retrieval=True)
        grid = image.get_volume_geometry(allow_duplicate_positions=False)
    # Whatever a multi-frame object lacks shows up as one of many errors.
    except Exception as error:
        series.problem = f"multi-frame object that cannot be taken as a volume ({type(error).__name__})"
        return
    if grid is None:
        series.problem = "multi-frame object whose frames are no regular volume; convert it with its vendor's tools"
        return
    # highdicom's indices are (slice, row, column).
    series.affine = np.array(grid.affine)[:, [2, 1, 0, 3]]
