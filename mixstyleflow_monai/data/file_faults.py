"""What is wrong with one image or label file, told by its header alone.

A fault says what was found and what to do about it. No memory is allocated for pixels: a header may claim any size, and
the file on disk says whether that can be true.
"""

from __future__ import annotations

import gzip
import logging
import math
import os
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.imageglobals import logger as nibabel_logger
from nibabel.openers import ImageOpener
from numpy.typing import NDArray
from PIL import ExifTags, Image

from mixstyleflow_monai.data.grids import corner_distance

VOLUME_SUFFIXES = (".nii", ".nii.gz")
# Deflate codes at most 258 bytes in 2 bits (https://zlib.net/zlib_tech.html), so no gzip or PNG holds more than this.
_MAX_DEFLATE_RATIO = 1032
_MIN_VOXEL, _MAX_VOXEL, _MAX_VOXEL_RATIO = 0.05, 20.0, 50.0
# Determinant of the three unit directions: 1 if they are at right angles, 0 if they lie in one plane.
_MIN_DETERMINANT = 1e-3
# Parts of a voxel that the two forms of a header may be apart.
_MAX_FORM_GAP = 0.5
# First bytes of formats that are often found under a wrong name.
_MAGIC = {
    b"\x1f\x8b": "a gzip file (.nii.gz, if a volume is in it)",
    b"\x89PNG": "a PNG image (.png)",
    b"\xff\xd8\xff": "a JPEG image (.jpg)",
    b"BM": "a BMP image (.bmp)",
    b"II*\0": "a TIFF image (.tif)",
    b"MM\0*": "a TIFF image (.tif)",
    b"\x5c\x01\0\0": "an uncompressed NIfTI volume (.nii)",
    b"\0\0\x01\x5c": "an uncompressed NIfTI volume (.nii)",
    b"NRRD": "an NRRD volume, to be converted to NIfTI",
    b"ObjectType": "a MetaImage volume, to be converted to NIfTI",
    b"\x89HDF": "an HDF5 file, to be converted",
    b"PK": "a ZIP archive, to be unpacked",
}


@dataclass(frozen=True)
class Fault:
    """One fault of a file.

    Attributes:
        file: the file.
        text: what was found, and what was expected.
        remedy: what to do.
        severity: "error" for what training or evaluation would break or be falsified by; "warning" for what is
            unusual and may be meant.
        blocks: the values in the file cannot be looked at.
    """

    file: Path
    text: str
    remedy: str
    severity: Literal["error", "warning"] = "error"
    blocks: bool = False


def is_volume(path: str | os.PathLike[str]) -> bool:
    """Say whether the name is that of a NIfTI volume."""
    return str(path).lower().endswith(VOLUME_SUFFIXES)


def unreadable(path: Path, error: Exception) -> Fault:
    """Word a file that cannot be read, by what is on disk and by what its reader raised."""

    def fault(text: str, remedy: str) -> Fault:
        return Fault(path, text, remedy, blocks=True)

    again = "copy or download it again"
    if os.path.exists(path) and not os.path.isfile(path):
        return fault("is a folder or a device, and no file", again)
    error = _gzip_error(path) or error
    if isinstance(error, PermissionError) or _is_forbidden(path):
        return fault("cannot be read: permission denied", "give yourself the right to read it (chmod u+r)")
    if os.path.islink(path) and not os.path.exists(path):
        return fault("is a link that leads nowhere or in a circle", "put the file itself in its place")
    if not os.path.exists(path):
        return fault("does not exist", "restore the file, or make the data set again")
    if isinstance(error, Image.DecompressionBombError):
        limit = f"{2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels"
        return fault(f"cannot be read: its header claims more than {limit}", f"{again}, or cut it into tiles")
    if isinstance(error, MemoryError):
        return fault("cannot be read: it needs more memory than there is", "crop it, or use a larger machine")
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return fault("cannot be read: it is empty (0 bytes)", again)
    found = _content_of(path)
    remedy = f"its content is {found}: name or convert it so" if found else f"{again}, and open it in a viewer"
    detail = str(error).replace(str(path), path.name).splitlines()
    if isinstance(error, EOFError | gzip.BadGzipFile | zlib.error):
        return fault(f"is damaged or cut off ({detail[0] if detail else type(error).__name__})", remedy)
    reason = f"{type(error).__name__}: {detail[0]}" if detail else type(error).__name__
    return fault(f"cannot be read ({reason})", remedy)


