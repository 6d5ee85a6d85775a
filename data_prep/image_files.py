"""Reading images and labels as they are found, and writing them in the form that a data set holds.

2-D files go through Pillow, volumes through nibabel. A file that cannot be used raises :class:`UnusableCase`, whose
text says why; the caller reports the case and goes on. A label value without a meaning raises ``ValueError``, because
it is a mistake in the spec and would repeat in every file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray
from PIL import Image

AFFINE_TOLERANCE = 1e-3
_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L")
_GREY_MODES = ("1", "L", "LA", *_WIDE_MODES)


class UnusableCase(Exception):
    """A case that is reported and left out; the text is the reason."""


def name_of(path: Path) -> str:
    """Return the file name without its suffix, where ``.nii.gz`` is one suffix."""
    return path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem


def is_colour(path: Path) -> bool:
    """Say whether the file stores colours (even if all of them are grey); False for files that cannot be read."""
    try:
        with Image.open(path) as image:
            return image.mode not in _GREY_MODES
    except (OSError, ValueError, Image.DecompressionBombError):
        return False


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read a 2-D file with all its pixels.

    Raises:
        UnusableCase: missing, unreadable, or a file of several frames.
    """
    try:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise UnusableCase(f"{Path(path).name} has {frames} frames; store each as a file")
            image.load()
            return image.copy()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UnusableCase(f"{Path(path).name} cannot be read ({type(error).__name__})") from error


def read_grey(path: str | os.PathLike[str]) -> Image.Image:
    """Read any 2-D file as 8-bit grey; wide values are scaled by their maximum, which Pillow itself would clip."""
    image = open_image(path)
    if image.mode in (*_WIDE_MODES, "F"):
        values = np.asarray(image, dtype=np.float64)
        image = Image.fromarray((values.clip(0) * 255 / max(float(values.max()), 1.0)).astype(np.uint8))
    return image.convert("L")


def read_image(path: Path, channels: int) -> NDArray[Any]:
    """Read a 2-D image.

    Args:
        path: a file that Pillow reads.
        channels: 1 (colours become their luminance) or 3 (grey is repeated).

    Returns:
        (rows, columns) or (rows, columns, 3), uint8; uint16 for a grey file of more than 8 bits and one channel.

    Raises:
        UnusableCase: unreadable, or values that a PNG cannot hold.
    """
    image = open_image(path)
    if image.mode == "F":
        raise UnusableCase(f"{path.name} has floating-point values; convert it to 8 or 16 bits")
    if image.mode not in _WIDE_MODES:
        return np.asarray(image.convert("L" if channels == 1 else "RGB"))
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise UnusableCase(f"{path.name} has values {low} to {high}; convert it to 0 to 65535")
    if channels == 1:
        return values.astype(np.uint16)
    # Pillow has no 16-bit colour: keep the high byte, as it does for colour files of 16 bits.
    return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)


def read_label(path: Path) -> NDArray[Any]:
    """Read a 2-D label as (rows, columns) integers; of an indexed file the index is taken, not its colour.

    Raises:
        UnusableCase: unreadable.
        ValueError: a colour file whose channels differ.
    """
    image = open_image(path)
    values = np.asarray(image)
    if image.mode == "1":
        return values.astype(np.uint8)
    if image.mode == "LA":
        return values[..., 0]
    if values.ndim == 3:
        if image.mode not in ("RGB", "RGBA") or (values[..., :3] != values[..., :1]).any():
            raise ValueError(
                f"{path}: label of mode {image.mode} has colours, expected one value a pixel (indexed, grey, or equal "
                "channels). Save it as indexed PNG and map the indices with `label_values`."
            )
        return values[..., 0]
    return values


