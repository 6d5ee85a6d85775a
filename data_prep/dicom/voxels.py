"""Reading the voxels of a DICOM series, and refusing those that are not all there.

GDCM, by which ITK reads, takes a PixelData element that is too short without a word, and what is missing keeps the
values of the image read before. So lengths are compared first, and what its JPEG library complains of is an error.

Source: DICOM PS3.5, 8.1.1 and 8.2 (length of native PixelData), annex G.5 (header of RLE frames).
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.dicom.files import Instance
from data_prep.dicom.grid import GRID_TOLERANCE, grid_distance, to_ras
from data_prep.dicom.series import Series
from data_prep.image_files import UnusableCase

# Whole numbers up to here are the same as float32.
_FLOAT32_WHOLE = 2**24
_ELEMENTS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_SIZES = ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "BitsAllocated", "PhotometricInterpretation")


class DamagedVoxels(UnusableCase):
    """Voxels of one file that cannot be used.

    Attributes:
        file: not in the text, which is written to disk: file names may hold patients' names.
    """

    def __init__(self, reason: str, file: Path) -> None:
        super().__init__(f"cannot be converted: {reason}; fetch it again")
        self.file = file


def read_volume(series: Series) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Read the voxels of a series that is a volume, with rescale slope and intercept applied.

    Returns:
        (columns, rows, slices), int16 where that holds all values, else int32; where that does not either, float32, or
        float64 if float32 would change values that are whole or are stored with more than 16 bits. And the affine
        from there to RAS mm.

    Raises:
        UnusableCase: voxels that cannot be read or are not all there, or a grid other than the headers say.
    """
    assert series.affine is not None
    for number, instance in enumerate(series.instances, 1):
        _check_length(instance.path, _place(number, series))
    values, affine = _read_frames(series) if series.instances[0].frames > 1 else _read_slices(series)
    if values.shape != series.size or grid_distance(series.affine, affine, series.size) > GRID_TOLERANCE:
        raise UnusableCase("cannot be converted: the voxels were read on another grid than its headers describe")
    return _smallest(values, any(_needs_double(instance) for instance in series.instances)), to_ras(affine)


def _place(number: int, series: Series) -> str:
    count = len(series.instances)
    return f"image {number} of {count} along the normal" if count > 1 else "the object"


