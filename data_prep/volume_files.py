"""Volumes and their labels: opening them with their length and checksum compared, and copying them.

A file that cannot be used raises :class:`~data_prep.image_files.UnusableCase`, as in `data_prep.image_files`.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation
from numpy.typing import NDArray

from data_prep.image_files import UnusableCase, array_hash, refuse, remap, unusable
from mixstyleflow_monai.data.file_faults import Fault, claimed_bytes, is_volume, unreadable, volume_faults
from mixstyleflow_monai.data.grids import corner_distance, turn_between

EXACT_TOLERANCE = 1e-3
"""Affines whose numbers differ by no more than this are one; a label file is then copied as it is."""
MAX_SHIFT_VOXELS = 0.1
"""An image and a label whose corners lie closer than this are on one grid; the gap is rounding in their headers."""
_PIECE = 2**20
"""Bytes read together."""


def open_volume(path: Path, dimensions: int = 3) -> nib.Nifti1Image:
    """Open a NIfTI volume whose header and length are sound; its values are not kept in memory.

    Args:
        path: the file.
        dimensions: 3, or 4 where the channels of the volume are along the fourth axis.

    Raises:
        UnusableCase: missing, unreadable, damaged, not NIfTI, of other dimensions, not one real number a voxel, or
            without a valid place.
    """
    if not is_volume(path):
        raise UnusableCase(f"{path.name} is not named .nii or .nii.gz", "convert it to NIfTI, or correct `images`")
    volume, faults = volume_faults(path, dimensions)
    if volume is not None and len(volume.shape) != dimensions:
        reason = f"{path.name} has {len(volume.shape)} dimensions {volume.shape}, expected {dimensions}"
        if dimensions != 3:
            raise UnusableCase(reason, "give the file as released, with all its channels")
        raise UnusableCase(f"{reason}; split it", "keep the volume that was labelled; axes of length 1 can be dropped")
    refuse(faults)
    if volume is None:
        raise UnusableCase(f"{path.name} cannot be read", "copy or download it again")
    try:
        # Read to its end, a compressed file also has its checksum compared.
        found, claimed = stored_bytes(path), claimed_bytes(volume)
    except Exception as error:  # whatever gzip raises, the file is at fault
        raise unusable(unreadable(path, error), error) from error
    if found < claimed:
        text = f"is cut off: it holds {found:,} bytes, its header claims {claimed:,}"
        raise unusable(Fault(path, text, "copy or download it again"))
    return volume


def volume_values(volume: nib.Nifti1Image, path: Path) -> NDArray[Any]:
    """Return the scaled values of an opened volume.

    Raises:
        UnusableCase: the file ends early or is damaged.
    """
    try:
        return np.asanyarray(volume.dataobj)
    except Exception as error:  # whatever nibabel raises, the file is at fault
        raise unusable(unreadable(path, error), error) from error


def stored_bytes(path: Path) -> int:
    """Return the number of uncompressed bytes in a file, read to its end a piece at a time.

    nibabel stops at the last voxel and so does not compare the checksum that stands behind it.

    Raises:
        OSError, EOFError, zlib.error: a gzip file that is damaged or cut off.
    """
    if not path.name.lower().endswith(".gz"):
        return path.stat().st_size
    total = 0
    with gzip.open(path) as stream:
        while piece := stream.read(_PIECE):
            total += len(piece)
    return total


def label_on_grid(
    values: NDArray[Any], own: Any, affine: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[NDArray[Any], bool]:
    """Return the values of a label in the order and the directions of its image's axes.

    A label of the same voxels that is stored in another order of axes is turned, which loses nothing.

    Args:
        values: of the label, as stored.
        own: affine of the label.
        affine: of the image.
        shape: of the image.

    Returns:
        The values, of ``shape``; and whether they were on the image's grid already, to the last digits.

    Raises:
        UnusableCase: another grid than the image's.
    """
    own = np.asarray(own, dtype=np.float64)
    turn, turned, turned_shape = turn_between(affine, own, values.shape)
    if turned_shape != tuple(shape):
        remedy = "give the label that was drawn on this image"
        raise UnusableCase(f"image has shape {tuple(shape)}, label {values.shape}", remedy)
    shift = corner_distance(affine, turned, shape)
    limit = MAX_SHIFT_VOXELS * float(nib.affines.voxel_sizes(affine).min())
    if not shift < limit:
        raise UnusableCase(
            f"image and label are placed {shift:.3g} mm apart by their affines, allowed {limit:.2g} mm",
            "copy the image's affine to the label if they show the same, else give the right label",
        )
    return apply_orientation(values, turn), bool(np.abs(affine - own).max() <= EXACT_TOLERANCE)


def copy_volume(
    image: Path, label: Path, label_values: Mapping[int, int], outputs: tuple[Path, Path]
) -> dict[str, Any]:
    """Copy a volume unchanged and write its label with mapped values on the same grid.

    Args:
        image: NIfTI volume.
        label: NIfTI label of the same voxels, in any order of axes.
        label_values: value to write for each value found.
        outputs: paths for the image and for the label.

    Returns:
        ``{"spacing": mm along each array axis, "pixels": hash of the voxels, "label": the written values}``.

    Raises:
        UnusableCase: unreadable, image values that are not finite in single precision, or the grids differ.
        ValueError: the label has a value without an entry.
    """
    volume, found = open_volume(image), open_volume(label)
    affine = np.asarray(volume.affine, dtype=np.float64)
    values, _ = label_on_grid(volume_values(found, label), found.affine, affine, volume.shape)
    voxels = volume_values(volume, image)
    bad = 0
    if voxels.dtype.kind not in "iu":
        # Training has single precision, in which larger numbers are infinite.
        bad = int(voxels.size - np.count_nonzero(np.abs(voxels) <= np.finfo(np.float32).max))
    if bad:
        remedy = "replace them, for example by the value of the background"
        raise UnusableCase(
            f"{image.name} has {bad} voxels that are NaN or infinite, or beyond single precision", remedy
        )
    values = remap(values, label_values, label)
    for output in outputs:
        output.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image, outputs[0])
    written = nib.Nifti1Image(values, volume.affine)
    written.header.set_xyzt_units("mm")
    nib.save(written, outputs[1])
    spacing = [round(float(size), 6) for size in nib.affines.voxel_sizes(volume.affine)]
    return {"spacing": spacing, "pixels": array_hash(voxels, axis=2), "label": values}
