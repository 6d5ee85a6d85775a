"""One volume of the prostate releases with its label: checked, and written in the form of a data set."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing
from numpy.typing import NDArray

from data_prep.image_files import UnusableCase, array_hash, number
from data_prep.volume_files import label_on_grid, open_volume, volume_values
from mixstyleflow_monai.artifacts import sha256_file

LABEL_VALUES = (0, 1, 2)
MAX_RESAMPLED_VOXELS = 2**28
"""Of one volume, which takes 1 GiB as float32; 400 x 400 x 200 mm at 0.625 x 0.625 x 3.6 mm are below 2**25."""
_MAX_NIFTI_SIDE = 32767


@dataclass(frozen=True)
class ReleaseCase:
    """A volume of a release and the label that belongs to it.

    Attributes:
        domain: domain that it becomes.
        name: unique in the domain.
        image: its file.
        label: the label's file, which need not exist.
        shown: the image's path in the release, for reports.
        channels: names of the channels of a 4-D image, or None for a 3-D one.
        channel: which of them is taken.
    """

    domain: str
    name: str
    image: Path
    label: Path
    shown: str
    channels: tuple[str, ...] | None = None
    channel: int = 0

    @property
    def id(self) -> str:
        return f"{self.domain}_{self.name}"


@dataclass(frozen=True)
class TakenCase:
    """A case that was written.

    Attributes:
        case: where it came from.
        entry: its entry of ``dataset.json``, all but the split.
        pixels: hash of the voxels as released.
        share: part of the label's voxels that is prostate, 0-1.
        clipped: whether the first and the last slice hold prostate, as where all other slices were cut off.
    """

    case: ReleaseCase
    entry: dict[str, Any]
    pixels: str
    share: float
    clipped: bool


def take_case(case: ReleaseCase, folder: Path, spacing: Sequence[float] | None = None) -> TakenCase:
    """Check a case and write its image and its label below ``folder``.

    A 3-D image and its label are copied byte for byte. Of a 4-D image one channel is written, with the affine, the data
    type and the values that it has there. Labels keep their values 0, 1 and 2.

    Args:
        case: the case to take.
        folder: root of the new data set.
        spacing: mm along left-right, front-back and head-foot of the patient to resample to, linearly for images and
            by the nearest neighbour for labels; each array axis gets the size of the direction that it is nearest to,
            and order and directions of the array axes stay. None to keep the released grid.

    Raises:
        UnusableCase: the case is to be left out; the text is the reason.
    """
    for kind, path in (("image", case.image), ("label", case.label)):
        if not os.path.isfile(path):  # unlike Path.is_file, False also for a folder that may not be entered
            raise UnusableCase(f"no {kind} {path.parent.name}/{path.name}", "restore it from the release")
    volume, values = _read_image(case)
    found = open_volume(case.label)
    label = volume_values(found, case.label)
    _check_label(label)
    affine = np.asarray(volume.affine, dtype=np.float64)
    label, exact = label_on_grid(label, found.affine, affine, values.shape)
    sizes = None if spacing is None else array_spacing(affine, spacing)
    if sizes is not None:
        _check_size(values.shape, affine, sizes)
    outputs = _outputs(case, folder, resampled=sizes is not None)
    if sizes is not None:
        written = _write_resampled(values, label, affine, sizes, outputs)
    else:
        written = affine
        if case.channels is None:
            shutil.copyfile(case.image, outputs[0])
        else:
            nib.save(_channel(volume, case.channel), outputs[0])
        if exact:
            shutil.copyfile(case.label, outputs[1])
        else:
            _save(label.astype(np.uint8), affine, outputs[1])
    entry = {
        "id": case.id,
        "domain": case.domain,
        "group": case.name,
        "split": "",
        "image": outputs[0].relative_to(folder).as_posix(),
        "label": outputs[1].relative_to(folder).as_posix(),
        "sha256": {"image": sha256_file(outputs[0]), "label": sha256_file(outputs[1])},
        "spacing": [round(float(size), 6) for size in nib.affines.voxel_sizes(written)],
    }
    clipped = bool(label[..., 0].any() and label[..., -1].any())
    return TakenCase(case, entry, array_hash(values, axis=2), float((label > 0).mean()), clipped)


def hash_of_image(case: ReleaseCase) -> str | None:
    """Return the hash of a case's voxels as `take_case` has it, without writing anything; None if it is unusable."""
    try:
        return array_hash(_read_image(case)[1], axis=2) if os.path.isfile(case.image) else None
    except UnusableCase:
        return None


