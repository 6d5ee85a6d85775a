"""Histograms of the intensities of all domains on top of each other: how far the unseen domains are from the source.

Every case counts the same, whatever its size: the same number of pixels is drawn from each, with a fixed seed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tqdm import tqdm

from data_prep.case_slices import NOT_FINITE, open_volume, read_picture, unreadable
from data_prep.check_case import pieces
from data_prep.contact_sheet import short, spread
from mixstyleflow_monai.data.dataset_description import Case, DatasetDescription
from mixstyleflow_monai.report import plain, save_figure

CASES_PER_DOMAIN = 50
PIXELS_PER_CASE = 5000
PERCENTILES = (2.0, 98.0)
"""To which the bundles clip volumes by default; the same numbers as `mixstyleflow_monai.data.task.VOLUME_PERCENTILES`,
whose module takes seconds to import."""
_OUTER = (0.5, 99.5)
"""Percentiles of all values between which arbitrary units are drawn."""
_BINS = 64
_PERCENTILE_VOXELS = 1_000_000
# Okabe and Ito's colours for the colour-blind, without the yellow that vanishes on white; black is the source.
_COLOURS = ("#E69F00", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
_STYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Intensities:
    """Pixels drawn from the cases of one domain.

    Attributes:
        stored: (pixels, channels) values as they are in the files, float32.
        network: (pixels, channels) values in [0, 1] as the bundles scale them by default, float32.
        tops: what stored values are divided by for the network, one for each data type found; empty for volumes.
        cases: how many cases the pixels are from.
        of: how many cases the domain has.
    """

    stored: NDArray[np.float32]
    network: NDArray[np.float32]
    tops: frozenset[float]
    cases: int
    of: int


def draw_intensities(
    description: DatasetDescription,
    domain: str,
    *,
    max_cases: int = CASES_PER_DOMAIN,
    pixels: int = PIXELS_PER_CASE,
    progress: tqdm[Any] | None = None,
) -> Intensities:
    """Draw pixels from the cases of a domain.

    The network's values are those before its images are resized: for volumes clipped to the 2nd and 98th percentile of
    the case and scaled to [0, 1] by the range of each axial slice, for 2-D images divided by the range of the type.

    Args:
        description: a loaded data set.
        domain: one of its domains.
        max_cases: of a larger domain, cases at equal steps are read.
        pixels: to draw from each case, with replacement; the same number from all of them.
        progress: bar that moves by one for each case.

    Raises:
        ValueError: no such domain, or a case that cannot be read.
    """
    members = description.select(domain=domain)
    chosen = spread(members, max_cases)
    random = np.random.default_rng(0)
    drawn: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    tops: set[float] = set()
    for case in chosen:
        try:
            if description.spatial_dims == 3:
                drawn.append(_from_volume(case, pixels, random))
            else:
                stored, top = _from_picture(case, pixels, random)
                drawn.append((stored, stored / np.float32(top)))
                tops.add(top)
        except Exception as error:  # whatever a reader raises, the file is at fault
            raise unreadable(case, error) from error
        if progress is not None:
            progress.update()
    if len({stored.shape for stored, _ in drawn}) > 1:
        raise ValueError(
            f"{description.path}: images of the domain {domain!r} differ in their number of channels, expected "
            f"{description.channels}. `python -m data_prep check` lists them."
        )
    stored, network = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    return Intensities(stored, network, frozenset(tops), len(chosen), len(members))


def save_histograms(
    description: DatasetDescription, intensities: Mapping[str, Intensities], path: str | os.PathLike[str]
) -> Path:
    """Write a PNG with a histogram of each domain, one on top of the other; a row a channel.

    The left column shows values as stored. A second column shows what the network gets, unless that is the same up to
    one factor (which the axis then names).

    Args:
        description: the data set, for names.
        intensities: pixels of each domain, see :func:`draw_intensities`; the source first.
        path: the PNG to write.

    Returns:
        ``path``.
    """
    tops = frozenset().union(*(drawn.tops for drawn in intensities.values()))
    channels = next(iter(intensities.values())).stored.shape[1]
    columns = 1 if len(tops) == 1 else 2
    # About 13 letters of the legend's font fit an inch; a line and "(unseen, 50 of 100 cases)" come with each name.
    longest = max(len(short(domain, 40)) for domain in intensities)
    legend_columns = max(1, min(3, int(9.5 * 13 / (longest + 33))))
    foot = 0.35 + 0.21 * -(-len(intensities) // legend_columns)
    height = 0.75 + 2.6 * channels + foot
    figure = Figure(figsize=(9.5, height), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.subplots(channels, columns, squeeze=False)
    for channel, name in enumerate(_channel_names(channels)):
        _draw_stored(axes[channel, 0], intensities, channel, tops, description.source_domain)
        if columns == 2:
            _draw_network(axes[channel, 1], intensities, channel, tops, description.source_domain)
        axes[channel, 0].set_ylabel("% of pixels", fontsize=8.5)
        axes[channel, 0].set_title(name, loc="left", fontsize=9.5)
    figure.suptitle(
        f"Intensities of {plain(description.name)}: at most {CASES_PER_DOMAIN} cases a domain, taken at equal steps,\n"
        f"all with the same weight; {_BINS} bins",
        fontsize=10,
        y=1 - 0.1 / height,
        va="top",
    )
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower center", ncols=legend_columns, frameon=False, fontsize=8.5, handlelength=3.2
    )
    figure.subplots_adjust(
        left=0.065, right=0.985, top=1 - 0.7 / height, bottom=(foot + 0.35) / height, wspace=0.16, hspace=0.42
    )
    return save_figure(figure, Path(path))


def _from_volume(
    case: Case, pixels: int, random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return drawn voxels (pixels, 1) of a volume, as stored and as the network gets them; reads it piece by piece."""
    image = open_volume(case.image)
    shape = image.shape
    # The array axis nearest to head-foot is the one across axial slices.
    along = int(np.flatnonzero(nib.io_orientation(image.affine)[:, 0] == 2)[0])
    place = np.stack([random.integers(0, size, pixels) for size in shape])
    many = math.prod(shape) > _PERCENTILE_VOXELS
    sampled = np.stack([random.integers(0, size, _PERCENTILE_VOXELS) for size in shape]) if many else None
    stored, some = np.empty(pixels, dtype=np.float32), []
    bottom, top = np.full(shape[along], np.inf), np.full(shape[along], -np.inf)
    start = 0
    for piece in pieces(case.image):
        if not np.isfinite(piece).all():
            raise ValueError(NOT_FINITE)
        here, values = _values_at(piece, place, start)
        stored[here] = values
        some.append(piece.reshape(-1) if sampled is None else _values_at(piece, sampled, start)[1])
        rows = slice(start, start + piece.shape[2]) if along == 2 else slice(None)
        in_plane = tuple(axis for axis in range(3) if axis != along)
        bottom[rows] = np.minimum(bottom[rows], piece.min(axis=in_plane))
        top[rows] = np.maximum(top[rows], piece.max(axis=in_plane))
        start += piece.shape[2]
    low, high = np.percentile(np.concatenate(some), PERCENTILES)
    bottom, top = np.clip(bottom, low, high), np.clip(top, low, high)
    # A slice without contrast becomes 0, as in the bundles.
    extent = np.maximum(top - bottom, max(1e-6 * (high - low), np.finfo(np.float32).tiny))
    slices = place[along]
    network = (np.clip(stored, low, high) - bottom[slices]) / extent[slices]
    return stored[:, None], network[:, None].astype(np.float32)


