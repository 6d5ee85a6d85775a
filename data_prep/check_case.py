"""What one worker of ``python -m data_prep check`` does: everything that can be told from one case alone.

Volumes are read a few slices at a time, so that a worker needs the same memory for a large volume as for a small one.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from data_prep.image_files import ValueHash, number
from data_prep.volume_files import stored_bytes
from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.data.case_checks import header_faults
from mixstyleflow_monai.data.dataset_description import Case
from mixstyleflow_monai.data.file_faults import (
    Fault,
    claimed_bytes,
    has_place,
    is_volume,
    load_volume,
    open_picture,
    unreadable,
)
from mixstyleflow_monai.data.grids import axes_of, filled_share, network_field
from mixstyleflow_monai.data.label_field import REMEDY, grid_of, shares_outside, shown_field, shown_shares
from mixstyleflow_monai.data.label_values import whole_labels

# Values looked at together; 8 bytes each, and a few copies of them.
_PIECE = 2**20
_SHOWN_VALUES = 8
_SPACING_TOLERANCE = 0.01
_MIN_PIXEL, _MAX_PIXEL = 1e-5, 10.0
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class CaseJob:
    """A case with what the data set says of all cases, and what training is to see of volumes.

    Attributes:
        image_size: pixels of the network's input along left-right and front-back.
        pixel_spacing: mm along the same; None where whole slices are resized.
    """

    case: Case
    spatial_dims: int
    channels: int
    regions: dict[str, list[int]]
    image_size: tuple[int, ...] = (1, 1)
    pixel_spacing: tuple[float, ...] | None = None


@dataclass
class CaseResult:
    """What was found in one case.

    Attributes:
        faults: in the order in which they were found.
        pixels: hash of the image's values, equal for equal values whatever the file format; None if unreadable.
        region_sizes: pixels or voxels of each region; None if the label cannot be read.
        used_range: largest value of a picture as a share of its type's, which the network gets as 1 by default; None
            for volumes and types without a largest value.
        coarseness: longest edge of a volume's voxels within axial slices over that across them; None for pictures and
            volumes without a place.
        filled: share of the network's input that a slice fills; None for pictures, volumes without a place, and where
            whole slices are resized.
    """

    faults: list[Fault] = field(default_factory=list)
    pixels: str | None = None
    region_sizes: dict[str, int] | None = None
    used_range: float | None = None
    coarseness: float | None = None
    filled: float | None = None


def check_case(job: CaseJob) -> CaseResult:
    """Check one case; whatever is wrong with its files becomes a fault, and nothing is raised."""
    case, result = job.case, CaseResult()
    result.faults = header_faults(case, job.spatial_dims, job.channels)
    blocked = {fault.file for fault in result.faults if fault.blocks}
    if case.image not in blocked:
        try:
            result.faults += _spacing_faults(case)
            result.pixels, largest = _check_image(case.image, result.faults)
            result.coarseness = _coarseness(case.image) if is_volume(case.image) else None
            result.filled = _filled(job)
            top = None if is_volume(case.image) else _top(case.image)
            result.used_range = None if top is None else largest / top
        except Exception as error:  # whatever a reader raises, the file is at fault
            result.faults.append(unreadable(case.image, error))
    if case.label not in blocked:
        try:
            result.region_sizes = _check_label(job, result.faults)
        except Exception as error:  # as above
            result.faults.append(unreadable(case.label, error))
    for kind, path in (("image", case.image), ("label", case.label)):
        _compare_hash(path, case.sha256[kind], result.faults)
    return result


def pieces(path: Path) -> Iterator[NDArray[np.float64]]:
    """Yield the values of an image or volume in the order of the file, a few rows or slices at a time.

    Yields:
        (rows, columns[, channels]) or (x, y, slices), float64.

    Raises:
        ValueError: the file holds less than its header says.
    """
    if not is_volume(path):
        with open_picture(path) as image:
            values = np.asarray(image)
        step = max(1, _PIECE // math.prod(values.shape[1:]))
        for start in range(0, len(values), step):
            yield values[start : start + step].astype(np.float64)
        return
    # Kept open, a compressed file is read from its start to its end once, and not once for each piece.
    volume = load_volume(path, keep_file_open=True)
    found, claimed = stored_bytes(path), claimed_bytes(volume)
    if found < claimed:
        raise ValueError(f"cut off: it holds {found:,} bytes, its header claims {claimed:,}")
    step = max(1, _PIECE // math.prod(volume.shape[:2]))
    for start in range(0, volume.shape[2], step):
        yield np.asarray(volume.dataobj[..., start : start + step], dtype=np.float64)


def _top(path: Path) -> float | None:
    """Return the largest value of a picture's type: 8 or 16 bits a channel."""
    with open_picture(path) as image:
        mode = image.mode
    if mode.startswith("I"):
        return 65535.0
    return 255.0 if mode in ("L", "LA", "P", "RGB", "RGBA") else None


