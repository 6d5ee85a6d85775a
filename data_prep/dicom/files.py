"""Reading the headers of DICOM files, as far as the conversion needs them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_DICOMDIR = "1.2.840.10008.1.3.10"
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_TEXT = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"),
    *("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate"),
    *("Modality", "SeriesDescription", "ImageType", "PhotometricInterpretation"),
)
_NUMBERS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "SeriesNumber", "InstanceNumber"),
    *("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"),
    *("BitsAllocated", "RescaleSlope", "RescaleIntercept"),
)
# 20200131, 2020-01-31, 31.1.2020, 31.01.20 and the like, of birth or of an examination; 5.5.25 may be anything.
_YEAR = r"(?:19|20)\d\d"
_DATE = re.compile(
    rf"(?<!\d)(?:{_YEAR}\d{{4}}|{_YEAR}([-./])\d{{1,2}}\1\d{{1,2}}|\d{{1,2}}([-./])\d{{1,2}}\2{_YEAR}"
    r"|\d\d([-./])\d\d\3\d\d)(?!\d)"
)
# What tells the volumes of one series apart, where several are stacked at the same positions.
DIVIDERS = (
    *("TemporalPositionIdentifier", "DiffusionBValue", "EchoTime", "InversionTime", "TriggerTime"),
    "AcquisitionNumber",
)


@dataclass(frozen=True)
class Instance:
    """One DICOM file. Of ``tags`` the numbers are tuples; what is missing is "", or None for numbers."""

    path: Path
    tags: dict[str, Any]

    @property
    def frames(self) -> int:
        """Frames of a multi-frame object, else 1."""
        return int((self.tags["NumberOfFrames"] or (1,))[0])


@dataclass(frozen=True)
class Segmentation:
    """A DICOM SEG object and the series it refers to."""

    instance: Instance
    referenced: frozenset[str]


class Unreadable(Exception):
    """A DICOM file without readable header."""


def read_header(path: Path) -> Instance | Segmentation | None:
    """Read one header; None for a file that is not DICOM."""
    import pydicom

    if path.name.startswith("._"):
        return None  # what macOS keeps beside each file on a foreign disk
    try:
        with open(path, "rb") as stream:
            prefix = stream.read(132)
        # Files without the preamble exist; among all kinds of files only their suffix tells.
        named = path.suffix.lower() in _DICOM_SUFFIXES
        if prefix[128:] != b"DICM" and not named:
            return None
        with warnings.catch_warnings():
            # pydicom warns of each odd value in any tag; those that matter are checked by `judge`.
            warnings.simplefilter("ignore")
            wanted = [*_TEXT, *_NUMBERS, *DIVIDERS, "ReferencedSeriesSequence"]
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=named, specific_tags=list(wanted))
            return _take(path, dataset)
    # Damaged files make pydicom raise almost anything.
    except Exception as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"cannot be read ({type(error).__name__})") from error


def _take(path: Path, dataset: Any) -> Instance | Segmentation | None:
    """Keep the plain values of a header."""
    if dataset.file_meta and dataset.file_meta.get("MediaStorageSOPClassUID") == _DICOMDIR:
        return None  # DICOMDIR, a table of contents
    tags: dict[str, Any] = {}
    for name in (*_TEXT, *DIVIDERS):
        value = dataset.get(name, "")
        tags[name] = "\\".join(map(str, value)) if _is_many(value) else str("" if value is None else value).strip()
    for name in _NUMBERS:
        tags[name] = _floats(dataset.get(name))
    missing = [name for name in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID") if not tags[name]]
    if missing:
        raise Unreadable(f"has no {' and no '.join(missing)}; it is damaged or not DICOM")
    instance = Instance(path, tags)
    if tags["SOPClassUID"] not in SEG_CLASSES:
        return instance
    referenced = dataset.get("ReferencedSeriesSequence") or []
    return Segmentation(instance, frozenset(str(item.get("SeriesInstanceUID", "")) for item in referenced) - {""})


def _is_many(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _floats(value: Any) -> tuple[float, ...] | None:
    """Return one or several numbers as a tuple; None if missing or not finite numbers."""
    if value is None or value == "":
        return None
    try:
        numbers = tuple(float(part) for part in (value if _is_many(value) else [value]))
    except (TypeError, ValueError):
        return None
    return numbers if numbers and all(np.isfinite(numbers)) else None


def person(tags: dict[str, Any]) -> tuple[str, ...]:
    """Return what tells patients apart: PatientID, else PatientName and PatientBirthDate; () where all are missing.

    It is identifying, so it is never written.
    """
    # Cases and spaces differ between devices.
    if tags["PatientID"]:
        return ("id", *(" ".join(tags[name].casefold().split()) for name in ("PatientID", "IssuerOfPatientID")))
    return name_and_birth(tags)


def name_and_birth(tags: dict[str, Any]) -> tuple[str, ...]:
    """Return PatientName and PatientBirthDate; () where both are missing. It is identifying, so it is never written."""
    # Empty parts at the end differ between devices, too.
    name = " ".join(part for part in re.split(r"[\^\s]+", tags["PatientName"].casefold()) if part)
    return ("name", name, tags["PatientBirthDate"]) if name or tags["PatientBirthDate"] else ()


def without_identity(text: str, tags: dict[str, Any], replacement: str) -> str:
    """Return ``text``, or ``replacement`` if a date is in it, the patient's id, or a word of the name but initials."""
    words = {word for word in re.split(r"[\W_]+", tags["PatientName"].lower()) if len(word) > 1}
    found = set(re.split(r"[\W_]+", text.lower()))
    numbers = [number for number in (tags["PatientID"].lower(), tags["PatientBirthDate"]) if len(number) > 2]
    known = words & found or any(number in text.lower() for number in numbers)
    return replacement if known or _DATE.search(text) else text