def _values_at(
    piece: NDArray[np.float64], place: NDArray[np.int64], start: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return which of the voxels (3, n) lie in a piece whose slices begin at ``start``, and their values."""
    here = (place[2] >= start) & (place[2] < start + piece.shape[2])
    return here, piece[place[0, here], place[1, here], place[2, here] - start]


def _from_picture(case: Case, pixels: int, random: np.random.Generator) -> tuple[NDArray[np.float32], float]:
    """Return drawn pixels (pixels, channels) of a 2-D image, and the number that the network divides them by."""
    values = read_picture(case.image)
    planes = values[..., None] if values.ndim == 2 else values
    place = tuple(random.integers(0, size, pixels) for size in planes.shape[:2])
    top = 255.0 if values.dtype == np.uint8 else 1.0 if values.dtype.kind in "fb" else 65535.0
    stored = planes[place].astype(np.float32)
    if not np.isfinite(stored).all():
        raise ValueError(NOT_FINITE)
    return stored, top


def _channel_names(channels: int) -> list[str]:
    if channels == 1:
        return [""]
    return ["red", "green", "blue"] if channels == 3 else [f"channel {number}" for number in range(1, channels + 1)]


def _draw_stored(
    axis: Axes, intensities: Mapping[str, Intensities], channel: int, tops: frozenset[float], source: str
) -> None:
    """Draw values in the units of the files."""
    values = {domain: drawn.stored[:, channel] for domain, drawn in intensities.items()}
    if len(tops) == 1 and (top := next(iter(tops))) <= 255.0:
        edges = np.linspace(0.0, top + (1.0 if top == 255.0 else 0.0), _BINS + 1)
        label = f"value as stored; the network gets it divided by {top:g}"
    else:
        everything = np.concatenate(list(values.values()))
        low, high = np.percentile(everything, _OUTER)
        edges = np.linspace(low, max(high, low + 1e-6), _BINS + 1)
        label = f"value as stored ({_OUTER[0]:g} to {_OUTER[1]:g} percentile of all domains)"
        if len(tops) == 1:
            label += f";\nthe network gets it divided by {next(iter(tops)):g}"
    _draw_lines(axis, values, edges, intensities, source)
    axis.set_xlabel(label, fontsize=8.5)


def _draw_network(
    axis: Axes, intensities: Mapping[str, Intensities], channel: int, tops: frozenset[float], source: str
) -> None:
    """Draw values from 0 to 1."""
    values = {domain: drawn.network[:, channel] for domain, drawn in intensities.items()}
    _draw_lines(axis, values, np.linspace(0.0, 1.0, _BINS + 1), intensities, source)
    if tops:
        label = f"value as the network gets it: divided by {' or '.join(f'{top:g}' for top in sorted(tops))}"
    else:
        label = (
            f"value as the network gets it: clipped to the case's {PERCENTILES[0]:g}-{PERCENTILES[1]:g} percentiles,"
        )
        label += "\neach slice scaled to 0-1 (the default; before resizing)"
    axis.set_xlabel(label, fontsize=8.5)


def _draw_lines(
    axis: Axes,
    values: Mapping[str, NDArray[np.float32]],
    edges: NDArray[np.float64],
    intensities: Mapping[str, Intensities],
    source: str,
) -> None:
    """Draw one line a domain, the source thick, black and filled."""
    centres = (edges[1:] + edges[:-1]) / 2
    inner = 0.0
    number = 0
    for domain, pixels in values.items():
        share = 100.0 * np.histogram(pixels, edges)[0] / pixels.size
        inner = max(inner, float(share[1:-1].max()))
        drawn = intensities[domain]
        count = f"{drawn.cases} cases" if drawn.cases == drawn.of else f"{drawn.cases} of {drawn.of} cases"
        # Matplotlib leaves labels that start with an underscore out of the legend.
        name = f" {plain(short(domain, 40))}"
        if domain == source:
            axis.fill_between(centres, share, color="black", alpha=0.1, linewidth=0)
            axis.plot(centres, share, color="black", linewidth=2.6, label=f"{name} (source, {count})", zorder=3)
        else:
            colour = _COLOURS[number % len(_COLOURS)]
            style = _STYLES[number // len(_COLOURS) % len(_STYLES)]
            axis.plot(centres, share, style, color=colour, linewidth=1.5, label=f"{name} (unseen, {count})")
            number += 1
    # Black borders and clipped values gather at the ends; they must not flatten everything else.
    cut = axis.get_ylim()[1] > 1.4 * inner > 0
    axis.set_ylim(0, 1.12 * inner if cut else None)
    if cut:
        axis.text(
            0.5, 0.97, "higher at the ends than shown", transform=axis.transAxes, fontsize=7, va="top", ha="center"
        )
    axis.set_xlim(edges[0], edges[-1])
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