def _check_image(path: Path, faults: list[Fault]) -> tuple[str, float]:
    """Look for values that are not finite and for constant images; return the hash of the values and the largest."""
    digest = ValueHash(2 if is_volume(path) else 0)
    low, high, nans, infinities = math.inf, -math.inf, 0, 0
    for piece in pieces(path):
        finite = np.isfinite(piece)
        if finite.all():
            low, high = min(low, float(piece.min())), max(high, float(piece.max()))
        else:
            nan = int(np.count_nonzero(np.isnan(piece)))
            nans, infinities = nans + nan, infinities + finite.size - int(np.count_nonzero(finite)) - nan
            if finite.any():
                low, high = min(low, float(piece[finite].min())), max(high, float(piece[finite].max()))
        digest.update(piece)
    if nans or infinities:
        found = " and ".join(f"{count} {name}" for count, name in ((nans, "NaN"), (infinities, "infinite")) if count)
        remedy = "replace them, for example by the value of the background"
        faults.append(Fault(path, f"has {found} values, expected finite numbers", remedy))
    elif max(abs(low), abs(high)) > _LARGEST:
        text = f"has values from {low:g} to {high:g}, more than float32 holds, in which the network computes"
        faults.append(Fault(path, text, "scale the values, or export it again"))
    elif low == high:
        remedy = "export it again, or remove the case"
        faults.append(Fault(path, f"is constant: every value is {number(low)}", remedy))
    return digest.hexdigest(), high


def _check_label(job: CaseJob, faults: list[Fault]) -> dict[str, int] | None:
    """Look for values that no region knows; return the size of each region, None where that cannot be told."""
    path, field = job.case.label, _field(job)
    known = sorted({0, *(value for values in job.regions.values() for value in values)})
    counts, inside = dict.fromkeys(known, 0), dict.fromkeys(known, 0)
    unknown: set[float] = set()
    start = 0
    for piece in pieces(path):
        if piece.ndim != job.spatial_dims:
            return None
        piece = whole_labels(piece)
        strange = np.ones(piece.shape, dtype=bool)
        # The pieces of a volume divide its last axis.
        low, high = (max(0, end - start) for end in (field[2].start, field[2].stop)) if field else (0, 0)
        for value in known:
            here = piece == value
            counts[value] += int(np.count_nonzero(here))
            if field:
                inside[value] += int(np.count_nonzero(here[field[0], field[1], low:high]))
            strange &= ~here
        start += piece.shape[-1]
        if strange.any() and len(unknown) <= _SHOWN_VALUES:
            unknown |= set(np.unique(piece[strange])[: _SHOWN_VALUES + 1].tolist())
    if unknown:
        faults.append(_value_fault(path, unknown, known))
    elif not any(count for value, count in counts.items() if value):
        remedy = "check that it is the right label; keep it if the case shows none of the regions"
        faults.append(Fault(path, "is background only", remedy, "warning"))
    elif not counts[0]:
        remedy = "check that it is the right label, and not inverted; keep it if the case shows nothing else"
        faults.append(Fault(path, "has no background: every value belongs to a region", remedy, "warning"))
    sizes, seen = (
        {region: sum(count[value] for value in values) for region, values in job.regions.items()}
        for count in (counts, inside)
    )
    if field and job.pixel_spacing is not None and (shares := shares_outside(sizes, seen)):
        text = f"has {shown_shares(shares)} outside of {shown_field(job.image_size, job.pixel_spacing)}"
        faults.append(Fault(path, text, REMEDY, "warning"))
    return sizes


