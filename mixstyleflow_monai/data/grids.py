"""Where voxels lie: distances between grids, the same voxels in another order of axes, and the field of the network.

Affines are (4, 4), from voxel indices to millimetres, RAS as NIfTI has it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray


def corner_distance(affine: NDArray[np.float64], other: NDArray[np.float64], shape: Sequence[int]) -> float:
    """Return how far two affines place a corner of a volume apart at most, in mm; corners are at 0 and ``shape``."""
    corners = np.array([[*corner, 1.0] for corner in itertools.product(*((0, int(n)) for n in shape[:3]))])
    return float(np.linalg.norm((corners @ (affine - other).T)[:, :3], axis=1).max())


def turn_between(
    affine: NDArray[np.float64], other: NDArray[np.float64], other_shape: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, ...]]:
    """Return what brings the axes of another volume into the order and the directions of this one.

    Voxels are reordered, none is interpolated.

    Args:
        affine: of this volume; invertible.
        other: affine of the other volume; invertible.
        other_shape: of the other volume.

    Returns:
        The orientation (3, 2) for :func:`nibabel.orientations.apply_orientation`, and affine and shape of the other
        volume after it.
    """
    turn = ornt_transform(io_orientation(other), io_orientation(affine))
    shape = tuple(int(other_shape[int(axis)]) for axis in np.argsort(turn[:, 0]))
    return turn, other @ inv_ornt_aff(turn, tuple(other_shape)), shape


def axes_of(affine: NDArray[np.float64]) -> str:
    """Return the directions of the array axes as letters, such as LPS."""
    return "".join(code or "?" for code in aff2axcodes(affine))


def filled_share(
    shape: Sequence[int], affine: NDArray[np.float64], image_size: Sequence[int], pixel_spacing: Sequence[float]
) -> float:
    """Return the share of the network's input that a slice of a volume fills, at most 1; the rest is padding.

    Args:
        shape: of the volume, three axes.
        affine: of the volume, invertible.
        image_size: pixels of the network's input along left-right and front-back.
        pixel_spacing: mm along the same.
    """
    turn, sizes = ornt_transform(io_orientation(affine), axcodes2ornt(("L", "P", "S"))), voxel_sizes(affine)
    share = 1.0
    for axis in range(3):
        place = int(turn[axis, 0])
        if place != 2:
            share *= min(1.0, int(shape[axis]) * sizes[axis] / (image_size[place] * pixel_spacing[place]))
    return share


def network_field(
    shape: Sequence[int],
    affine: NDArray[np.float64],
    image_size: Sequence[int],
    pixel_spacing: Sequence[float] | None,
) -> tuple[slice, slice, slice]:
    """Return the voxels of a volume that the network sees, as slices of the array axes.

    In plane a volume is resampled to ``pixel_spacing`` and cropped around its centre to ``image_size``; what lies
    outside is neither learned nor segmented. See `mixstyleflow_monai.data.transforms.InPlaneGeometryd`.

    Args:
        shape: of the volume, three axes.
        affine: of the volume, invertible.
        image_size: pixels of the network's input along left-right and front-back.
        pixel_spacing: mm along the same, or None where whole slices are resized, of which nothing is lost.
    """
    field = [slice(0, int(size)) for size in shape]
    if pixel_spacing is None:
        return field[0], field[1], field[2]
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(("L", "P", "S")))
    sizes = voxel_sizes(affine)
    for axis in range(3):
        place, direction = int(turn[axis, 0]), turn[axis, 1]
        if place == 2:
            continue  # across the slices nothing is changed
        wanted, step, count, voxel = int(image_size[place]), float(pixel_spacing[place]), int(shape[axis]), sizes[axis]
        # As MONAI's Spacing and ResizeWithPadOrCrop count: pixels from the first voxel's centre to the last one's.
        resampled = round((count - 1) * voxel / step) + 1
        if resampled <= wanted:
            continue
        first = (resampled - wanted) // 2
        start = max(0, int(np.ceil((first - 0.5) * step / voxel)))
        stop = min(count, int(np.ceil((first + wanted - 0.5) * step / voxel)))
        field[axis] = slice(start, stop) if direction > 0 else slice(count - stop, count - start)
    return field[0], field[1], field[2]
