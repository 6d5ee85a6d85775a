"""Where voxels lie: reordered axes, distances, and the part of a volume that the network sees."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mixstyleflow_monai.data.grids import axes_of, corner_distance, network_field, turn_between
from mixstyleflow_monai.data.transforms import InPlaneGeometryd

AXES = ["".join(c) for order in itertools.permutations(("LR", "PA", "SI")) for c in itertools.product(*order)]


def oblique(seed: int) -> NDArray[np.float64]:
    """Return a RAS grid of random spacing and offset, rotated a little."""
    generator = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", generator.uniform(-20, 20, 3), degrees=True).as_matrix()
    affine[:3, :3] = affine[:3, :3] @ np.diag(generator.uniform(0.5, 3.0, 3))
    affine[:3, 3] = generator.uniform(-100, 100, 3)
    return affine


def reordered(image: nib.Nifti1Image, axes: str) -> nib.Nifti1Image:
    return image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(tuple(axes))))


@pytest.mark.parametrize("axes", AXES)
def test_a_volume_in_any_order_of_axes_is_turned_onto_another(axes: str) -> None:
    seed = AXES.index(axes)
    values = np.random.default_rng(seed).integers(0, 99, (5, 6, 7))
    image = nib.Nifti1Image(values.astype(np.int16), oblique(seed))
    one, other = reordered(image, AXES[-1 - seed]), reordered(image, axes)
    turn, affine, shape = turn_between(one.affine, other.affine, other.shape)
    assert shape == one.shape
    assert corner_distance(one.affine, affine, shape) < 1e-6
    np.testing.assert_array_equal(apply_orientation(np.asarray(other.dataobj), turn), np.asarray(one.dataobj))
    assert axes_of(other.affine) == axes


def test_the_distance_is_that_of_the_farthest_corner() -> None:
    affine, shape = np.diag([2.0, 3.0, 4.0, 1.0]), (5, 6, 7)
    assert corner_distance(affine, affine + np.eye(4, k=3) * 0.5, shape) == pytest.approx(0.5)
    assert corner_distance(affine, np.diag([2.0, 3.0, 4.5, 1.0]), shape) == pytest.approx(0.5 * 7)


@pytest.mark.parametrize("axes", AXES[::3])
@pytest.mark.parametrize("seed", range(3))
def test_the_field_is_what_the_preprocessing_keeps_to_within_a_voxel(axes: str, seed: int) -> None:
    """Reference: the indices of the voxels are an image themselves, and those that come out are the ones seen."""
    generator = np.random.default_rng([seed, AXES.index(axes)])
    plain = nib.Nifti1Image(
        np.zeros(generator.integers(20, 60, 3), np.int16), np.diag([*generator.uniform(0.4, 2, 3), 1])
    )
    image = reordered(plain, axes)
    size, spacing = (32, 16), generator.uniform(0.5, 1.5, 2)
    field = network_field(image.shape, image.affine, size, spacing)
    indices = np.stack(np.meshgrid(*map(np.arange, image.shape), indexing="ij")).astype(np.float32) + 1
    tensor = MetaTensor(torch.from_numpy(indices), affine=torch.from_numpy(image.affine))
    kept = InPlaneGeometryd(["label"], size, spacing)({"label": tensor})["label"].numpy()
    for axis in range(3):
        seen = kept[axis][kept.min(0) > 0] - 1
        assert abs(seen.min() - field[axis].start) <= 1
        assert abs(seen.max() + 1 - field[axis].stop) <= 1


def test_nothing_is_lost_of_small_volumes_or_where_slices_are_resized() -> None:
    affine = np.diag([-0.5, 0.5, 3.0, 1.0])
    whole = (slice(0, 40), slice(0, 50), slice(0, 9))
    assert network_field((40, 50, 9), affine, (224, 224), (0.625, 0.625)) == whole
    assert network_field((40, 50, 9), affine, (16, 16), None) == whole
    assert network_field((40, 50, 9), affine, (16, 16), (0.5, 0.5)) == (slice(12, 28), slice(17, 33), slice(0, 9))
