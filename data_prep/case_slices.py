"""Reading what is shown of a case: a picture, or one slice of a volume, reduced to the size that it is shown in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mixstyleflow_monai.data.dataset_description import Case

NOT_FINITE = "the image has values that are not finite"


def read_picture(path: Path) -> NDArray[Any]:
    """Read a 2-D image as (rows, columns) or (rows, columns, channels)."""
    with Image.open(path) as stored:
        return np.asarray(stored.convert("RGB") if stored.mode in ("RGBA", "CMYK", "YCbCr") else stored)


def unreadable(case: Case, error: Exception) -> ValueError:
    """Return the error to raise for a case at whose files a reader failed."""
    return ValueError(
        f"case {case.id!r}: {case.image} or its label {case.label} cannot be shown ({type(error).__name__}: {error}). "
        "Restore the files; `python -m data_prep check` lists everything that is wrong with a data set."
    )


def open_volume(path: Path) -> nib.Nifti1Image:
    """Open a NIfTI volume without reading its values.

    Raises:
        ValueError: another format, or other than three dimensions.
    """
    volume = nib.load(path)
    if not isinstance(volume, nib.Nifti1Image) or len(volume.shape) != 3:
        raise ValueError(f"{path.name} is not a NIfTI file of three dimensions")
    return volume


def middle_slice(case: Case) -> tuple[NDArray[Any], NDArray[Any], float]:
    """Return the middle labelled slice of a volume and of its label, and the ratio of row to column spacing.

    Raises:
        ValueError: not NIfTI volumes, or of different shapes.
    """
    image, label = (open_volume(path) for path in (case.image, case.label))
    if image.shape != label.shape:
        raise ValueError(f"image has shape {image.shape}, label {label.shape}")
    orientation = nib.io_orientation(label.affine)
    mask = np.asarray(label.dataobj)
    # All of what follows is in RAS order, whatever the order on disk is.
    axis_of = [int(np.flatnonzero(orientation[:, 0] == world)[0]) for world in range(3)]
    spacing = nib.affines.voxel_sizes(label.affine)[axis_of]
    # Slices are across the coarsest axis; isotropic volumes are shown axially.
    across = int(np.argmax(spacing)) if spacing.max() > 1.2 * np.median(spacing) else 2
    rows, columns = {2: (1, 0), 1: (2, 0), 0: (2, 1)}[across]
    labelled = np.flatnonzero(np.any(mask > 0, axis=tuple(a for a in range(3) if a != axis_of[across])))
    index = int(labelled[len(labelled) // 2]) if labelled.size else mask.shape[axis_of[across]] // 2
    place = tuple(slice(index, index + 1) if a == axis_of[across] else slice(None) for a in range(3))
    # Of the image one slice is read, not the volume.
    planes = [
        np.take(nib.apply_orientation(np.asarray(plane), orientation), 0, across)
        for plane in (image.dataobj[place], mask[place])
    ]
    # RAS indices grow to right, anterior and superior of the patient: the left and the top of the sheet are the end.
    flipped = [np.flip(plane.T, (0, 1)) for plane in planes]
    return flipped[0], flipped[1], float(spacing[rows] / spacing[columns])


def reduced_size(shape: tuple[int, ...], largest: int) -> tuple[int, int]:
    """Return rows and columns with the proportions of ``shape``, neither above it nor above ``largest``."""
    factor = min(1.0, largest / max(shape))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def reduce_image(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Average an image (rows, columns[, channels]) down to ``size`` pixels."""
    if values.shape[:2] == size:
        return values
    if values.dtype != np.uint8:
        values = values.astype(np.float32)
    planes = values[..., None] if values.ndim == 2 else values
    reduced = [
        np.asarray(Image.fromarray(np.ascontiguousarray(planes[..., channel])).resize(size[::-1], Image.Resampling.BOX))
        for channel in range(planes.shape[2])
    ]
    return reduced[0] if values.ndim == 2 else np.stack(reduced, axis=-1)
