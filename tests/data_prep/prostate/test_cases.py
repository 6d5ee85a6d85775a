"""One volume with its label: what is written, and what is left out with which reason."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from data_prep.image_files import UnusableCase
from data_prep.prostate.cases import ReleaseCase, array_spacing, take_case
from tests.data_prep.prostate.prostate_releases import AFFINE, SHAPE, label_of, save


def test_a_volume_of_a_site_is_copied_byte_for_byte(flat: ReleaseCase, tmp_path: Path) -> None:
    taken = take_case(flat, tmp_path / "out")
    for key, source in (("image", flat.image), ("label", flat.label)):
        assert (tmp_path / "out" / taken.entry[key]).read_bytes() == source.read_bytes()
    assert taken.entry["id"] == "HK_Case38"
    np.testing.assert_allclose(taken.entry["spacing"], nib.affines.voxel_sizes(AFFINE), atol=1e-6)
    assert taken.share == pytest.approx((label_of(1) > 0).mean())


@pytest.mark.parametrize("channel", [0, 1])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<i2", ">i2", "<u2", "u1", "<f8", "scaled"])
def test_a_channel_keeps_values_type_and_affine(dtype: str, channel: int, deep: ReleaseCase, tmp_path: Path) -> None:
    stored = np.random.default_rng(1).integers(0, 200, (*SHAPE, 2))
    image = nib.Nifti1Image(stored.astype("<i2" if dtype == "scaled" else dtype), AFFINE)
    if dtype == "scaled":
        image.header.set_slope_inter(0.25, -3.0)
    elif dtype.startswith(">"):
        image = nib.Nifti1Image(stored.astype(dtype), AFFINE, nib.Nifti1Header(endianness=">"))
        image.set_data_dtype(dtype)
    nib.save(image, deep.image)
    found = nib.load(deep.image)
    taken = take_case(replace(deep, channel=channel), tmp_path / "out")
    written = nib.load(tmp_path / "out" / taken.entry["image"])
    assert written.shape == SHAPE
    assert written.get_data_dtype() == found.get_data_dtype()
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(found.dataobj)[..., channel])
    np.testing.assert_array_equal(written.affine, found.affine)
    np.testing.assert_array_equal(written.dataobj.get_unscaled(), stored[..., channel])
    assert (tmp_path / "out" / taken.entry["label"]).read_bytes() == deep.label.read_bytes()


def random_affine(seed: int) -> NDArray[np.float64]:
    """Return any orientation: axes permuted and flipped, rotated a little, with any spacing and origin."""
    generator = np.random.default_rng(seed)
    axes = np.eye(3)[generator.permutation(3)] * generator.choice([-1, 1], 3)
    tilt, _ = np.linalg.qr(np.eye(3) + 0.2 * generator.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = tilt @ axes @ np.diag(generator.uniform([0.4, 0.4, 2.5], [1.2, 1.2, 5.0]))
    affine[:3, 3] = generator.uniform(-100, 100, 3)
    return affine.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("seed", range(8))
def test_resampling_agrees_with_interpolation_at_the_same_points(seed: int, deep: ReleaseCase, tmp_path: Path) -> None:
    """Reference: scipy at the millimetre positions of the written voxels, inside the released volume."""
    affine, spacing = random_affine(seed), [0.625, 0.7, 3.6]
    values = np.random.default_rng(seed).uniform(0, 100, (*SHAPE, 2)).astype(np.float32)
    save(deep.image, values, affine)
    save(deep.label, label_of(2), affine)
    taken = take_case(deep, tmp_path / "out", spacing)
    image, label = (nib.load(tmp_path / "out" / taken.entry[key]) for key in ("image", "label"))
    canonical = nib.affines.voxel_sizes(nib.as_closest_canonical(image).affine)
    np.testing.assert_allclose(canonical, spacing, atol=1e-5)
    np.testing.assert_allclose(nib.affines.voxel_sizes(image.affine), taken.entry["spacing"], atol=1e-5)
    np.testing.assert_array_equal(image.affine, label.affine)
    assert (image.shape, image.get_data_dtype(), label.get_data_dtype()) == (label.shape, np.float32, np.uint8)
    grid = np.stack(np.meshgrid(*map(np.arange, image.shape), indexing="ij"), -1)
    points = nib.affines.apply_affine(np.linalg.inv(affine) @ image.affine, grid)
    inside = np.all((points >= 0) & (points <= np.array(SHAPE) - 1), axis=-1)
    assert inside.mean() > 0.4
    expected = map_coordinates(values[..., 0].astype(float), points[inside].T, order=1)
    np.testing.assert_allclose(np.asarray(image.dataobj)[inside], expected, atol=2e-3)
    clear = inside & (np.abs(points - np.floor(points) - 0.5).min(axis=-1) > 1e-3)
    nearest = label_of(2)[tuple(np.rint(points[clear]).astype(int).T)]
    np.testing.assert_array_equal(np.asarray(label.dataobj)[clear], nearest)


@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_sizes_follow_the_axes_of_the_patient_in_all_orientations(
    order: tuple[int, ...], flips: tuple[int, ...], flat: ReleaseCase, tmp_path: Path
) -> None:
    """Array axis ``a`` of the file runs along the patient's axis ``order[a]`` (left-right, front-back, head-foot)."""
    spacing, stored, extent = (0.6, 0.8, 3.6), np.array([0.5, 0.5, 4.0]), np.array([12, 10, 6])
    shape = tuple(int(extent[world]) for world in order)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(zip(order, flips, strict=True)):
        affine[world, axis] = sign * stored[world]
    label = np.zeros(shape, np.uint8)
    label[2:-2, 2:-2, 2:-2] = 1
    save(flat.image, np.random.default_rng(0).integers(0, 900, shape).astype(np.int16), affine)
    save(flat.label, label, affine)
    taken = take_case(flat, tmp_path / "out", spacing)
    assert taken.entry["spacing"] == pytest.approx([spacing[world] for world in order], abs=1e-5)
    for key in ("image", "label"):
        written = nib.load(tmp_path / "out" / taken.entry[key])
        expected = affine[:3, :3] / stored[list(order)] * np.array(spacing)[list(order)]
        np.testing.assert_allclose(written.affine[:3, :3], expected, atol=1e-5)
        sides = extent[list(order)] * stored[list(order)]
        np.testing.assert_allclose(np.array(written.shape) * taken.entry["spacing"], sides, atol=4)
        assert written.shape[order.index(2)] in (6, 7)