def _gzip_error(path: Path) -> Exception | None:
    """Return what is wrong with a gzip file, which nibabel words as an unknown file type; None if nothing is."""
    try:
        with open(path, "rb") as stream:
            if stream.read(2) != b"\x1f\x8b":
                return None
        with gzip.open(path) as unpacked:
            while unpacked.read(2**20):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return error
    except OSError:
        return None
    return None


def _is_forbidden(path: Path) -> bool:
    """Say whether permissions are at fault, which nibabel does not tell apart."""
    try:
        with open(path, "rb"):
            return False
    except OSError as error:
        return isinstance(error, PermissionError)


def _content_of(path: Path) -> str | None:
    """Say by the first bytes what the file is, if that does not go with its name; None if it does or is unknown."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(132)
    except OSError:
        return None
    if head[128:] == b"DICM":
        return "DICOM, to be converted with `python -m data_prep dicom`"
    found = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    if found is None:
        return "text" if head.isascii() and re.sub(r"\s", "", head.decode("ascii")).isprintable() else None
    name = path.name.lower()
    suffixes = [word.strip("(,)") for word in found.split() if word.startswith("(.")]
    own = {".jpeg": ".jpg", ".tiff": ".tif"}.get(path.suffix.lower(), path.suffix.lower())
    return None if any(name.endswith(suffix) or own == suffix for suffix in suffixes) else found


@contextmanager
def _without_notes() -> Iterator[None]:
    level = nibabel_logger.level
    nibabel_logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        nibabel_logger.setLevel(level)


def load_volume(path: Path, *, keep_file_open: bool | None = None) -> nib.Nifti1Image:
    """Open a NIfTI file without the notes that nibabel prints on its header.

    Args:
        path: the file.
        keep_file_open: as in nibabel: True for reading a compressed file piece by piece.

    Raises:
        ValueError: another format; and whatever nibabel raises.
    """
    _refuse_devices(path)
    with _without_notes():
        volume = nib.load(path, keep_file_open=keep_file_open)
    if not isinstance(volume, nib.Nifti1Image):
        raise ValueError(f"it is {type(volume).__name__}, expected a NIfTI file")
    return volume


def _refuse_devices(path: str | os.PathLike[str]) -> None:
    """Raise for a pipe or another device, which would be waited for without end."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path}: is a folder or a device, and no file")


def volume_faults(path: Path, dimensions: int = 3) -> tuple[nib.Nifti1Image | None, list[Fault]]:
    """Open a NIfTI volume and list what its header has wrong.

    Args:
        path: the file.
        dimensions: 3, or 4 where the channels of the volume are along the fourth axis.

    Returns:
        The volume, or None where it cannot be opened; and the faults.
    """
    try:
        volume = load_volume(path)
        with _without_notes(), ImageOpener(str(path)) as stream:
            # nibabel turns negative sizes into positive ones while it loads, and only prints that it did.
            raw = type(volume.header).from_fileobj(stream, check=False)
        affine = np.asarray(volume.affine, dtype=np.float64)
        faults = _storage_faults(path, volume, dimensions) or _placement_faults(path, volume, affine, raw)
    except Exception as error:  # whatever a reader raises, the file is at fault
        return None, [unreadable(path, error)]
    return volume, faults