def _check_length(path: Path, place: str) -> None:
    """Compare the length of the voxels with what the header says, without reading them where they are native.

    Raises:
        DamagedVoxels: no voxels, too few or too many, or an RLE frame with another number of segments.
    """
    import pydicom
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import get_expected_length
    from pydicom.uid import RLELossless

    try:
        # Elements above a KiB are skipped and only their length is kept.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd values in tags
            dataset = pydicom.dcmread(path, force=True, defer_size=1024, specific_tags=[*_ELEMENTS, *_SIZES])
        for name, default in (("SamplesPerPixel", 1), ("PhotometricInterpretation", "MONOCHROME2")):
            if not dataset.get(name):  # old files lack them, and GDCM takes these
                setattr(dataset, name, default)
        keyword = next((name for name in _ELEMENTS if name in dataset), None)
        if keyword is None:
            raise DamagedVoxels(f"{place} has no PixelData", path)
        element: Any = dataset.get_item(keyword, keep_deferred=True)
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        if _is_native(syntax):
            found = element.length if element.value is None else len(element.value)
            expected = get_expected_length(dataset)
            # One byte more makes an odd length even.
            if found not in (expected, expected + expected % 2):
                sizes = " x ".join(f"{name} {dataset[name].value}" for name in _SIZES[:5] if dataset.get(name))
                raise DamagedVoxels(f"{keyword} of {place} has {found} bytes, expected {expected} ({sizes} / 8)", path)
        elif syntax == RLELossless:
            # GDCM divides by this number, and the whole program ends if it is 0.
            frame = get_frame(dataset[keyword].value, 0, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
            segments = int.from_bytes(frame[:4], "little")
            expected = int(dataset.SamplesPerPixel) * int(dataset.BitsAllocated) // 8
            if segments != expected:
                raise DamagedVoxels(f"RLE frame of {place} has {segments} segments, expected {expected}", path)
    except DamagedVoxels:
        raise
    # Damaged files make pydicom raise almost anything.
    except Exception as error:
        raise DamagedVoxels(f"voxels of {place} cannot be read ({type(error).__name__})", path) from error


def _is_native(syntax: str | None) -> bool:
    """Say whether voxels are stored as they are; they are in files that name no transfer syntax."""
    from pydicom.uid import (
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
    )

    native = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
    return not syntax or syntax in native


def _needs_double(instance: Instance) -> bool:
    """Say whether float32 may change the values."""
    bits, slope, intercept = (
        (instance.tags[name] or (default,))[0]
        for name, default in (("BitsAllocated", 16.0), ("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    return bits > 16 or 2**bits * abs(slope) + abs(intercept) > _FLOAT32_WHOLE


def _read_slices(series: Series) -> tuple[NDArray[Any], NDArray[np.float64]]:
    import itk

    paths = [str(instance.path) for instance in series.instances]
    # Not always, because a large volume is twice as large then.
    kind = itk.D if any(_needs_double(instance) for instance in series.instances) else itk.F
    try:
        image = _read_stack(paths, kind)
    except RuntimeError as error:
        number = _first_unreadable(paths, kind)
        if not number:
            raise UnusableCase("cannot be converted: its voxels cannot be read as one volume") from error
        reason = f"voxels of {_place(number, series)} cannot be read (cut off, or compressed in an unknown way)"
        raise DamagedVoxels(reason, series.instances[number - 1].path) from error
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    # ITK's arrays have their axes in the reverse order of its indices.
    return itk.array_from_image(image).transpose(2, 1, 0), affine


def _read_stack(paths: Sequence[str], kind: Any) -> Any:
    """Read images into one ``itk.Image`` of the pixel type, in the order given.

    Raises:
        RuntimeError: an image cannot be read, or is a damaged JPEG.
    """
    import itk

    # Not `itk.imread`, which looks for a reader itself and does not know files without preamble for DICOM.
    reader = itk.ImageSeriesReader[itk.Image[kind, 3]].New(FileNames=paths, ImageIO=itk.GDCMImageIO.New())
    with _printed_by_libraries() as printed:
        reader.Update()
    complaint = re.search(r"^(Corrupt JPEG data|Premature end of JPEG).*", "".join(printed), re.MULTILINE)
    if complaint:
        raise RuntimeError(complaint[0])
    return reader.GetOutput()


@contextmanager
def _printed_by_libraries() -> Iterator[list[str]]:
    """Collect what C libraries print on the standard error, which is the only way the JPEG library tells of damage.

    It is passed on when the block ends.
    """
    printed: list[str] = []
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as stream:
            os.dup2(stream.fileno(), 2)
            try:
                yield printed
            finally:
                os.dup2(kept, 2)
                stream.seek(0)
                content = stream.read()
                os.write(2, content)
                printed.append(content.decode(errors="replace"))
    finally:
        os.close(kept)


def _first_unreadable(paths: Sequence[str], kind: Any) -> int:
    """Return the number, from 1, of the first image that cannot be read on its own; 0 if all can."""
    for number, path in enumerate(paths, 1):
        try:
            _read_stack([path], kind)
        except RuntimeError:
            return number
    return 0


def _read_frames(series: Series) -> tuple[NDArray[Any], NDArray[np.float64]]:
    import highdicom

    path = series.instances[0].path
    try:
        image = highdicom.imread(path)
        # Only the rescaling: no display window, and no real-world map, which single-frame series do not get either.
        # As float64, because slope and intercept lie in the tags of the frames.
        volume = image.get_volume(dtype=np.float64, apply_real_world_transform=False, apply_presentation_lut=False)
    # What a damaged object lacks shows up as one of many errors.
    except Exception as error:
        raise DamagedVoxels(f"its frames cannot be read ({type(error).__name__})", path) from error
    # highdicom's indices are (slice, row, column).
    return volume.array.transpose(2, 1, 0), np.array(volume.affine)[:, [2, 1, 0, 3]]


def _smallest(values: NDArray[Any], exact: bool) -> NDArray[Any]:
    """Store whole numbers as integers, and others as float32, or as float64 where ``exact`` and float32 is not."""

    # By slices, because a whole volume more in memory may be a whole volume too many.
    def all_planes(change: Any) -> bool:
        with np.errstate(over="ignore"):
            return all(np.array_equal(plane, change(plane), equal_nan=True) for plane in values.T)

    whole = all_planes(np.rint)
    low, high = float(values.min()), float(values.max())
    for kind in (np.int16, np.int32):
        limits = np.iinfo(kind)
        if whole and limits.min <= low and high <= limits.max:
            return values.astype(kind)
    if not (whole or exact) or all_planes(lambda plane: plane.astype(np.float32)):
        return values.astype(np.float32)
    return values.astype(np.float64)
