"""A label predicted on a volume lies on that volume, whatever its axes, rotation, spacing and file.

The whole inference of the shipped configuration runs, with a network that marks bright pixels in place of the trained
one. So it is known for each voxel of the image what its label has to be.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from nibabel.orientations import axcodes2ornt, ornt_transform
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from data_prep.dicom.convert import convert_dicom
from mixstyleflow_monai.artifacts import save_tensors, write_manifest

CONFIG = Path(__file__).resolve().parents[2] / "bundles/phase3_mixstyleflow_segmentation/configs/inference.json"
AXES = ["".join(c) for order in itertools.permutations(("LR", "PA", "SI")) for c in itertools.product(*order)]
BRIGHT = 1000.0
REAL = {
    "axes PSR": ("cord_t2_psr/image.nii.gz", 90.0),
    "axes LAS": ("cord_t2star_las/image.nii.gz", 100.0),
    "big-endian": ("odd/anatomical_big_endian.nii", 8000.0),
    "spleen CT": ("spleen_ct/image.nii.gz", -300.0),
    "Decathlon mask": ("odd/decathlon_prostate_mask.nii.gz", 0.5),
    "DICOM": ("prostate_t2_dicom", 250.0),
}


class Brighter(torch.nn.Module):
    """Mark the pixels above one half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return torch.where(images > 0.5, 10.0, -10.0)


def predict(
    images: Sequence[Path],
    folder: Path,
    image_size: Sequence[int],
    *,
    window: Sequence[float] = (0.0, BRIGHT),
    pixel_spacing: Sequence[float] | None = None,
) -> list[nib.Nifti1Image]:
    """Run the configuration on the images and return the label maps it wrote.

    Args:
        images: files of one folder.
        folder: for the label maps.
        image_size: of the network's input.
        window: what the network marks lies above its middle.
        pixel_spacing: of the network's input, or None for resizing.
    """
    parser = ConfigParser()
    parser.read_config(str(CONFIG))
    task = {
        "in_channels": 1,
        "regions": {"bright": [1]},
        "image_size": list(image_size),
        "spatial_dims": 3,
        "pixel_spacing": pixel_spacing,
        "percentiles": None,
        "intensity": list(window),
    }
    settings: dict[str, Any] = {
        "untrained_task": task,
        "ckpt_path": str(_weights(folder / "model" / "model.pt", task)),
        "prediction_dir": str(folder),
        "input": [str(path) for path in images],
        "network": Brighter(),
        "device": torch.device("cpu"),
        "handlers": [],
    }
    for name, value in settings.items():
        parser[name] = value
    parser.parse()
    parser.get_parsed_content("evaluator").run()
    names = [f"{path.name.split('.')[0]}_seg.nii.gz" for path in images]
    return [nib.Nifti1Image.from_filename(folder / name) for name in names]


def _weights(path: Path, task: dict[str, Any]) -> Path:
    """Write a model of the task, which the configuration looks for; the network that marks bright pixels has none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, {})
    write_manifest(path, "segmentation_network", facts={"task": task})
    return path


def write(
    path: Path, shape: Sequence[int], marked: NDArray[np.bool_], affine: NDArray[np.float64], axes: str | None = None
) -> nib.Nifti1Image:
    """Write dark noise with bright voxels; ``axes`` reorders a volume that is near LPS."""
    values = np.random.default_rng(0).uniform(0, 0.3 * BRIGHT, tuple(shape)).astype(np.float32)
    values[marked] = BRIGHT
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    if axes is not None:
        image = image.as_reoriented(ornt_transform(axcodes2ornt(("L", "P", "S")), axcodes2ornt(tuple(axes))))
    nib.save(image, path)
    return nib.Nifti1Image.from_filename(path)


def assert_same_grid(label: nib.Nifti1Image, image: nib.Nifti1Image) -> None:
    """Compare shape, axes and both forms of the affine."""
    assert label.shape == image.shape
    assert nib.aff2axcodes(label.affine) == nib.aff2axcodes(image.affine)
    for found in (label.affine, label.get_sform(), label.get_qform()):
        # Rounded to the 32 bits of a NIfTI header, some digits of the offset are lost.
        np.testing.assert_allclose(found, image.affine, atol=2e-4)


def random_affine(rng: np.random.Generator, rotation: NDArray[np.float64], axes: str) -> NDArray[np.float64]:
    """Return a right-handed or left-handed grid of random spacing and offset, rotated away from the axes."""
    affine = np.eye(4)
    signs = [1 if code in "RAS" else -1 for code in axes]
    affine[:3, :3] = rotation @ np.diag(signs * rng.uniform(0.3, 5.0, 3))
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    return affine


def spots(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return single voxels and a bar that no flip and no exchange of axes maps onto themselves."""
    marked = np.zeros(shape, dtype=bool)
    marked[1, 2, 0] = marked[-2, 3, 1] = marked[4, -1, 2] = True
    marked[5:9, 6, 3] = True
    return marked


# --- property tests


def test_all_axis_codes_are_tried() -> None:
    assert len(set(AXES)) == 48