def _storage_faults(path: Path, volume: nib.Nifti1Image, dimensions: int) -> list[Fault]:
    """List what keeps the values from being read as one number a voxel."""
    shape, dtype = tuple(volume.shape), volume.get_data_dtype()
    if len(shape) != dimensions:
        if dimensions == 3:
            expected, remedy = "three axes", "give 3-D volumes of one channel: split it, or drop axes of length 1"
        else:
            expected, remedy = f"{dimensions} axes", "give the file with all its channels"
        return [Fault(path, f"has shape {shape}, expected {expected}", remedy, blocks=True)]
    if min(shape) < 1:
        return [Fault(path, f"has shape {shape}, so no voxel", "export it again", blocks=True)]
    if dtype.fields or dtype.kind == "c":
        kind = "RGB colours" if dtype.fields else f"complex numbers ({dtype})"
        remedy = "store one channel of it" if dtype.fields else "store the magnitude"
        return [Fault(path, f"has {kind}, expected one real number a voxel", remedy, blocks=True)]
    claimed, size = claimed_bytes(volume), path.stat().st_size
    possible = size * _MAX_DEFLATE_RATIO if path.name.lower().endswith(".gz") else size
    if claimed > possible:
        text = f"claims shape {shape}, {claimed:,} bytes, and the file of {size:,} bytes cannot hold them"
        return [Fault(path, text, "copy or download it again; its header or its end is damaged", blocks=True)]
    return []


def claimed_bytes(volume: nib.Nifti1Image) -> int:
    """Return how many bytes the uncompressed file must have for its header to be true."""
    # Of the array: the header's own number is reset when it is loaded.
    offset = max(int(getattr(volume.dataobj, "offset", 0)), 0)
    return offset + math.prod(int(n) for n in volume.shape) * int(volume.get_data_dtype().itemsize)


def _placement_faults(path: Path, volume: nib.Nifti1Image, affine: NDArray[np.float64], raw: Any) -> list[Fault]:
    """List what is wrong with size and position of the voxels."""
    faults = []
    sizes = [float(size) for size in raw["pixdim"][1:4]]
    rewrite = "write the header again with the right spacing"
    if not all(math.isfinite(size) and size > 0 for size in sizes):
        shown = " x ".join(f"{size:g}" for size in sizes)
        faults.append(Fault(path, f"has the voxel size {shown} mm in pixdim, expected numbers above 0", rewrite))
    if not has_place(affine):
        remedy = "write its affine again (sform or qform) from the original image"
        return [*faults, Fault(path, "has a singular or non-finite affine, so voxels have no place", remedy)]
    shape, sides = tuple(volume.shape[:3]), np.linalg.norm(affine[:3, :3], axis=0)
    if min(shape) == 1:
        text = f"has a single slice along axis {shape.index(1)} (shape {shape})"
        faults.append(Fault(path, text, "check that no slices are lost", "warning"))
    if sides.min() < _MIN_VOXEL or sides.max() > _MAX_VOXEL or sides.max() > _MAX_VOXEL_RATIO * sides.min():
        text = f"has voxels of {' x '.join(f'{side:g}' for side in sides)} mm"
        usual = f"usual are {_MIN_VOXEL:g} to {_MAX_VOXEL:g} mm, and a ratio of {_MAX_VOXEL_RATIO:g} at most"
        faults.append(Fault(path, f"{text}; {usual}", f"check the unit; if it is not mm, {rewrite}", "warning"))
    return faults + _ambiguities(path, affine, shape, raw)


def _ambiguities(path: Path, affine: NDArray[np.float64], shape: tuple[int, ...], raw: Any) -> list[Fault]:
    """List what lets programs place the same volume differently."""
    faults = []
    unit = {1: "metres", 3: "micrometres"}.get(int(raw["xyzt_units"]) & 7)
    if unit:
        text = f"gives its sizes in {unit} by its header, and they are taken as mm"
        faults.append(Fault(path, text, "check the voxel size, and write the header again in mm", "warning"))
    codes = int(raw["qform_code"]), int(raw["sform_code"])
    if max(codes) <= 0:
        text = "has neither qform nor sform, so that left and right, and the order of the slices, are a guess"
        faults.append(Fault(path, text, "export it again with its orientation, or look at it in `preview`", "warning"))
    elif min(codes) > 0:
        try:
            gap = corner_distance(affine, np.asarray(raw.get_qform(), dtype=np.float64), shape)
        except Exception:  # whatever nibabel raises of a quaternion that is no rotation; the sform counts
            return faults
        if gap > _MAX_FORM_GAP * np.linalg.norm(affine[:3, :3], axis=0).min():
            text = f"has a qform and an sform that place it {gap:.3g} mm apart; here the sform counts"
            faults.append(Fault(path, text, "write the right one as both: other programs take the other", "warning"))
    return faults