def test_coronal_slices_are_resampled_along_the_patients_axes(flat: ReleaseCase, tmp_path: Path) -> None:
    """Stored P, S, R, 0.5 x 4 x 0.5 mm: head-foot is the second axis of the array."""
    affine = np.array([[0, 0, 0.5, 0], [-0.5, 0, 0, 0], [0, 4.0, 0, 0], [0, 0, 0, 1.0]])
    label = np.zeros((20, 6, 24), np.uint8)
    label[4:12, 2:4, 4:12] = 1
    save(flat.image, np.ones(label.shape, np.int16), affine)
    save(flat.label, label, affine)
    taken = take_case(flat, tmp_path / "out", (0.625, 0.625, 3.6))
    written = nib.load(tmp_path / "out" / taken.entry["image"])
    assert nib.aff2axcodes(written.affine) == ("P", "S", "R")
    assert taken.entry["spacing"] == [0.625, 3.6, 0.625]
    assert array_spacing(affine, (1, 2, 3)) == (2, 3, 1)


def test_a_grid_that_no_memory_holds_is_refused_before_it_is_made(flat: ReleaseCase, tmp_path: Path) -> None:
    save(flat.image, np.ones(SHAPE, np.int16), np.diag([20.0, 20.0, 20.0, 1.0]))
    save(flat.label, label_of(1), np.diag([20.0, 20.0, 20.0, 1.0]))
    with pytest.raises(UnusableCase, match=r"it would have 4800 x 4000 x 1600 voxels, allowed: 268,435,456") as caught:
        take_case(flat, tmp_path / "out", (0.05, 0.05, 0.05))
    assert "--spacing" in caught.value.remedy
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("dtype", "slope", "inter"), [("<f4", 1, 0), (">i2", 1, 0), ("<i2", 0.5, -4), ("<f8", 1, 0)])
def test_equal_voxels_have_one_hash_however_they_are_stored(
    dtype: str, slope: float, inter: float, flat: ReleaseCase, tmp_path: Path
) -> None:
    values = np.random.default_rng(5).integers(0, 900, SHAPE)
    save(flat.image, values.astype(np.int16))
    expected = take_case(flat, tmp_path / "a").pixels
    image = nib.Nifti1Image(((values - inter) / slope).astype(dtype), AFFINE, nib.Nifti1Header(endianness=dtype[0]))
    image.set_data_dtype(dtype)
    if (slope, inter) != (1, 0):
        image.header.set_slope_inter(slope, inter)
    nib.save(image, flat.image)
    np.testing.assert_array_equal(np.asarray(nib.load(flat.image).dataobj), values)
    assert take_case(flat, tmp_path / "b").pixels == expected
    values[0, 0, 0] += 1
    save(flat.image, values.astype(np.float32))
    assert take_case(flat, tmp_path / "c").pixels != expected