@pytest.mark.parametrize("tilted", [False, True], ids=["straight", "oblique"])
def test_every_voxel_comes_back_in_every_order_of_axes(tilted: bool, tmp_path: Path) -> None:
    shape = (32, 16, 5)  # in LPS, where the network sees the first two axes: they are not resized, so all is exact
    images, masks = [], []
    for seed, axes in enumerate(AXES):
        rng = np.random.default_rng(seed)
        angles = rng.uniform(-20, 20, 3) if tilted else np.zeros(3)
        affine = random_affine(rng, Rotation.from_euler("xyz", angles, degrees=True).as_matrix(), "LPS")
        images.append(write(tmp_path / f"{axes}.nii.gz", shape, spots(shape), affine, axes))
        masks.append(np.asarray(images[-1].dataobj) == BRIGHT)
    paths = [tmp_path / f"{axes}.nii.gz" for axes in AXES]
    for axes, image, mask, label in zip(AXES, images, masks, predict(paths, tmp_path / "out", shape[:2]), strict=True):
        assert nib.aff2axcodes(label.affine) == tuple(axes)
        assert_same_grid(label, image)
        np.testing.assert_array_equal(np.asarray(label.dataobj), mask, err_msg=axes)


def test_every_voxel_comes_back_at_any_rotation(tmp_path: Path) -> None:
    shape = (16, 16, 16)  # equal, because it depends on the rotation which axes the network sees
    images = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rotation = Rotation.random(rng=rng).as_matrix()
        # In reach of any rotation: mirrored grids as well.
        affine = random_affine(rng, rotation, "RAS" if seed % 2 else "LAS")
        images.append(write(tmp_path / f"{seed}.nii.gz", shape, spots(shape), affine))
    paths = [tmp_path / f"{seed}.nii.gz" for seed in range(40)]
    assert len({nib.aff2axcodes(image.affine) for image in images}) > 20
    for image, label in zip(images, predict(paths, tmp_path / "out", shape[:2]), strict=True):
        assert_same_grid(label, image)
        np.testing.assert_array_equal(np.asarray(label.dataobj), spots(shape))


@pytest.mark.parametrize("pixel_spacing", [None, (0.8, 0.7)], ids=["resized", "resampled"])
def test_a_marked_block_comes_back_where_it_was_after_resampling(
    pixel_spacing: tuple[float, float] | None, tmp_path: Path
) -> None:
    block = np.zeros((26, 22, 24), dtype=bool)
    block[4:11, 12:18, 5:14] = True
    images = []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        rotation = Rotation.random(rng=rng).as_matrix()
        affine = random_affine(rng, rotation, "RAS" if seed % 2 else "LAS")
        affine[:3, :3] *= rng.uniform(0.8, 1.4, 3) / np.linalg.norm(affine[:3, :3], axis=0)
        images.append(write(tmp_path / f"{seed}.nii.gz", block.shape, block, affine))
    paths = [tmp_path / f"{seed}.nii.gz" for seed in range(16)]
    for image, label in zip(
        images, predict(paths, tmp_path / "out", (64, 80), pixel_spacing=pixel_spacing), strict=True
    ):
        assert_same_grid(label, image)
        found = np.asarray(label.dataobj) > 0
        assert found[7, 14, 9]
        # A shift by a voxel, a flip or an exchange of axes would move the centre.
        np.testing.assert_allclose(np.argwhere(found).mean(axis=0), np.argwhere(block).mean(axis=0), atol=0.35)
        assert 2 * (found & block).sum() / (found.sum() + block.sum()) > 0.85


def test_a_volume_whose_header_has_one_form_only_keeps_its_place(tmp_path: Path) -> None:
    shape = (32, 16, 5)
    affine = random_affine(np.random.default_rng(0), Rotation.from_euler("x", 15, degrees=True).as_matrix(), "LPS")
    paths = []
    for form in ("sform", "qform"):
        image = write(tmp_path / f"{form}.nii", shape, spots(shape), affine)
        other = {"sform": image.set_qform, "qform": image.set_sform}[form]
        other(None, code=0)
        paths.append(tmp_path / f"{form}_only.nii.gz")
        nib.save(image, paths[-1])
    for path, label in zip(paths, predict(paths, tmp_path / "out", shape[:2]), strict=True):
        assert_same_grid(label, nib.Nifti1Image.from_filename(path))
        np.testing.assert_array_equal(np.asarray(label.dataobj), spots(shape))


# --- real files


@pytest.mark.shared_data
@pytest.mark.parametrize("scale", [1.0, 0.8], ids=["resized", "resampled"])
@pytest.mark.parametrize(("name", "level"), REAL.values(), ids=REAL.keys())
def test_a_label_predicted_on_a_real_volume_lies_on_it(
    name: str, level: float, scale: float, shared_data: Path, tmp_path: Path
) -> None:
    path = shared_data / "volumes" / name
    if path.is_dir():
        (path,) = (convert_dicom(path, tmp_path / "converted") / "images").iterdir()
    image = nib.Nifti1Image.from_filename(path)
    values = image.get_fdata()
    lps = nib.as_closest_canonical(image)
    size = [(n + 31) // 16 * 16 for n in lps.shape[:2]]
    spacing = None if scale == 1.0 else [scale * float(s) for s in nib.affines.voxel_sizes(lps.affine)[:2]]
    if spacing is not None:
        size = [(int(n / scale) + 31) // 16 * 16 for n in lps.shape[:2]]
    low = float(values.min())
    (label,) = predict([path], tmp_path / "out", size, window=(low, 2 * level - low), pixel_spacing=spacing)
    assert_same_grid(label, image)
    found, expected = np.asarray(label.dataobj) > 0, values > level

    def dice(a: NDArray[np.bool_]) -> float:
        return float(2 * (a & expected).sum() / (a.sum() + expected.sum()))

    assert dice(found) > 0.9
    assert max(dice(np.flip(found, axis)) for axis in range(3)) < dice(found) - 0.02
