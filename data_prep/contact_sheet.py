"""Pictures of a data set: cases with the outlines of their regions, of all domains on one sheet or of one domain."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke
from numpy.typing import NDArray
from tqdm import tqdm

from data_prep.case_slices import NOT_FINITE, middle_slice, read_picture, reduce_image, reduced_size, unreadable
from mixstyleflow_monai.data.dataset_description import Case, DatasetDescription
from mixstyleflow_monai.report import plain, save_figure

COLOURS = ("#00e5ff", "#ffea00", "#ff4fd8", "#76ff03", "#ff9100", "#ffffff")
"""Outline colours of the regions, in the order of the data set."""
CASES_PER_SHEET = 24
TILE_INCHES = 1.7
_DPI = 120
_BACKGROUND = "#242424"
_COLUMNS = 6
_GAP_INCHES = 0.05
_HEAD_INCHES = 0.2
_NARROWEST_INCHES = 3.6
_CAPTION_LETTERS = 23
_LARGEST_SIDE = 2 * int(TILE_INCHES * _DPI)
"""Pixels along the longer side of a tile; larger images are reduced, or a sheet of photographs would fill memory."""


def contact_sheet(description: DatasetDescription, path: str | os.PathLike[str], cases_per_domain: int = 6) -> Path:
    """Write a PNG with cases of every domain, a row each, and the outlines of their regions.

    Cases are taken at equal steps through a domain. A volume shows the slice in the middle of its labelled slices, in
    the radiological way: anterior at the top and the patient's right at the left for an axial slice. Grey values are
    clipped to the slice's 1st and 99th percentile; colours are shown as stored.

    Args:
        description: a loaded data set, of any kind.
        path: the PNG to write.
        cases_per_domain: columns; a domain with fewer cases leaves the rest of its row empty.

    Returns:
        ``path``.

    Raises:
        ValueError: ``cases_per_domain`` is below 1, or a case cannot be read.
    """
    if cases_per_domain < 1:
        raise ValueError(f"contact sheet: cases_per_domain is {cases_per_domain}, it must be 1 or more.")
    domains = description.domains
    columns = min(cases_per_domain, max(len(description.select(domain=domain)) for domain in domains))
    figure, axes = _grid(len(domains), columns, description)
    for row, domain in zip(axes, domains, strict=True):
        for axis, case in zip(row, spread(description.select(domain=domain), columns), strict=False):
            _draw_case(axis, case, description)
            where = {"x": 0.02, "y": 0.02, "va": "bottom", "transform": axis.transAxes}
            axis.text(
                **where, s=plain(short(case.id, _CAPTION_LETTERS)), color="white", fontsize=5, path_effects=_edge(1)
            )
        role = "source" if domain == description.source_domain else "unseen"
        row[0].set_title(plain(f"{domain} ({role})"), color="white", fontsize=8, loc="left", pad=2)
    return save_figure(figure, Path(path))


def domain_sheet(
    description: DatasetDescription,
    domain: str,
    path: str | os.PathLike[str],
    *,
    max_cases: int = CASES_PER_SHEET,
    progress: tqdm[Any] | None = None,
) -> Path:
    """Write a PNG with cases of one domain, drawn as on :func:`contact_sheet`, and say how many of how many they are.

    Args:
        description: a loaded data set, of any kind.
        domain: one of its domains.
        path: the PNG to write.
        max_cases: a larger domain is shown at equal steps.
        progress: bar that moves by one for each case.

    Returns:
        ``path``.

    Raises:
        ValueError: no such domain, ``max_cases`` is below 1, or a case cannot be read.
    """
    if max_cases < 1:
        raise ValueError(f"contact sheet: max_cases is {max_cases}, it must be 1 or more.")
    members = description.select(domain=domain)
    cases = spread(members, max_cases)
    columns = min(_COLUMNS, len(cases))
    role = "source" if domain == description.source_domain else "unseen"
    count = f"all {len(members)} cases"
    if len(cases) < len(members):
        count = f"{len(cases)} of {len(members)} cases, at equal steps"
    where = ", middle labelled slice" if description.spatial_dims == 3 else ""
    figure, axes = _grid(-(-len(cases) // columns), columns, description, title=f"{domain} ({role}): {count}{where}")
    for axis, case in zip(axes.flat, cases, strict=False):
        labelled = _draw_case(axis, case, description)
        caption = short(case.id.removeprefix(f"{domain}_"), _CAPTION_LETTERS) + (
            f", {case.split}" if role == "source" else ""
        )
        if not labelled:
            caption = f"no region: {caption}"
        axis.set_title(plain(caption), color="white" if labelled else "#ff9100", fontsize=6.5, loc="left", pad=2)
        if progress is not None:
            progress.update()
    return save_figure(figure, Path(path))


def spread(cases: Sequence[Case], count: int) -> list[Case]:
    """Return at most ``count`` cases at equal steps, the first and (unless ``count`` is 1) the last among them."""
    if len(cases) <= count:
        return list(cases)
    return [cases[round(i * (len(cases) - 1) / max(count - 1, 1))] for i in range(count)]


def _grid(rows: int, columns: int, description: DatasetDescription, title: str = "") -> tuple[Figure, NDArray[Any]]:
    """Return a dark figure with a title, ``rows`` x ``columns`` square axes without frames, and the regions' names."""
    step = TILE_INCHES + _GAP_INCHES
    width = max(columns * step + _GAP_INCHES, _NARROWEST_INCHES)
    # About 11 letters of the title's bold font and 14 of the legend's fit an inch.
    lines = textwrap.wrap(title, int(11 * width))
    legend_columns = max(1, int(14 * width / (max(map(len, description.regions)) + 6)))
    top = 0.12 + 0.18 * len(lines) if lines else 0.0
    foot = 0.14 + 0.18 * -(-len(description.regions) // legend_columns)
    height = top + rows * (TILE_INCHES + _HEAD_INCHES) + foot
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor=_BACKGROUND)
    FigureCanvasAgg(figure)
    axes = np.empty((rows, columns), dtype=object)
    for row, column in np.ndindex(rows, columns):
        left = _GAP_INCHES + column * step
        bottom = height - top - (row + 1) * (TILE_INCHES + _HEAD_INCHES)
        place = (left / width, bottom / height, TILE_INCHES / width, TILE_INCHES / height)
        axis = figure.add_axes(place)
        axis.set_axis_off()
        axes[row, column] = axis
    corner: dict[str, Any] = {"x": 0.08 / width, "y": 1 - 0.07 / height}
    figure.text(
        **corner, s=plain("\n".join(lines)), color="white", fontsize=9.5, va="top", weight="bold", linespacing=1.3
    )
    handles = [
        Line2D([], [], color=_line(index)[0], linestyle=_line(index)[1], linewidth=2, label=region)
        for index, region in enumerate(description.regions)
    ]
    figure.legend(
        handles=handles, loc="lower left", ncols=legend_columns, frameon=False, labelcolor="white", fontsize=8,
        borderaxespad=0.2, handlelength=1.5, columnspacing=1.5,
    )  # fmt: skip
    return figure, axes


