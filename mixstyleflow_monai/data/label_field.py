"""Volumes that do not suit what the network sees of them: labels outside of it, or hardly anything inside.

Volumes are cropped around their centre to ``image_size`` x ``pixel_spacing``. An organ that lies off the centre, or a
large one, loses a part in that without a word, and is neither learned nor segmented; here it is measured on the labels.
Of a volume much smaller than that the network gets little but padding.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mixstyleflow_monai.data.dataset_description import Case, DatasetDescription
from mixstyleflow_monai.data.file_faults import has_place, load_volume
from mixstyleflow_monai.data.grids import filled_share, network_field
from mixstyleflow_monai.data.label_values import whole_labels

if TYPE_CHECKING:
    from mixstyleflow_monai.data.task import Task

MAX_SHARE_OUTSIDE = 0.01
"""Part of a region of one case that may lie outside before it is told."""
CASES_PER_DOMAIN = 64
"""Of a larger domain, training looks at cases at equal steps, so that its start takes seconds."""
MIN_SHARE_FILLED = 0.1
"""Of the network's input, below which it is told that a volume is small."""
REMEDY = "give training a larger image_size or pixel_spacing, or pixel_spacing null to resize whole slices"
SMALL_REMEDY = "give training a finer pixel_spacing, or pixel_spacing null to resize whole slices"
_SHOWN_CASES = 5

Grid = tuple[tuple[int, ...], NDArray[np.float64]]
"""Shape and affine of a volume."""

logger = logging.getLogger(__name__)


def shares_outside(total: Mapping[str, int], inside: Mapping[str, int]) -> dict[str, float]:
    """Return the regions of which more than `MAX_SHARE_OUTSIDE` is outside, with the share.

    Args:
        total: voxels of each region.
        inside: those that the network sees.
    """
    shares = {name: (count - inside[name]) / count for name, count in total.items() if count}
    return {name: share for name, share in shares.items() if share > MAX_SHARE_OUTSIDE}


def shown_shares(shares: Mapping[str, float]) -> str:
    """Write shares for a message, such as ``12 % of prostate``."""
    return ", ".join(f"{max(100 * share, 1):.0f} % of {name}" for name, share in shares.items())


def shown_field(image_size: Sequence[int], pixel_spacing: Sequence[float]) -> str:
    """Write the field for a message, in mm and by the settings that it follows from."""
    sides = " x ".join(f"{size * step:.0f}" for size, step in zip(image_size, pixel_spacing, strict=True))
    sizes, steps = (",".join(f"{number:g}" for number in pair) for pair in (image_size, pixel_spacing))
    return f"the central {sides} mm that the network sees (image_size {sizes}, pixel_spacing {steps})"


def warn_of_cut_labels(description: DatasetDescription, task: Task) -> None:
    """Log a warning if labels of the data set lie outside of the network's field, and one if volumes hardly fill it.

    Labels are read only of volumes that are larger than the field, and of at most `CASES_PER_DOMAIN` cases a domain.

    Args:
        description: the data set.
        task: what a network is trained for on it.
    """
    from mixstyleflow_monai.processes import is_first  # which needs torch

    if description.spatial_dims != 3 or task.pixel_spacing is None or not description.cases or not is_first():
        return
    looked_at = [
        (case, grid_of(case.label))
        for domain in description.domains
        for case in _spread(description.select(domain=domain), CASES_PER_DOMAIN)
    ]
    _warn_of_small(looked_at, task.image_size, task.pixel_spacing)
    cut = {}
    cases = [case for case, grid in looked_at if _is_cropped(grid, task.image_size, task.pixel_spacing)]
    for case in tqdm(cases, desc="labels in the field", unit="volume", leave=False):
        shares = _case_shares(case, description.regions, task.image_size, task.pixel_spacing)
        if shares:
            cut[case.id] = shares
    if cut:
        shown = "; ".join(f"{name} {shown_shares(shares)}" for name, shares in list(cut.items())[:_SHOWN_CASES])
        more = f"; and {len(cut) - _SHOWN_CASES} more" if len(cut) > _SHOWN_CASES else ""
        logger.warning(
            "%d of %d cases looked at have labels outside of %s, which are neither learned nor segmented: %s%s. To "
            "keep them, %s. `python -m data_prep check` lists all such cases.",
            len(cut),
            len(looked_at),
            shown_field(task.image_size, task.pixel_spacing),
            shown,
            more,
            REMEDY,
        )


def _warn_of_small(
    cases: Sequence[tuple[Case, Grid | None]], image_size: Sequence[int], pixel_spacing: Sequence[float]
) -> None:
    """Log one warning if slices of some volumes are far smaller than the network's field."""
    small = []
    for case, grid in cases:
        share = 1.0 if grid is None else filled_share(*grid, image_size, pixel_spacing)
        if share < MIN_SHARE_FILLED:
            small.append(f"{case.id} {100 * share:.2g} %")
    if small:
        more = f"; and {len(small) - _SHOWN_CASES} more" if len(small) > _SHOWN_CASES else ""
        logger.warning(
            "%d of %d cases looked at fill less than %.0f %% of %s, and the rest of the image is padding: %s%s. %s.",
            len(small),
            len(cases),
            100 * MIN_SHARE_FILLED,
            shown_field(image_size, pixel_spacing),
            "; ".join(small[:_SHOWN_CASES]),
            more,
            SMALL_REMEDY[0].upper() + SMALL_REMEDY[1:],
        )


def _spread(cases: Sequence[Case], count: int) -> list[Case]:
    """Return at most ``count`` cases at equal steps."""
    return [cases[index * len(cases) // count] for index in range(count)] if len(cases) > count else list(cases)


def grid_of(path: Path) -> Grid | None:
    """Return shape and affine of a volume; None if they cannot be told, where training itself names the file."""
    try:
        volume = load_volume(path)
    except Exception:  # whatever a reader raises
        return None
    affine = np.asarray(volume.affine, dtype=np.float64)
    return (volume.shape, affine) if len(volume.shape) == 3 and has_place(affine) else None


def _is_cropped(grid: Grid | None, image_size: Sequence[int], pixel_spacing: Sequence[float]) -> bool:
    if grid is None:
        return False
    field = network_field(*grid, image_size, pixel_spacing)
    return any(side.stop - side.start < size for side, size in zip(field, grid[0], strict=True))


def _case_shares(
    case: Case, regions: Mapping[str, Sequence[int]], image_size: Sequence[int], pixel_spacing: Sequence[float]
) -> dict[str, float]:
    """Return `shares_outside` of one case; nothing of a label that cannot be read, which training itself names."""
    try:
        volume = load_volume(case.label)
        values = np.asarray(volume.dataobj)
    except Exception:  # whatever a reader raises
        return {}
    field = network_field(volume.shape, np.asarray(volume.affine), image_size, pixel_spacing)
    values = whole_labels(values)
    masks = {name: np.isin(values, wanted) for name, wanted in regions.items()}
    return shares_outside(
        {name: int(np.count_nonzero(mask)) for name, mask in masks.items()},
        {name: int(np.count_nonzero(mask[field])) for name, mask in masks.items()},
    )
