"""A picture of a data set: one row a domain, one column a case, outlines of the regions on top."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from mixstyleflow_monai.artifacts import atomic_path
from mixstyleflow_monai.data.dataset_description import Case, DatasetDescription

COLOURS = ("#00e5ff", "#ffea00", "#ff4fd8", "#76ff03", "#ff9100", "#ffffff")
"""Outline colours of the regions, in the order of the data set."""
TILE_INCHES = 1.7


def contact_sheet(description: DatasetDescription, path: str | os.PathLike[str], cases_per_domain: int = 6) -> Path:
    """Write a PNG with cases of every domain and the outlines of their regions.

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
        ValueError: ``cases_per_domain`` is below 1.
    """
    if cases_per_domain < 1:
        raise ValueError(f"contact sheet: cases_per_domain is {cases_per_domain}, it must be 1 or more.")
    target = Path(path)
    domains = description.domains
    columns = min(cases_per_domain, max(len(description.select(domain=domain)) for domain in domains))
    figure = Figure(figsize=(TILE_INCHES * columns + 0.3, (TILE_INCHES + 0.22) * len(domains) + 0.5), dpi=120)
    FigureCanvasAgg(figure)
    figure.patch.set_facecolor("black")
    axes = figure.subplots(len(domains), columns, squeeze=False)
    for row, domain in zip(axes, domains, strict=True):
        cases = _spread(description.select(domain=domain), columns)
        role = "source" if domain == description.source_domain else "unseen"
        for column, axis in enumerate(row):
            axis.set_axis_off()
            if column < len(cases):
                _draw_case(axis, cases[column], description)
        row[0].set_title(f"{domain} ({role})", color="white", fontsize=8, loc="left", pad=2)
    _legend(figure, description)
    figure.subplots_adjust(
        left=0.005, right=0.995, top=0.97, bottom=0.3 / figure.get_figheight(), wspace=0.02, hspace=0.12
    )
    with atomic_path(target) as partial:
        figure.savefig(partial, facecolor="black")
    return target


def _spread(cases: Sequence[Case], count: int) -> list[Case]:
    """Return at most ``count`` cases at equal steps."""
    if len(cases) <= count:
        return list(cases)
    return [cases[round(i * (len(cases) - 1) / max(count - 1, 1))] for i in range(count)]


def _legend(figure: Figure, description: DatasetDescription) -> None:
    """Name the outline colours at the foot of the sheet."""
    for index, region in enumerate(description.regions):
        colour = COLOURS[index % len(COLOURS)]
        figure.text(0.01 + 0.16 * index, 0.008, f"\u2014 {region}", color=colour, fontsize=9, va="bottom")


def _draw_case(axis: Any, case: Case, description: DatasetDescription) -> None:
    """Show one case with its outlines on a matplotlib axis."""
    if description.spatial_dims == 3:
        image, label, aspect = _volume_slice(case)
    else:
        image, label, aspect = _picture(case.image), _picture(case.label), 1.0
        label = label if label.ndim == 2 else label[..., 0]
    if image.ndim == 2:
        low, high = np.percentile(image, (1, 99))
        axis.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect, interpolation="bilinear")
    else:
        axis.imshow(image[..., :3], aspect=aspect, interpolation="bilinear")
    for index, values in enumerate(description.regions.values()):
        region = np.isin(label, values).astype(float)
        if 0 < region.mean() < 1:
            axis.contour(region, levels=[0.5], colors=[COLOURS[index % len(COLOURS)]], linewidths=0.7)
    axis.text(0.02, 0.02, case.id, color="white", fontsize=5, transform=axis.transAxes, va="bottom")


def _picture(path: Path) -> NDArray[Any]:
    """Read a 2-D image as (rows, columns) or (rows, columns, channels); NIfTI slices lose their third axis."""
    if path.name.endswith((".nii", ".nii.gz")):
        return np.squeeze(np.asarray(nib.load(path).dataobj)).T  # type: ignore[attr-defined]
    with Image.open(path) as stored:
        return np.asarray(stored.convert("RGB") if stored.mode in ("RGBA", "CMYK", "YCbCr") else stored)


def _volume_slice(case: Case) -> tuple[NDArray[Any], NDArray[Any], float]:
    """Return the middle labelled slice of a volume and of its label, and the ratio of row to column spacing."""
    image, label = (nib.as_closest_canonical(nib.load(path)) for path in (case.image, case.label))
    spacing = np.array(image.header.get_zooms()[:3])
    # Slices are across the coarsest axis; isotropic volumes are shown axially.
    across = int(np.argmax(spacing)) if spacing.max() > 1.2 * np.median(spacing) else 2
    mask = np.asarray(label.dataobj)
    labelled = np.flatnonzero(np.any(mask > 0, axis=tuple(a for a in range(3) if a != across)))
    index = int(labelled[len(labelled) // 2]) if labelled.size else mask.shape[across] // 2
    rows, columns = {2: (1, 0), 1: (2, 0), 0: (2, 1)}[across]
    # RAS indices grow to right, anterior and superior... of the patient: the top and the left of the sheet are the end.
    slices = [np.take(volume, index, across) for volume in (np.asarray(image.dataobj), mask)]
    flipped = [np.flip(plane.T, (0, 1)) for plane in slices]
    return flipped[0], flipped[1], float(spacing[rows] / spacing[columns])
