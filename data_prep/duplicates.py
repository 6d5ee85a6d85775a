"""Clusters of images that look the same, so that they can be kept on one side of a split.

Two searches, for two ways in which images are related:

- Perceptual hash: 64 bits, the signs of the low frequencies of a 32 x 32 cosine transform relative to their median
  (package imagehash). Two views of the same object differ in few bits, whatever their size and compression. Images with
  little content (a few bright spots on black) may also differ in few bits: look at the clusters before you trust a
  distance.
- Adjacent tiles: images cut from one larger field share no pixel, but the last column of one continues in the first
  column of the next (or the last row in the first row), which a high correlation of the two shows.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Sequence

import imagehash
import numpy as np
from numpy.typing import NDArray

from data_prep.image_files import read_grey

# Standard deviation of the logarithm of grey values: a border of background with a single brighter pixel stays below.
_MIN_STRUCTURE = 0.02

# Number of ones in each byte; numpy counts bits itself only from version 2 on.
_ONES_IN_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)


def group_near_duplicates(paths: Sequence[str | os.PathLike[str]], max_distance: int) -> list[str]:
    """Return a group name for each image; images within ``max_distance`` bits, also by way of others, share one.

    Args:
        paths: 2-D images.
        max_distance: largest number of differing bits of 64; 0 for equal hashes.

    Returns:
        Names ``"cluster-0000"``, ... in the order of first appearance, one for each path.

    Raises:
        ValueError: ``max_distance`` out of range.
    """
    if not 0 <= max_distance <= 64:
        raise ValueError(f"max_distance: found {max_distance}, allowed: 0 to 64 bits; 4 to 8 suits most images.")
    hashes = perceptual_hashes(paths)
    groups = DisjointSets(range(len(hashes)))
    for first in range(len(hashes)):
        differing = (hashes[first + 1 :] ^ hashes[first]).view(np.uint8).reshape(-1, 8)
        distances = _ONES_IN_BYTE[differing].sum(axis=1)
        for offset in np.flatnonzero(distances <= max_distance):
            groups.join(first, first + 1 + int(offset))
    names: dict[Hashable, str] = {}
    return [names.setdefault(groups.find(index), f"cluster-{len(names):04d}") for index in range(len(hashes))]


def perceptual_hashes(paths: Sequence[str | os.PathLike[str]]) -> NDArray[np.uint64]:
    """Return the 64-bit perceptual hash of each image, shape (n,)."""
    bits = [imagehash.phash(read_grey(path)).hash.ravel() for path in paths]
    return np.array([np.packbits(row).view(np.uint64)[0] for row in bits], dtype=np.uint64)


def group_adjacent_tiles(paths: Sequence[str | os.PathLike[str]], min_correlation: float) -> list[str]:
    """Return a group name for each image; images that continue each other across a border share one.

    Two images are adjacent if the correlation of the touching borders is at least ``min_correlation`` and neither
    border fits another image better. Borders without structure are not compared.

    Args:
        paths: 2-D images; only images of the same size are compared.
        min_correlation: smallest Pearson correlation of the logarithms of the grey values, in (0, 1].

    Returns:
        Names ``"field-0000"``, ... in the order of first appearance, one for each path.

    Raises:
        ValueError: ``min_correlation`` out of range.
    """
    if not 0 < min_correlation <= 1:
        raise ValueError(
            f"min_correlation: found {min_correlation}, allowed: above 0, at most 1; 0.9 suits most tiles."
        )
    by_size: dict[tuple[int, int], list[tuple[int, list[NDArray[np.float64]]]]] = {}
    for index, path in enumerate(paths):
        values = np.log1p(np.asarray(read_grey(path), dtype=np.float64))
        borders = [_unit(border) for border in (values[:, -1], values[:, 0], values[-1], values[0])]
        by_size.setdefault(values.shape, []).append((index, borders))
    groups = DisjointSets(range(len(paths)))
    for members in by_size.values():
        for end, start in ((0, 1), (2, 3)):
            ends, starts = (np.stack([borders[side] for _, borders in members]) for side in (end, start))
            fit = ends @ starts.T
            np.fill_diagonal(fit, -1.0)
            mutual = (fit == fit.max(axis=0)) & (fit == fit.max(axis=1, keepdims=True)) & (fit >= min_correlation)
            for first, second in zip(*np.nonzero(mutual), strict=True):
                groups.join(members[first][0], members[second][0])
    names: dict[Hashable, str] = {}
    return [names.setdefault(groups.find(index), f"field-{len(names):04d}") for index in range(len(paths))]


def _unit(border: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the border with mean 0 and norm 1, or zeros where it has next to no structure."""
    centred = border - border.mean()
    return centred / np.linalg.norm(centred) if centred.std() > _MIN_STRUCTURE else np.zeros_like(centred)


class DisjointSets:
    """Sets of items that are joined step by step; each set is known by its earliest item.

    Args:
        items: all items, in order.
    """

    def __init__(self, items: Iterable[Hashable]) -> None:
        self._order = {item: position for position, item in enumerate(items)}
        self._parent: dict[Hashable, Hashable] = {item: item for item in self._order}

    def find(self, item: Hashable) -> Hashable:
        """Return the earliest item of the set that holds ``item``."""
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item

    def join(self, one: Hashable, other: Hashable) -> None:
        """Make the sets of both items one set."""
        early, late = sorted((self.find(one), self.find(other)), key=self._order.__getitem__)
        self._parent[late] = early
