"""Figures of images, drawn with matplotlib's Agg canvas and written atomically."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mixstyleflow_monai.artifacts import atomic_path

if TYPE_CHECKING:
    from torch import Tensor  # takes seconds to import, and `data_prep` draws without it

AUTHOR = "mixstyleflow_monai"
"""In the metadata of every figure, by which a figure of ours is known from one of a user's."""
CONTOUR_COLOURS = ("#ffd400", "#00d5ff", "#ff4fa3", "#7dff5c", "#ff7a1a", "#b48cff", "#ffffff", "#e02020")


def save_panel(
    path: str | os.PathLike[str],
    rows: Mapping[str, Tensor],
    *,
    contours: Mapping[str, Tensor] | None = None,
    title: str = "",
    column_titles: Sequence[str] = (),
) -> None:
    """Write a grid of images, a row a name and a column an image.

    Args:
        path: PNG to write.
        rows: name -> images (N, c, H, W) in [0, 1], c = 1 or at least 3 (the first three are shown as colours). Rows
            may have different N.
        contours: name of a row -> region masks (N, K, H, W) drawn as outlines on it.
        title: above the figure.
        column_titles: above the columns.
    """
    columns = max(len(images) for images in rows.values())
    cell = 1.5
    # A title is about 0.065 inches a letter.
    width = max(cell * columns + 1.4, 0.065 * len(title))
    figure = Figure(figsize=(width, cell * len(rows) + 0.5), dpi=110, layout="compressed")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, (name, images) in zip(axes, rows.items(), strict=True):
        masks = (contours or {}).get(name)
        for column, axis in enumerate(row):
            axis.set_xticks([])
            axis.set_yticks([])
            if column >= len(images):
                axis.axis("off")
                continue
            axis.imshow(displayable(images[column]), cmap="gray", vmin=0.0, vmax=1.0)
            if masks is not None:
                for region, mask in enumerate(masks[column].detach().cpu().float().numpy()):
                    if mask.any() and not mask.all():
                        colour = CONTOUR_COLOURS[region % len(CONTOUR_COLOURS)]
                        axis.contour(_upright(mask), levels=[0.5], colors=[colour], linewidths=0.9)
        row[0].set_ylabel(plain(name), fontsize=7)
    for axis, text in zip(axes[0], column_titles, strict=False):
        axis.set_title(plain(text), fontsize=7)
    if title:
        figure.suptitle(plain(title), fontsize=9)
    FigureCanvasAgg(figure)
    save_figure(figure, path)


def plain(text: str) -> str:
    """Return text that matplotlib shows as it is: two dollar signs would be set as a formula."""
    return text.replace("$", r"\$")


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG, atomically."""
    with atomic_path(path) as partial:
        partial.write_bytes(png(figure))
    return Path(path)


def png(figure: Figure) -> bytes:
    """Return a figure as PNG; letters that the font lacks become boxes without a warning each."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+", UserWarning)
        figure.savefig(buffer, format="png", metadata={"Author": AUTHOR})
    return buffer.getvalue()


def displayable(image: Tensor) -> np.ndarray:
    """Return an image (c, H, W) as a numpy array for ``imshow``, upright.

    MONAI's readers put the horizontal axis first (x, y); a display wants rows first.
    """
    array = image.detach().cpu().float().clamp(0, 1).numpy()
    if array.shape[0] >= 3:
        return np.stack([_upright(channel) for channel in array[:3]], axis=-1)
    return _upright(array[0])


def _upright(plane: np.ndarray) -> np.ndarray:
    return plane.T
