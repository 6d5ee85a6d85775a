"""Checks of all cases that need only the files' headers, so that they can come before any training.

A mistake in an unseen domain would otherwise show up after hours, in the evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mixstyleflow_monai.data.dataset_description import Case, DatasetDescription
from mixstyleflow_monai.data.file_faults import (
    Fault,
    has_place,
    is_volume,
    load_volume,
    lossy_label_faults,
    open_picture,
    picture_faults,
    tiff_faults,
    unreadable,
    volume_faults,
)
from mixstyleflow_monai.data.grids import axes_of, corner_distance, turn_between
from mixstyleflow_monai.data.schema_checks import raise_problems

# Parts of a voxel that image and label may be apart: labels are then moved against images, or only noticeably.
_MAX_SHIFT, _NOTICEABLE_SHIFT = 0.5, 0.1


def check_headers(description: DatasetDescription) -> DatasetDescription:
    """Return the data set if every image and label have the size, channels and position they should have.

    Raises:
        ValueError: lists the cases that do not, with what was found.
    """
    problems = [
        f"case {case.id}, {fault.file}: {fault.text}; {fault.remedy}"
        for case in description.cases
        for fault in header_faults(case, description.spatial_dims, description.channels)
        if fault.severity == "error"
    ]
    raise_problems(description.path, problems)
    return description


def check_images(datalist: Sequence[Mapping[str, Any]], channels: int, spatial_dims: int | None = None) -> None:
    """Refuse images that a network cannot take, before the first one is segmented.

    Args:
        datalist: MONAI datalist with ``image``.
        channels: of the network's input.
        spatial_dims: 2 or 3, of the images that the network was trained on; None takes both.

    Raises:
        ValueError: lists the images, with what was found, what is expected and the remedy.
    """
    problems = [
        f"{fault.file}: {fault.text}; {fault.remedy}"
        for item in datalist
        for fault in image_faults(Path(item["image"]), channels, spatial_dims)
        if fault.severity == "error"
    ]
    raise_problems("images to segment", problems)


def check_data_range(description: DatasetDescription) -> DatasetDescription:
    """Return the data set if `ScaleDataRanged` can scale its images, as far as their types tell it.

    Only pictures of numbers with no range of their own are read, and no volume.

    Raises:
        ValueError: lists the cases whose values cannot be scaled by their type.
    """
    problems = []
    for case in description.cases:
        if is_volume(case.image):
            volume = load_volume(case.image)
            kind, values = volume.get_data_dtype(), volume.dataobj
            scaled = (getattr(values, "slope", 1), getattr(values, "inter", 0)) != (1, 0)  # and so read as floats
            without = not scaled and kind.kind in "iu" and kind not in (np.uint8, np.uint16)
            told = f"has values of type {kind}" if without else ""
        else:
            told = _out_of_range(case.image)
        if told:
            problems.append(f"case {case.id}, {case.image}: {told}")
    remedy = 'no data range scales these to [0, 1]: set intensity to "slice_range" or to a window such as [0,255]'
    raise_problems(description.path, [f"{problem}; {remedy}" for problem in problems])
    return description


def _out_of_range(path: Path) -> str:
    """Say what range the values of a picture have, if they have none by type and leave that of the default."""
    with open_picture(path) as image:
        top = {"F": 1.0, "I": 65535.0}.get(image.mode)
        if top is None:
            return ""
        values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    return "" if 0 <= low <= high <= top else f"has values from {low:g} to {high:g}"


def image_faults(path: Path, channels: int, spatial_dims: int | None = None) -> list[Fault]:
    """List what the header of an image has wrong for a network.

    Args:
        path: 2-D image or volume.
        channels: of the network's input.
        spatial_dims: 2 or 3, of the images that the network was trained on; None takes both.
    """
    if spatial_dims is not None and is_volume(path) != (spatial_dims == 3):
        own, wanted = ("a volume", "2-D images") if spatial_dims == 2 else ("a 2-D image", "volumes")
        return [Fault(path, f"is {own}, and the network was trained on {wanted}", f"give {wanted}")]
    if is_volume(path):
        faults = volume_faults(path)[1]
        if channels != 1 and not any(fault.severity == "error" for fault in faults):
            text = f"is a volume of one channel, the network takes {channels}"
            faults.append(Fault(path, text, "give images of the kind that it was trained on"))
        return faults
    try:
        with open_picture(path) as image:
            bands, mode = len(image.getbands()), image.mode
            faults = picture_faults(path, image) or tiff_faults(path, image)
    except Exception as error:  # whatever a reader raises, the file is at fault
        return [unreadable(path, error)]
    if bands != channels and not any(fault.severity == "error" for fault in faults):
        text = f"has {bands} channels (mode {mode}), the network takes {channels}"
        faults.append(Fault(path, text, f"convert it to {'grey' if channels == 1 else 'RGB'}"))
    return faults


def header_faults(case: Case, spatial_dims: int, channels: int) -> list[Fault]:
    """List what the headers of a case's image and label have wrong, each alone and both together.

    Args:
        case: the case.
        spatial_dims: 2 or 3, of the data set.
        channels: image channels, of the data set.
    """
    kind = "NIfTI volumes (.nii, .nii.gz)" if spatial_dims == 3 else "2-D images (PNG, JPEG, BMP, TIFF)"
    wrong = [path for path in (case.image, case.label) if is_volume(path) != (spatial_dims == 3)]
    if wrong:
        text = f"spatial_dims is {spatial_dims}: image and label must be {kind}"
        return [Fault(path, text, "convert it, or correct spatial_dims", blocks=True) for path in wrong]
    return _volume_faults(case, channels) if spatial_dims == 3 else _picture_faults(case, channels)


def _picture_faults(case: Case, channels: int) -> list[Fault]:
    faults, sizes = [], []
    for path, is_label in ((case.image, False), (case.label, True)):
        try:
            with open_picture(path) as image:
                faults += picture_faults(path, image, is_label=is_label) or tiff_faults(path, image)
                faults += lossy_label_faults(path, image) if is_label else []
                bands, mode = len(image.getbands()), image.mode
                sizes.append(image.size)
        except Exception as error:  # whatever a reader raises, the file is at fault
            faults.append(unreadable(path, error))
            continue
        if not is_label and bands != channels:
            text = f"has {bands} channels (mode {mode}), dataset.json says {channels}"
            faults.append(Fault(path, text, f"convert it to {'grey' if channels == 1 else 'RGB'}"))
        if is_label and bands != 1:
            text = f"its label has {bands} channels, expected one integer map"
            faults.append(Fault(case.image, text, f"convert {path.name} to grey or indexed"))
    if len(sizes) == 2 and sizes[0] != sizes[1]:
        text = f"is {sizes[0][0]} x {sizes[0][1]} pixels, its label {sizes[1][0]} x {sizes[1][1]}"
        faults.append(Fault(case.image, text, "give the label that was drawn on this image"))
    return faults


def _volume_faults(case: Case, channels: int) -> list[Fault]:
    image, faults = volume_faults(case.image)
    label, label_faults = volume_faults(case.label)
    faults += label_faults
    if channels != 1:
        text = f"is one channel, dataset.json says {channels} channels"
        faults.append(Fault(case.image, text, "volumes have one channel: correct dataset.json"))
    if image is None or label is None or any(fault.blocks for fault in faults):
        return faults
    affines = [np.asarray(volume.affine, dtype=np.float64) for volume in (image, label)]
    if all(has_place(affine) for affine in affines) and _are_turned(image.shape, affines[0], label.shape, affines[1]):
        axes, own = (axes_of(affine) for affine in affines)
        text = f"is stored in the axes {axes}, its label in {own}: the same voxels in another order"
        remedy = "write the label in the image's order of axes (`data_prep folder` does); do not copy the affine"
        faults.append(Fault(case.image, text, remedy))
    elif image.shape != label.shape:
        text = f"has shape {tuple(image.shape)}, its label {tuple(label.shape)}"
        faults.append(Fault(case.image, text, "give the label that was drawn on this image"))
    else:
        faults += _shift_faults(case.image, image.shape, affines)
    return faults


def _are_turned(
    shape: Sequence[int], affine: NDArray[np.float64], other_shape: Sequence[int], other: NDArray[np.float64]
) -> bool:
    """Say whether two grids hold the same voxels in another order or direction of axes."""
    turn, turned, turned_shape = turn_between(affine, other, other_shape)
    same_order = np.array_equal(turn, [[0, 1], [1, 1], [2, 1]])
    voxel = float(np.linalg.norm(affine[:3, :3], axis=0).min())
    return (
        not same_order
        and turned_shape == tuple(shape)
        and corner_distance(affine, turned, shape) < _NOTICEABLE_SHIFT * voxel
    )


def _shift_faults(path: Path, shape: Sequence[int], affines: Sequence[NDArray[np.float64]]) -> list[Fault]:
    """Compare where image and label place the corners of their common grid."""
    if not all(has_place(affine) for affine in affines):
        return []
    moved = corner_distance(affines[0], affines[1], shape)
    voxel = float(np.linalg.norm(affines[0][:3, :3], axis=0).min())
    if moved < _NOTICEABLE_SHIFT * voxel:
        return []
    text = f"image and label are placed {moved:.3g} mm apart by their affines"
    severity: Literal["error", "warning"] = "warning" if moved < _MAX_SHIFT * voxel else "error"
    return [Fault(path, text, "make them agree: copy the image's affine to the label if they show the same", severity)]