def _read_image(case: ReleaseCase) -> tuple[nib.Nifti1Image, NDArray[Any]]:
    """Return the volume as it is stored and the 3-D values of the channel that is taken."""
    if case.channels is None:
        volume = open_volume(case.image)
        values = volume_values(volume, case.image)
    else:
        volume = open_volume(case.image, dimensions=4)
        listed = len(case.channels)
        if volume.shape[3] != listed:
            found = f"{case.image.name} has {volume.shape[3]} channel(s)"
            names = ", ".join(case.channels)
            raise UnusableCase(f"{found}, dataset.json says {listed} ({names})", "give the file as released")
        values = volume_values(volume, case.image)[..., case.channel]
    if not np.isfinite(values).all():
        remedy = "replace them, for example by the value of the background"
        raise UnusableCase(f"{case.image.name} has voxels that are NaN or infinite", remedy)
    return volume, values


def _check_label(label: NDArray[Any]) -> None:
    """Refuse other values than 0, 1 and 2, and labels without prostate."""
    found = np.unique(label)
    if not np.isin(found, LABEL_VALUES).all():
        shown = ", ".join(map(number, found[:8].tolist())) + (", ..." if len(found) > 8 else "")
        raise UnusableCase(f"label has values {shown}, allowed: 0, 1, 2", "restore the label from the release")
    if not found.any():
        raise UnusableCase("label has no prostate voxel", "restore the label from the release")


def _outputs(case: ReleaseCase, folder: Path, *, resampled: bool) -> tuple[Path, Path]:
    """Return the paths to write; a file that is copied keeps its suffix."""
    paths = []
    for kind, path in (("images", case.image), ("labels", case.label)):
        plain = not resampled and path.name.lower().endswith(".nii") and case.channels is None
        paths.append(folder / kind / case.domain / f"{case.name}{'.nii' if plain else '.nii.gz'}")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
    return paths[0], paths[1]


def _channel(volume: nib.Nifti1Image, channel: int) -> nib.Nifti1Image:
    """Return one channel with the stored numbers, their type, and the header's scale factors and affine."""
    stored: Any = volume.dataobj
    image = nib.Nifti1Image(stored.get_unscaled()[..., channel], volume.affine, volume.header)
    if (stored.slope, stored.inter) != (1.0, 0.0):
        # Only after the image is made: nibabel clears the factors of a header that it is given.
        image.header.set_slope_inter(stored.slope, stored.inter)
    return image


def array_spacing(affine: NDArray[np.float64], spacing: Sequence[float]) -> tuple[float, ...]:
    """Order sizes along left-right, front-back and head-foot by the array axes that lie nearest to these.

    Args:
        affine: (4, 4), invertible, of any orientation.
        spacing: mm along left-right, front-back, head-foot.

    Returns:
        mm along the three array axes.
    """
    return tuple(float(spacing[int(world)]) for world in nib.io_orientation(affine)[:, 0])


def _check_size(shape: tuple[int, ...], affine: NDArray[np.float64], sizes: Sequence[float]) -> None:
    """Refuse a grid that no memory and no NIfTI header would hold."""
    extent = np.array(shape) * nib.affines.voxel_sizes(affine)
    wanted = np.ceil(extent / np.array(sizes))
    if wanted.prod() > MAX_RESAMPLED_VOXELS or wanted.max() > _MAX_NIFTI_SIDE:
        grid = " x ".join(f"{side:.0f}" for side in wanted)
        reason = f"resampled to {' x '.join(f'{size:g}' for size in sizes)} mm it would have {grid} voxels"
        raise UnusableCase(f"{reason}, allowed: {MAX_RESAMPLED_VOXELS:,} in all", "give a larger --spacing")


def _write_resampled(
    values: NDArray[Any],
    label: NDArray[Any],
    affine: NDArray[np.float64],
    spacing: Sequence[float],
    outputs: tuple[Path, Path],
) -> NDArray[np.float64]:
    """Write image (float32) and label (uint8) on the new grid and return its affine."""
    written = affine
    for path, array, mode, dtype in zip(
        outputs, (values, label), ("bilinear", "nearest"), (np.float32, np.uint8), strict=True
    ):
        tensor = MetaTensor(torch.from_numpy(array.astype(np.float32))[None], affine=torch.from_numpy(affine))
        result: Any = Spacing(pixdim=tuple(spacing), mode=mode)(tensor)
        written = result.affine.numpy().astype(np.float64)
        _save(result[0].numpy().astype(dtype), written, path)
    return written


def _save(values: NDArray[Any], affine: NDArray[np.float64], path: Path) -> None:
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