def test_a_label_on_the_same_grid_up_to_rounding_is_written_on_the_images_grid(
    flat: ReleaseCase, tmp_path: Path
) -> None:
    affine = AFFINE.copy()
    affine[0, 3] += 0.03
    save(flat.label, label_of(2).astype(np.float64), affine)
    taken = take_case(flat, tmp_path / "out")
    image, label = (nib.load(tmp_path / "out" / taken.entry[key]) for key in ("image", "label"))
    np.testing.assert_allclose(label.affine, image.affine, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(label.dataobj), label_of(2))


def test_plain_nifti_keeps_its_suffix(flat: ReleaseCase, tmp_path: Path) -> None:
    case = replace(flat, image=tmp_path / "Case38.nii")
    save(case.image, np.ones(SHAPE, np.int16))
    taken = take_case(case, tmp_path / "out")
    assert taken.entry["image"].endswith("Case38.nii")
    assert take_case(case, tmp_path / "again", [1.0, 1.0, 4.0]).entry["image"].endswith("Case38.nii.gz")


def test_a_missing_label_is_told(flat: ReleaseCase, tmp_path: Path) -> None:
    flat.label.unlink()
    with pytest.raises(UnusableCase, match=r"^no label [^/]*/Case38_segmentation\.nii\.gz$"):
        take_case(flat, tmp_path / "out")


def test_a_fault_in_the_channel_that_is_not_taken_does_not_matter(deep: ReleaseCase, tmp_path: Path) -> None:
    values = np.ones((*SHAPE, 2), np.float32)
    values[..., 1] = np.nan
    save(deep.image, values)
    assert take_case(deep, tmp_path / "out").entry["id"] == "decathlon_Case38"


def test_the_published_mask_is_kept_as_it_is(shared_data: Path, deep: ReleaseCase, tmp_path: Path) -> None:
    mask = shared_data / "volumes" / "odd" / "decathlon_prostate_mask.nii.gz"
    found = nib.load(mask)
    save(deep.image, np.zeros((*found.shape, 2), np.float32), found.affine)
    taken = take_case(replace(deep, label=mask), tmp_path / "out")
    written = nib.load(tmp_path / "out" / taken.entry["label"])
    np.testing.assert_array_equal(written.affine, found.affine)
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(found.dataobj))
    assert taken.entry["spacing"] == pytest.approx([0.6, 0.6, 4.0], abs=1e-5)
    assert 0.005 < taken.share < 0.1


def test_a_real_4d_volume_gives_its_channels(shared_data: Path, deep: ReleaseCase, tmp_path: Path) -> None:
    image = shared_data / "volumes" / "odd" / "four_dimensional.nii.gz"
    found = nib.load(image)
    save(deep.label, label_of(1, found.shape[:3]), found.affine)
    taken = take_case(replace(deep, image=image, channel=1), tmp_path / "out")
    written = nib.load(tmp_path / "out" / taken.entry["image"])
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(found.dataobj)[..., 1])
    assert written.get_data_dtype() == found.get_data_dtype() == np.int16
    np.testing.assert_array_equal(written.affine, found.affine)
    assert written.header["sform_code"] == found.header["sform_code"]
