"""Grids of DICOM slices: regular or not and why, and whether two grids are the same.

All affines go from voxel indices (column, row, slice) to millimetres. They are DICOM's own (LPS: to the left, to the
back, to the head) unless a name says RAS, as NIfTI has it.

Source: DICOM PS3.3, C.7.6.2.1.1 (image position, image orientation).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_prep.image_files import UnusableCase

# A slice may lie off the regular grid by this share of the slice distance (positions are often rounded), and off the
# normal by this share of a pixel.
POSITION_TOLERANCE = 0.05
# Two grids are the same if no corner is further off than this share of the smallest voxel side.
GRID_TOLERANCE = 0.1
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class RepeatedPositions(UnusableCase):
    """Several images lie at one position: more than one volume, or an image too many."""


def slice_order(positions: Sequence[Sequence[float]], orientation: Sequence[float]) -> list[int]:
    """Return the order of the slices along their normal; equal positions keep theirs."""
    along = np.asarray(positions, dtype=np.float64) @ _normal(orientation)
    return [int(index) for index in np.argsort(along, kind="stable")]


def slice_grid(
    positions: Sequence[Sequence[float]], orientation: Sequence[float], pixel_spacing: Sequence[float]
) -> NDArray[np.float64]:
    """Return the affine of a stack of slices.

    Args:
        positions: ImagePositionPatient of at least two slices, in :func:`slice_order`.
        orientation: ImageOrientationPatient, two unit vectors: along a row, along a column.
        pixel_spacing: PixelSpacing, mm between rows, then between columns.

    Returns:
        (4, 4).

    Raises:
        UnusableCase: directions that are no rotation, a spacing that is not positive, positions that repeat, gaps,
            uneven distances, or slices that are shifted against each other (a tilted gantry).
    """
    row, column, normal = np.array(orientation[:3]), np.array(orientation[3:]), _normal(orientation)
    lengths = [float(np.linalg.norm(vector)) for vector in (row, column)]
    if max(abs(length - 1) for length in lengths) > 1e-2 or abs(float(row @ column)) > 1e-2:
        raise UnusableCase("ImageOrientationPatient is not two perpendicular unit vectors; repair the headers")
    if min(pixel_spacing) <= 0:
        raise UnusableCase(f"PixelSpacing {' x '.join(f'{s:g}' for s in pixel_spacing)} is not positive")
    places = np.array(positions, dtype=np.float64)
    along = places @ normal
    _check_distances(along)
    step = (places[-1] - places[0]) / (len(places) - 1)
    sideways = places - places[0] - np.outer(along - along[0], normal)
    if float(np.linalg.norm(sideways, axis=1).max()) > POSITION_TOLERANCE * min(pixel_spacing):
        tilt = np.degrees(np.arccos(min(1.0, float(step @ normal / np.linalg.norm(step)))))
        raise UnusableCase(
            f"slices are shifted against each other (by {tilt:.2g} degrees: a tilted gantry, or slices in disorder), "
            "so that voxels are no right-angled boxes; resample it to a straight grid first"
        )
    affine = np.eye(4)
    # Between the columns lies the second number of PixelSpacing, and a row runs across the columns.
    affine[:3, 0], affine[:3, 1] = row * pixel_spacing[1], column * pixel_spacing[0]
    affine[:3, 2], affine[:3, 3] = step, places[0]
    return affine


def _normal(orientation: Sequence[float]) -> NDArray[np.float64]:
    return np.cross(np.array(orientation[:3], dtype=np.float64), np.array(orientation[3:], dtype=np.float64))


def _check_distances(along: NDArray[np.float64]) -> None:
    """Refuse sorted positions along the normal (mm) that are not evenly spaced."""
    steps = np.diff(along)
    same = steps <= 1e-3 * max(float(steps.max()), 1e-3)
    if same.any():
        raise RepeatedPositions(f"{int(same.sum())} of {len(along)} images lie at the position of another")
    regular = np.linspace(along[0], along[-1], len(along))
    if float(np.abs(along - regular).max()) <= POSITION_TOLERANCE * float(steps.mean()):
        return
    whole = steps / float(steps.min())
    if float(np.abs(whole - whole.round()).max()) <= 2 * POSITION_TOLERANCE:
        gaps = [
            f"{count - 1:g} between {low:.1f} and {high:.1f} mm"
            for (low, high), count in zip(itertools.pairwise(along), whole.round(), strict=True)
            if count > 1
        ]
        shown = ", ".join(gaps[:3]) + (", ..." if len(gaps) > 3 else "")
        missing = int((whole.round() - 1).sum())
        raise UnusableCase(f"missing slices: {missing} ({shown} along the normal); find the files and put them back")
    raise UnusableCase(
        f"slices are unevenly spaced, {steps.min():.3g} to {steps.max():.3g} mm; resample the series first"
    )


def to_ras(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn an LPS affine into a RAS affine, or back."""
    return _LPS_TO_RAS @ affine


def grid_distance(first: NDArray[np.float64], second: NDArray[np.float64], shape: Sequence[int]) -> float:
    """Return how far apart the corners of two grids of one shape are at most, in voxel sides of the first."""
    corners = np.array([[*corner, 1.0] for corner in itertools.product(*((0, size - 1) for size in shape))])
    gap = np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max()
    return float(gap / np.linalg.norm(first[:3, :3], axis=0).min())
