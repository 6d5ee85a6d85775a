"""Dice and average surface distance of one case, region by region, on the original grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.metrics import compute_average_surface_distance
from torch import Tensor


@dataclass(frozen=True)
class CaseResult:
    """One row of the per-case table.

    Attributes:
        case_id: id of the case.
        domain: its domain.
        region: name of the region.
        dice: 0 to 100; 100 if the region is absent from both label and prediction.
        asd: symmetric average surface distance, NaN if the region is absent from one of them.
        asd_unit: "mm" or "px".
        group: patient or field that the case is of; empty where that is not known, and the case stands for itself.
    """

    case_id: str
    domain: str
    region: str
    dice: float
    asd: float
    asd_unit: str
    group: str = ""


def dice_percent(prediction: Tensor, reference: Tensor) -> float:
    """Return the Dice of two boolean masks of any shape, 0 to 100; 100 if both are empty."""
    size = int(prediction.sum()) + int(reference.sum())
    return 100.0 if size == 0 else 200.0 * int((prediction & reference).sum()) / size


def surface_distance(prediction: Tensor, reference: Tensor, spacing: Sequence[float] | None = None) -> float:
    """Return the symmetric average surface distance of two boolean masks (H, W) or (H, W, D).

    Args:
        prediction: mask.
        reference: mask of the same shape.
        spacing: size of a voxel along each axis in mm; None for pixels.

    Returns:
        Distance in the unit of ``spacing``; NaN if either mask is empty. A voxel of the mask's border, or of the
        volume's, is surface, so the first and the last slice are surface as a whole and lower the mean of a volume of
        few slices; of a single slice the distance is that of its outlines.
    """
    if not bool(prediction.any()) or not bool(reference.any()):
        return math.nan
    for axis in reversed(range(3)):
        if prediction.ndim == 3 and prediction.shape[axis] == 1:
            prediction, reference = prediction.squeeze(axis), reference.squeeze(axis)
            spacing = None if spacing is None else [size for at, size in enumerate(spacing) if at != axis]
    distance = compute_average_surface_distance(
        prediction[None, None].float(),
        reference[None, None].float(),
        include_background=True,
        symmetric=True,
        spacing=None if spacing is None else [float(s) for s in spacing],
    )
    return float(torch.as_tensor(distance).flatten()[0])
