"""Soft shapes on a fine grid, of which the prostate phantom is painted.

Shapes are signed distances in mm, negative inside; `soft` turns them into occupancies, and a `Painter` stacks
occupancies as layers of tissue.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]
Box = tuple[slice, slice, slice]

GRID_MM = 1.2
"""In-plane pitch of the fine grid, mm."""
PLANE_MM = 2.0
"""Distance of the planes of the fine grid, mm."""
HALF_WIDTH_MM = 101.0
"""Half the side of the fine grid, mm: the largest field of view of any site and its shift must fit."""


@dataclass(frozen=True)
class Layer:
    """One coat of paint.

    Attributes:
        tissue: name in `phantom_sites.TISSUES`.
        occupancy: share 0-1 of each voxel that the tissue takes from the layers below, shape of ``box``.
        box: part of the grid (z, y, x) that the layer covers.
    """

    tissue: str
    occupancy: Array
    box: Box


def soft(distance: Array, width: float = 0.7) -> Array:
    """Turn a signed distance (mm, negative inside) into an occupancy 0-1 that falls over about ``2 * width`` mm."""
    return np.clip(0.5 - distance / (2.0 * width), 0.0, 1.0).astype(np.float32, copy=False)


def ellipse(
    x: Array, y: Array, centre: tuple[Array | float, Array | float], radii: tuple[float, float], turn: float = 0.0
) -> Array:
    """Return the approximate signed distance to an ellipse, mm; ``turn`` in degrees, from x towards y."""
    cos, sin = np.float32(np.cos(np.deg2rad(turn))), np.float32(np.sin(np.deg2rad(turn)))
    dx, dy = x - centre[0], y - centre[1]
    along, across = (dx * cos + dy * sin) / radii[0], (dy * cos - dx * sin) / radii[1]
    return ((np.sqrt(along * along + across * across) - 1.0) * np.float32(min(radii))).astype(np.float32, copy=False)


def band(x: Array, y: Array, start: tuple[float, float], end: tuple[float, float], radius: float) -> Array:
    """Return the signed distance (mm) to a straight band of half-thickness ``radius`` with round ends."""
    ax, ay = end[0] - start[0], end[1] - start[1]
    dx, dy = x - start[0], y - start[1]
    along = np.clip((dx * ax + dy * ay) / (ax * ax + ay * ay), 0.0, 1.0)
    return (np.hypot(dx - along * ax, dy - along * ay) - np.float32(radius)).astype(np.float32, copy=False)


def smooth_union(a: Array, b: Array, blend: float) -> Array:
    """Join two signed distances with a fillet of about ``blend`` mm."""
    mix = np.clip(0.5 + (b - a) / (2.0 * blend), 0.0, 1.0)
    return b + (a - b) * mix - blend * mix * (1.0 - mix)


def wobble(
    rng: np.random.Generator, axes: tuple[Array, Array, Array], amplitude: float, waves: tuple[float, float]
) -> Array:
    """Return a smooth random displacement, mm: a sum of products of sines with wavelengths ``waves`` mm."""
    total = np.zeros(np.broadcast_shapes(*(axis.shape for axis in axes)), dtype=np.float32)
    for _ in range(6):
        product: Array = np.float32(amplitude * rng.normal()) * np.ones((1, 1, 1), dtype=np.float32)
        for axis in axes:
            product = product * np.sin(2 * np.pi * axis / rng.uniform(*waves) + rng.uniform(0, 2 * np.pi))
        total += product.astype(np.float32, copy=False)
    return total


def _unit(field: Array) -> Array:
    """Scale a field to unit variance."""
    return (field / field.std()).astype(np.float32, copy=False)


class Painter:
    """Coordinates, textures and layers of the case being painted.

    Attributes:
        rng: the case's generator.
        x_axis: column positions of the whole grid, mm; rows have the same.
        z_axis: plane positions, mm.
        x, y: displaced coordinates of this painter's part of the grid, mm, shape (z, y, x).
        side: distance from the midline, mm.
        z: plane positions, shape (z, 1, 1).
        fine, coarse: smooth random textures of unit variance, correlated over about 1 and 3 mm.
        box: this painter's part of the grid.
        layers: what was painted so far, shared by all windows.
    """

    def __init__(self, half_height: float, rng: np.random.Generator) -> None:
        planes = int(np.ceil(2 * half_height / PLANE_MM)) + 1
        side = 2 * int(HALF_WIDTH_MM / GRID_MM) + 1
        self.rng = rng
        self.x_axis = ((np.arange(side) - side // 2) * GRID_MM).astype(np.float32)
        self.z_axis = ((np.arange(planes) - (planes - 1) / 2) * PLANE_MM).astype(np.float32)
        x, y, z = self.x_axis[None, None, :], self.x_axis[None, :, None], self.z_axis[:, None, None]
        self.z = z
        # Two scales of displacement: body shape differs left from right, and no edge is a perfect curve.
        self.x = x + wobble(rng, (z, y, x), 1.6, (45.0, 110.0)) + wobble(rng, (z, y, x), 0.6, (11.0, 24.0))
        self.y = y + wobble(rng, (z, y, x), 1.6, (45.0, 110.0)) + wobble(rng, (z, y, x), 0.6, (11.0, 24.0))
        self.side = np.abs(self.x)
        noise = rng.standard_normal(self.shape, dtype=np.float32)
        self.fine = _unit(ndimage.gaussian_filter(noise, (0.4, 0.75, 0.75), truncate=2.5))
        self.coarse = _unit(ndimage.gaussian_filter(noise[::-1], (1.0, 2.6, 2.6), truncate=2.5))
        self.box: Box = (slice(0, planes), slice(0, side), slice(0, side))
        self.layers: list[Layer] = []

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (z, y, x) of this painter's part of the grid."""
        return self.x.shape

    def window(self, half_mm: float) -> Painter:
        """Return a painter of the same layers for the square |x|, |y| < ``half_mm`` mm only, which is faster."""
        middle, reach = self.x_axis.size // 2, min(int(half_mm / GRID_MM), self.x_axis.size // 2)
        part = slice(middle - reach, middle + reach + 1)
        view = copy.copy(self)
        view.box = (self.box[0], part, part)
        for name in ("x", "y", "side", "fine", "coarse"):
            setattr(view, name, np.ascontiguousarray(getattr(self, name)[:, part, part]))
        return view

    def within(self, outer: Painter) -> Box:
        """Return where this painter's part lies in the arrays of a larger window."""
        rows, columns = (
            slice(mine.start - other.start, mine.stop - other.start)
            for mine, other in zip(self.box[1:], outer.box[1:], strict=True)
        )
        return slice(None), rows, columns

    def paint(self, tissue: str, occupancy: Array) -> None:
        """Put a layer of tissue on top."""
        self.layers.append(Layer(tissue, occupancy.astype(np.float32, copy=False), self.box))

    def paint_bone(self, distance: Array, cortex: float = 1.8) -> None:
        """Marrow with a dark rim; trabeculae make the marrow uneven."""
        self.paint("cortical_bone", soft(distance))
        inside = soft(distance + cortex)
        self.paint("marrow", inside)
        self.paint("muscle", inside * np.clip(0.2 + 0.12 * self.fine + 0.1 * self.coarse, 0, 0.6))

    def paint_muscle(self, distance: Array, streak: Array | None = None) -> None:
        """Muscle with a fascia line around it and streaks of fat between its bundles."""
        inside = soft(distance)
        self.paint("muscle", inside)
        fat = 0.12 + 0.12 * self.coarse
        if streak is not None:
            fat = 0.10 + 0.45 * np.clip(streak - 0.3, 0, 2) * np.clip(0.6 + 0.7 * self.coarse, 0, 2)
        self.paint("fat", inside * np.clip(fat + 0.05 * self.fine, 0, 0.6))
