"""Checks of all cases that need only the files' headers, so that they can come before any training.

A mistake in an unseen domain would otherwise show up after hours, in the evaluation.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from mixstyleflow_monai.data.dataset_description import Case, DatasetDescription
from mixstyleflow_monai.data.schema_checks import raise_problems

VOLUME_SUFFIXES = (".nii", ".nii.gz")


def check_headers(description: DatasetDescription) -> DatasetDescription:
    """Return the data set if every image and label have the size, channels and position they should have.

    Raises:
        ValueError: lists the cases that do not, with what was found.
    """
    problems = []
    for case in description.cases:
        try:
            problem = _problem(case, description)
        except Exception as error:  # whatever a reader raises, the file is at fault
            problem = f"cannot be read ({error}); restore the file"
        if problem:
            problems.append(f"case {case.id}, {case.image}: {problem}")
    raise_problems(description.path, problems)
    return description


def _problem(case: Case, description: DatasetDescription) -> str | None:
    if _is_volume(case.image) != (description.spatial_dims == 3) or _is_volume(case.label) != _is_volume(case.image):
        kind = "NIfTI volumes" if description.spatial_dims == 3 else "2-D images (PNG, JPEG, BMP, TIFF)"
        return f"spatial_dims is {description.spatial_dims}: image and label must be {kind}"
    return _volume_problem(case, description) if description.spatial_dims == 3 else _image_problem(case, description)


def _is_volume(path: Path) -> bool:
    return path.name.lower().endswith(VOLUME_SUFFIXES)


def _image_problem(case: Case, description: DatasetDescription) -> str | None:
    with Image.open(case.image) as image, Image.open(case.label) as label:
        if image.size != label.size:
            return f"is {image.size[0]} x {image.size[1]} pixels, its label {label.size[0]} x {label.size[1]}"
        channels = len(image.getbands())
        if channels != description.channels:
            return f"has {channels} channels (mode {image.mode}), dataset.json says {description.channels}; convert it"
        if len(label.getbands()) != 1:
            return f"its label has {len(label.getbands())} channels, expected one integer map; convert it"
    return None


def _volume_problem(case: Case, description: DatasetDescription) -> str | None:
    image, label = nib.load(case.image), nib.load(case.label)
    shapes = [tuple(volume.shape) for volume in (image, label)]  # type: ignore[attr-defined]
    if len(shapes[0]) != 3 or description.channels != 1:
        return f"has shape {shapes[0]} and dataset.json says {description.channels} channels; give 3-D volumes of one"
    if shapes[0] != shapes[1]:
        return f"has shape {shapes[0]}, its label {shapes[1]}"
    affines = [np.asarray(volume.affine) for volume in (image, label)]  # type: ignore[attr-defined]
    corners = np.array(
        [[x, y, z, 1.0] for x in (0, shapes[0][0]) for y in (0, shapes[0][1]) for z in (0, shapes[0][2])]
    )
    moved = float(np.linalg.norm((corners @ (affines[0] - affines[1]).T)[:, :3], axis=1).max())
    voxel = float(np.linalg.norm(affines[0][:3, :3], axis=0).min())
    if not moved < 0.5 * voxel:
        return f"image and label are placed {moved:.3g} mm apart by their affines; make them agree"
    return None
