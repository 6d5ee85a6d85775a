"""Labels of optic disc and cup: the codings in use, and a check that a label was read by the right one.

The public releases use the same three grey values for different things: 255 is the background in one and the rim in
another. A label that is read by the wrong coding raises no error by itself, and every later number is wrong. So a
decoded label is also looked at: a fundus photograph has background along its border, and the rim between the
background and the cup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data_prep.image_files import SeveralValues, UnusableCase, open_image, read_label

BACKGROUND, RIM, CUP = 0, 1, 2
REGIONS = {"disc": [RIM, CUP], "cup": [CUP]}
"""Label values of the regions in the data set: the cup is a part of the disc."""

_NAMES = {BACKGROUND: "background", RIM: "rim", CUP: "cup"}
_MIN_BORDER_SHARE = 0.5
_SHOWN_VALUES = 12


class LabelCoding(Protocol):
    """What the values in the label files of a release mean."""

    @property
    def meaning(self) -> str:
        """One line for messages and for the record in the data set."""

    @property
    def files(self) -> int:
        """Label files of one image."""

    def read(self, paths: Sequence[Path]) -> tuple[NDArray[Any], ...]:
        """Read the files of one image as (rows, columns) integers each."""

    def decode(self, found: Sequence[NDArray[Any]]) -> NDArray[np.uint8] | None:
        """Return 0 background, 1 rim, 2 cup; None if a value has no meaning in this coding."""


@dataclass(frozen=True)
class GreyCoding:
    """One file an image, in which each grey value (or range of them) is background, rim or cup.

    Attributes:
        ranges: (lowest, highest, label value), the bounds included. A range of more than one value is for releases
            whose own code compares with thresholds; their colour files are reduced to luminance, as that code does.
    """

    ranges: tuple[tuple[int, int, int], ...]

    @property
    def meaning(self) -> str:
        """The coding in words, such as ``255 background, 128 rim, 0 cup``."""
        return ", ".join(
            f"{low if low == high else f'{low} to {high}'} {_NAMES[value]}" for low, high, value in self.ranges
        )

    @property
    def files(self) -> int:
        """One."""
        return 1

    @property
    def by_threshold(self) -> bool:
        """Whether values between the exact ones are expected, as lossy compression makes them."""
        return any(low < high for low, high, _ in self.ranges)

    def read(self, paths: Sequence[Path]) -> tuple[NDArray[Any], ...]:
        """Read the file of one image.

        Raises:
            UnusableCase: unreadable, or a colour file whose channels differ, where the coding has exact values.
        """
        (path,) = paths
        return (np.asarray(open_image(path).convert("L")) if self.by_threshold else _read_grey(path),)

    def decode(self, found: Sequence[NDArray[Any]]) -> NDArray[np.uint8] | None:
        """Return 0 background, 1 rim, 2 cup, shape of the file; None if a value lies outside of all ranges."""
        (values,) = found
        unknown = 255
        label = np.full(values.shape, unknown, dtype=np.uint8)
        for low, high, value in self.ranges:
            label[(values >= low) & (values <= high)] = value
        return None if (label == unknown).any() else label


@dataclass(frozen=True)
class ExpertShares:
    """Two files an image, disc and cup, whose grey value is the share of experts who marked the pixel, times 255.

    Attributes:
        experts: how many experts there are.
        needed: how many of them must agree.
    """

    experts: int
    needed: int

    @property
    def meaning(self) -> str:
        """The coding in words."""
        return (
            f"a map of the disc and one of the cup, 255 x share of {self.experts} experts; "
            f"taken where {self.needed} or more agree"
        )

    @property
    def files(self) -> int:
        """Two: disc and cup."""
        return 2

    def read(self, paths: Sequence[Path]) -> tuple[NDArray[Any], ...]:
        """Read the maps of the disc and of the cup.

        Raises:
            UnusableCase: unreadable, colour files whose channels differ, or maps of different sizes.
        """
        disc, cup = (_read_grey(path) for path in paths)
        if disc.shape != cup.shape:
            sizes = " and ".join(f"{shape[0]} x {shape[1]}" for shape in (disc.shape, cup.shape))
            reason = f"maps of disc and cup differ in size: {sizes} (rows x columns)"
            raise UnusableCase(reason, "restore both from the release")
        return disc, cup

    def decode(self, found: Sequence[NDArray[Any]]) -> NDArray[np.uint8] | None:
        """Return 0 background, 1 rim, 2 cup; None if a value is not a share of the experts."""
        step = 255 / self.experts
        votes = []
        for values in found:
            count = np.rint(values / step)
            # 3/4 of 255 is stored as 191 or 192, depending on the rounding.
            if (np.abs(values - count * step) > 1).any() or (count > self.experts).any():
                return None
            votes.append(count >= self.needed)
        disc, cup = votes
        return np.where(disc & cup, CUP, np.where(disc, RIM, BACKGROUND)).astype(np.uint8)


def _read_grey(path: Path) -> NDArray[Any]:
    """Read a label file of one value a pixel."""
    try:
        return read_label(path)
    except SeveralValues as error:
        reason = f"label {path.name} {error.fault}, and those of the release have one grey value a pixel"
        raise UnusableCase(reason, "restore it from the release") from error


def implausible(label: NDArray[np.uint8]) -> str | None:
    """Say what a decoded label shows that no fundus photograph does; None if there is nothing.

    Args:
        label: (rows, columns), 0 background, 1 rim, 2 cup.

    Returns:
        The reason: no disc, little background along the border, or a cup that adjoins the background in more places
        than the rim does.
    """
    if not (label != BACKGROUND).any():
        return "it has no optic disc"
    border = np.concatenate([label[0], label[-1], label[1:-1, 0], label[1:-1, -1]])
    share = float((border == BACKGROUND).mean())
    if share < _MIN_BORDER_SHARE:
        return f"background is only {100 * share:.0f} % of its border, where a fundus photograph has no disc"
    if _contacts(label, CUP) > _contacts(label, RIM):
        return "the cup, in place of the rim, adjoins the background"
    return None


def _contacts(label: NDArray[np.uint8], value: int) -> int:
    """Count the neighbouring pixels, in rows and columns, of which one is background and the other ``value``."""
    count = 0
    for one, other in ((label[1:], label[:-1]), (label[:, 1:], label[:, :-1])):
        count += int(((one == BACKGROUND) & (other == value)).sum() + ((one == value) & (other == BACKGROUND)).sum())
    return count


def shown_values(found: Sequence[NDArray[Any]]) -> str:
    """Return the values in the files of one label for a message, at most 12 of them."""
    values = sorted({value for array in found for value in np.unique(array).tolist()})
    more = f", ... ({len(values)} values)" if len(values) > _SHOWN_VALUES else ""
    return ", ".join(f"{value:g}" for value in values[:_SHOWN_VALUES]) + more