def _line(index: int) -> tuple[str, Literal["solid", "dashed"]]:
    """Return colour and style of a region's outline."""
    return COLOURS[index % len(COLOURS)], "dashed" if index // len(COLOURS) % 2 else "solid"


def _edge(width: float) -> list[AbstractPathEffect]:
    """Return a dark edge, without which bright lines and letters vanish on bright tissue."""
    return [withStroke(linewidth=width, foreground="black", alpha=0.8)]


def short(name: str, letters: int) -> str:
    """Cut the middle out of a long name, because its ends tell cases apart."""
    keep = (letters - 3) // 2
    return name if len(name) <= letters else f"{name[:keep]}...{name[-keep:]}"


def _draw_case(axis: Axes, case: Case, description: DatasetDescription) -> bool:
    """Show one case with its outlines on a matplotlib axis; return whether it has any region."""
    try:
        if description.spatial_dims == 3:
            image, label, aspect = middle_slice(case)
        else:
            image, label, aspect = read_picture(case.image), read_picture(case.label), 1.0
    except Exception as error:  # whatever a reader raises, the file is at fault
        raise unreadable(case, error) from error
    label = label if label.ndim == 2 else label[..., 0]
    if image.shape[:2] != label.shape:
        raise unreadable(case, ValueError(f"image is {image.shape[:2]}, label {label.shape}"))
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise unreadable(case, ValueError(NOT_FINITE))
    masks = [np.isin(label, values) for values in description.regions.values()]
    size = reduced_size(label.shape, _LARGEST_SIDE)
    _show_image(axis, reduce_image(image, size), aspect * (label.shape[0] / size[0]) / (label.shape[1] / size[1]))
    for index, mask in enumerate(masks):
        # Without a margin, an outline that reaches the border of the image would stay open there.
        covered = np.pad(reduce_image(mask.astype(np.float32), size), 1)
        if covered.max() >= 0.5:
            rows, columns = np.arange(covered.shape[0]) - 1, np.arange(covered.shape[1]) - 1
            colour, style = _line(index)
            lines = axis.contour(
                columns, rows, covered, levels=[0.5], colors=[colour], linestyles=[style], linewidths=0.8
            )
            lines.set_path_effects(_edge(1.5))
    axis.set_xlim(-0.5, size[1] - 0.5)
    axis.set_ylim(size[0] - 0.5, -0.5)
    return any(mask.any() for mask in masks)


def _show_image(axis: Axes, image: NDArray[Any], aspect: float) -> None:
    """Show grey values between their percentiles, and colours as stored; of other channel numbers, the first."""
    if image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
        axis.imshow(image, aspect=aspect, interpolation="bilinear")
        return
    grey = (image if image.ndim == 2 else image[..., 0]).astype(np.float32)
    low, high = np.percentile(grey, (1, 99))
    axis.imshow(grey, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect, interpolation="bilinear")