def _field(job: CaseJob) -> tuple[slice, slice, slice] | None:
    """Return the voxels of a volume that the network sees; None where it sees all, or nobody can tell."""
    grid = grid_of(job.case.label) if job.spatial_dims == 3 and job.pixel_spacing is not None else None
    return None if grid is None else network_field(*grid, job.image_size, job.pixel_spacing)


def _filled(job: CaseJob) -> float | None:
    """Return the share of the network's input that a slice of a volume fills; None where nobody can tell."""
    if job.spatial_dims != 3 or job.pixel_spacing is None:
        return None
    grid = grid_of(job.case.image)
    return None if grid is None else filled_share(*grid, job.image_size, job.pixel_spacing)


def _value_fault(path: Path, unknown: set[float], known: list[int]) -> Fault:
    """Word the values that no region knows."""
    values = sorted(unknown, key=lambda value: (math.isnan(value), value))
    shown = ", ".join(map(number, values[:_SHOWN_VALUES])) + (", ..." if len(values) > _SHOWN_VALUES else "")
    allowed = ", ".join(map(str, known))
    if any(not math.isfinite(value) for value in values):
        return Fault(path, f"has label values {shown}, allowed: {allowed}", "replace NaN and infinity by 0")
    if any(value != math.floor(value) for value in values):
        text = f"has label values {shown} that are not whole numbers, allowed: {allowed}"
        return Fault(path, text, "round it, and where it was resampled, do it again with nearest neighbour")
    remedy = "map them to these, or add them to `regions` of dataset.json"
    return Fault(path, f"has label values {shown}, allowed: {allowed} (0 and those of `regions`)", remedy)


def _spacing_faults(case: Case) -> list[Fault]:
    """Compare the recorded spacing with the file, and with what is usual for 2-D images."""
    if case.spacing is None:
        return []
    shown = " x ".join(f"{size:g}" for size in case.spacing)
    if not is_volume(case.image):
        if min(case.spacing) >= _MIN_PIXEL and max(case.spacing) <= _MAX_PIXEL:
            return []
        text = f"has pixels of {shown} mm; usual are {_MIN_PIXEL:g} to {_MAX_PIXEL:g} mm"
        return [Fault(case.image, text, "check the unit of `spacing` in dataset.json", "warning")]
    affine = np.asarray(load_volume(case.image).affine)
    if len(case.spacing) != 3 or not has_place(affine):
        return []  # told already
    sizes = voxel_sizes(affine)
    if np.allclose(sizes, case.spacing, rtol=_SPACING_TOLERANCE):
        return []
    found = " x ".join(f"{size:g}" for size in sizes)
    text = f"has voxels of {found} mm, dataset.json says {shown}"
    return [Fault(case.image, text, "make the data set again, or correct `spacing`")]


def _coarseness(path: Path) -> float | None:
    affine = np.asarray(load_volume(path).affine)
    if not has_place(affine):
        return None
    sizes, across = voxel_sizes(affine), max(axes_of(affine).find("S"), axes_of(affine).find("I"))
    return None if across < 0 else float(np.delete(sizes, across).max() / sizes[across])


def _compare_hash(path: Path, recorded: str, faults: list[Fault]) -> None:
    """Tell a file that is not the one recorded; where it cannot be read, with the fault that is known already."""
    try:
        if not os.path.isfile(path) or sha256_file(path) == recorded:
            return
    except OSError:
        return
    for index, fault in enumerate(faults):
        if fault.file == path and fault.blocks:
            faults[index] = dataclasses.replace(fault, text=f"{fault.text}, and is not the file recorded")
            return
    remedy = "restore the file, or make the data set again"
    faults.append(Fault(path, "is not the file that dataset.json records (sha256 differs)", remedy))