def remap(label: NDArray[Any], label_values: Mapping[int, int], path: Path) -> NDArray[np.uint8]:
    """Replace each value by the one that ``label_values`` gives for it.

    Raises:
        ValueError: the label has a value without an entry.
    """
    found = np.unique(label)
    unknown = [value for value in found.tolist() if value not in label_values]
    if unknown:
        shown = ", ".join(f"{value:g}" for value in found[:12].tolist()) + (", ..." if len(found) > 12 else "")
        hint = (
            " So many values point to a lossy format or to an image in place of a label." if len(unknown) > 12 else ""
        )
        raise ValueError(
            f"{path}: label has values {shown}; `label_values` knows {', '.join(map(str, sorted(label_values)))}. "
            f"Add {', '.join(f'{value:g}' for value in unknown[:12])} to `label_values` of this domain (0 is "
            f"background).{hint}"
        )
    result = np.zeros(label.shape, dtype=np.uint8)
    for value in found.tolist():
        result[label == value] = label_values[value]
    return result


def centre_crop(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Keep the central ``size`` rows and columns.

    Raises:
        UnusableCase: the image is smaller than ``size``.
    """
    rows, columns = values.shape[:2]
    if rows < size[0] or columns < size[1]:
        raise UnusableCase(f"image of {rows} x {columns} is smaller than centre_crop {size[0]} x {size[1]}")
    top, left = (rows - size[0]) // 2, (columns - size[1]) // 2
    return values[top : top + size[0], left : left + size[1]]


def write_png(path: Path, values: NDArray[Any]) -> None:
    """Write (rows, columns) uint8 or uint16, or (rows, columns, 3) uint8, as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(values)).save(path, format="PNG")


def array_hash(values: NDArray[Any]) -> str:
    """Return a hash of shape, type and values, which is equal for equal pixels whatever the file format."""
    native = values.astype(values.dtype.newbyteorder("="))
    return hashlib.sha256(f"{native.shape}{native.dtype}".encode() + native.tobytes()).hexdigest()


def open_volume(path: Path) -> nib.Nifti1Image:
    """Open a NIfTI volume and read its values once, so that a damaged file is noticed.

    Raises:
        UnusableCase: missing, unreadable, not NIfTI, or not three-dimensional.
    """
    try:
        volume = nib.load(path)
        if not isinstance(volume, nib.Nifti1Image):
            raise UnusableCase(f"{path.name} is {type(volume).__name__}, not NIfTI; convert it")
        if len(volume.shape) != 3:
            raise UnusableCase(f"{path.name} has {len(volume.shape)} dimensions {volume.shape}, expected 3; split it")
        np.asanyarray(volume.dataobj)
    except (OSError, ValueError, EOFError, ImageFileError, HeaderDataError) as error:
        raise UnusableCase(f"{path.name} cannot be read ({type(error).__name__})") from error
    return volume


def copy_volume(
    image: Path, label: Path, label_values: Mapping[int, int], outputs: tuple[Path, Path]
) -> dict[str, Any]:
    """Copy a volume unchanged and write its label with mapped values on the same grid.

    Args:
        image: NIfTI volume.
        label: NIfTI label of the same shape and affine.
        label_values: value to write for each value found.
        outputs: paths for the image and for the label.

    Returns:
        ``{"spacing": mm along each array axis, "pixels": hash of the voxels, "label": the written values}``.

    Raises:
        UnusableCase: unreadable, or the grids differ.
        ValueError: the label has a value without an entry.
    """
    volume, found = open_volume(image), open_volume(label)
    if volume.shape != found.shape:
        raise UnusableCase(f"image has shape {volume.shape}, label {found.shape}")
    gap = float(np.abs(volume.affine - found.affine).max())
    if not gap <= AFFINE_TOLERANCE:
        raise UnusableCase(f"affines of image and label differ by {gap:.3g}, allowed {AFFINE_TOLERANCE}")
    values = remap(np.asanyarray(found.dataobj), label_values, label)
    for output in outputs:
        output.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image, outputs[0])
    written = nib.Nifti1Image(values, volume.affine)
    written.header.set_xyzt_units("mm")
    nib.save(written, outputs[1])
    spacing = [round(float(size), 6) for size in nib.affines.voxel_sizes(volume.affine)]
    return {"spacing": spacing, "pixels": array_hash(np.asanyarray(volume.dataobj)), "label": values}