def has_place(affine: NDArray[np.float64]) -> bool:
    """Say whether an affine (4, 4) gives each voxel a place of its own."""
    if not np.isfinite(affine).all():
        return False
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(sides.min() > 0 and abs(np.linalg.det(affine[:3, :3] / sides)) >= _MIN_DETERMINANT)


@contextmanager
def open_picture(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open a 2-D file without the warning that Pillow gives for large ones; those of twice the size it refuses."""
    _refuse_devices(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            yield image


# Of the TIFF tag that says what the values mean.
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_LOSSY_FORMATS = ("JPEG", "MPO")


def picture_faults(path: Path, image: Image.Image, *, is_label: bool = False) -> list[Fault]:
    """List what the header of an opened 2-D file has wrong."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        return [Fault(path, f"has {frames} frames, expected 1", "store each as a file", blocks=True)]
    if has_16_bit_colours(image):
        remedy = "save it with 8 bits a colour, or as grey with 16 bits"
        return [Fault(path, "has 16-bit colours, of which only the upper 8 bits are read", remedy)]
    if image.mode in ("P", "PA") and not is_label:
        remedy = "save it as grey or RGB"
        return [Fault(path, "has indexed colours, and indices are not intensities", remedy)]
    turned = stored_orientation(image)
    if turned != 1:
        text = f"is stored turned or mirrored (EXIF orientation {turned}, expected 1), which programs treat differently"
        remedy = "save it upright (such as `magick IN -auto-orient OUT`), and see in `preview` that its label fits"
        return [Fault(path, text, remedy)]
    return []


def lossy_label_faults(path: Path, image: Image.Image) -> list[Fault]:
    """List what is wrong with an opened label of a format that changes values while it is saved."""
    if image.format not in _LOSSY_FORMATS and image.info.get("compression") != "jpeg":
        return []
    remedy = "save the label as PNG from where it was drawn; a copy of this file keeps its wrong values"
    return [Fault(path, "is compressed as JPEG, which changes the values of a label, most of all at borders", remedy)]


def tiff_faults(path: Path, image: Image.Image) -> list[Fault]:
    """List what in an opened TIFF file programs read differently; other formats have nothing of it.

    Here, data preparation reads with Pillow, and training with ITK, which takes white as 0 for the opposite, makes
    colours of 1 bit and refuses indices.
    """
    if image.format != "TIFF":
        return []
    remedy = "save it as PNG, or as TIFF of 8 or 16 bits with black as 0"
    if image.mode in ("1", "P", "PA"):
        kind = "1 bit a pixel" if image.mode == "1" else "indexed colours"
        return [Fault(path, f"is a TIFF file of {kind}, which programs read differently", remedy)]
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        return [Fault(path, "is a TIFF file with white as 0, which programs read as it is or inverted", remedy)]
    return []


def stored_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened 2-D file whose pixels are not loaded yet: 1 for upright, else 2-8.

    Pillow turns TIFF files by it while it loads them, and leaves JPEG and PNG files as they are; labels are drawn in
    programs that do either.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF data, which says nothing then
            # The method of PNG files would load the pixels first.
            found = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:  # whatever a damaged block raises, it does not turn the image
        return 1
    return found if isinstance(found, int) and 2 <= found <= 8 else 1


def has_16_bit_colours(image: Image.Image) -> bool:
    """Say whether a colour file has 16 bits a channel, which Pillow cuts to 8; only before its pixels are loaded."""
    return not image.mode.startswith("I") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", []))
