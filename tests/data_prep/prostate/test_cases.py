"""One volume with its label: what is written, and what is left out with which reason."""

from __future__ import annotations

import gzip
import itertools
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from data_prep.image_files import UnusableCase
from data_prep.prostate.cases import ReleaseCase, array_spacing, take_case
from tests.data_prep.prostate.prostate_releases import AFFINE, SHAPE, label_of


def save(path: Path, values: NDArray[Any], affine: NDArray[Any] = AFFINE) -> None:
    nib.save(nib.Nifti1Image(values, affine), path)


@pytest.fixture
def flat(tmp_path: Path) -> ReleaseCase:
    """A 3-D case as in the six-site release."""
    case = ReleaseCase("HK", "Case38", tmp_path / "Case38.nii.gz", tmp_path / "Case38_segmentation.nii.gz", "HK/x")
    save(case.image, np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16))
    save(case.label, label_of(1))
    return case


@pytest.fixture
def deep(flat: ReleaseCase) -> ReleaseCase:
    """A 4-D case as in the Decathlon."""
    save(flat.image, np.random.default_rng(0).uniform(0, 1500, (*SHAPE, 2)).astype(np.float32))
    return replace(flat, domain="decathlon", channels=("T2", "ADC"), channel=0)


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


def with_nan(path: Path, value: float) -> None:
    values = np.ones(SHAPE, np.float32)
    values[1, 2, 3] = value
    save(path, values)


def huge_claim(path: Path, shape: tuple[int, ...] = (32000, 32000, 10000)) -> None:
    """Write a header that claims 10^11 voxels or more, with no data behind it."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape(shape)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4)))


def truncate(path: Path) -> None:
    """Cut a file in the midst of its voxels, as a broken download does."""
    save(path, np.random.default_rng(0).integers(0, 900, (40, 40, 4)).astype(np.int16))
    path.write_bytes(path.read_bytes()[:5000])


def damage_stream(path: Path) -> None:
    """Overwrite compressed bytes, of which zlib complains."""
    save(path, np.random.default_rng(0).integers(0, 900, (40, 40, 4)).astype(np.int16))
    content = bytearray(path.read_bytes())
    content[5000:5200] = b"\xff" * 200
    path.write_bytes(content)


def flip_a_bit(path: Path, shape: tuple[int, ...] = SHAPE) -> None:
    """Change one voxel and keep the checksum of what it was."""
    save(path, np.ones(shape, np.int16))
    whole = gzip.decompress(path.read_bytes())
    changed = whole[:-1] + bytes([whole[-1] ^ 1])
    path.write_bytes(gzip.compress(changed)[:-8] + gzip.compress(whole)[-8:])


def singular(path: Path, shape: tuple[int, ...] = SHAPE) -> None:
    """Write zeros for the third axis straight into the header; nibabel itself would not."""
    save(path, np.ones(shape, np.int16))
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[252:256] = struct.pack("<hh", 0, 1)  # qform_code, sform_code
    for row in range(3):
        content[280 + 16 * row + 8 : 280 + 16 * row + 12] = struct.pack("<f", 0.0)
    path.write_bytes(gzip.compress(bytes(content)))


def negative_size(path: Path, shape: tuple[int, ...] = SHAPE) -> None:
    """Negate the third voxel size in the header, which nibabel turns positive while it loads."""
    save(path, np.ones(shape, np.int16))
    content = bytearray(gzip.decompress(path.read_bytes()))
    (size,) = struct.unpack_from("<f", content, 88)
    struct.pack_into("<f", content, 88, -size)
    path.write_bytes(gzip.compress(bytes(content)))


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
BAD_IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, r"no image .*/Case38\.nii\.gz"),
    "symlink loop": (loop, r"no image .*/Case38\.nii\.gz"),
    "zero bytes": (lambda path: path.write_bytes(b""), r"Case38\.nii\.gz cannot be read: it is empty"),
    "text": (lambda path: path.write_text("hello " * 100), r"Case38\.nii\.gz cannot be read"),
    "truncated gzip": (truncate, r"Case38\.nii\.gz is damaged or cut off"),
    "damaged gzip": (damage_stream, r"Case38\.nii\.gz is damaged or cut off"),
    "one bit flipped": (flip_a_bit, r"Case38\.nii\.gz is damaged or cut off .*CRC"),
    "not a number": (lambda path: with_nan(path, np.nan), r"Case38\.nii\.gz has voxels that are NaN or infinite"),
    "infinite": (lambda path: with_nan(path, -np.inf), r"Case38\.nii\.gz has voxels that are NaN or infinite"),
    "4-D": (lambda path: save(path, np.ones((*SHAPE, 2), np.int16)), r"has 4 dimensions \(12, 10, 4, 2\), expected 3"),
    "5-D": (lambda path: save(path, np.ones((*SHAPE, 1, 3), np.int16)), r"has 5 dimensions .*, expected 3"),
    "colours": (lambda path: save(path, rgb), r"has RGB colours, expected one real number a voxel"),
    "complex": (
        lambda path: save(path, np.ones(SHAPE, np.complex64)),
        r"complex numbers \(complex64\), expected one real",
    ),
    "huge claim": (huge_claim, r"claims shape \(32000, 32000, 10000\)"),
    "singular affine": (singular, r"singular or non-finite affine"),
    "negative voxel size": (negative_size, r"has the voxel size .* mm in pixdim, expected numbers above 0"),
    "other format": (
        lambda path: (
            nib.save(nib.MGHImage(np.ones(SHAPE, np.float32), AFFINE), path.with_suffix(".mgz"))
            or path.write_bytes(path.with_suffix(".mgz").read_bytes())
        ),
        r"Case38\.nii\.gz cannot be read",
    ),
    "smaller": (lambda path: save(path, np.ones((11, 10, 4), np.int16)), r"shape \(11, 10, 4\), label \(12, 10, 4\)"),
    "elsewhere": (
        lambda path: save(path, np.ones(SHAPE, np.int16), AFFINE + np.eye(4, k=3)),
        r"placed 1 mm apart by their affines, allowed 0\.06 mm",
    ),
}
BAD_LABELS: dict[str, tuple[NDArray[Any], str]] = {
    "almost one": (label_of(1) * np.float32(0.9999), r"label has values 0, 0\.999\d+, allowed: 0, 1, 2"),
    "unknown value": (label_of(2) * np.uint8(2), r"label has values 0, 2, 4, allowed"),
    "not a number": (np.where(label_of(1) > 0, np.nan, 0), r"label has values 0, nan"),
    "an image": (np.arange(480).reshape(SHAPE).astype(np.int16), r"0, 1, 2, 3, 4, 5, 6, 7, \.\.\., allowed"),
    "background": (np.zeros(SHAPE, np.uint8), r"label has no prostate voxel"),
    "trailing axis": (label_of(1)[..., None], r"_segmentation\.nii\.gz has 4 dimensions"),
    "larger": (np.ones((12, 10, 5), np.uint8), r"image has shape \(12, 10, 4\), label \(12, 10, 5\)"),
}


@pytest.mark.parametrize("fault", BAD_IMAGES)
def test_an_unusable_image_is_named_with_its_fault_and_nothing_is_written(
    fault: str, flat: ReleaseCase, tmp_path: Path
) -> None:
    damage, reason = BAD_IMAGES[fault]
    damage(flat.image)
    with pytest.raises(UnusableCase, match=reason) as caught:
        take_case(flat, tmp_path / "out")
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()


BAD_4D: dict[str, tuple[Callable[[Path], object], str]] = {
    **{fault: BAD_IMAGES[fault] for fault in ("missing", "zero bytes", "text", "other format")},
    "cut off": (
        lambda path: path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1])),
        r"Case38\.nii\.gz is cut off: it holds 4,191 bytes, its header claims 4,192",
    ),
    "truncated gzip": (lambda path: path.write_bytes(path.read_bytes()[:-20]), r"is damaged or cut off"),
    "one bit flipped": (lambda path: flip_a_bit(path, (*SHAPE, 2)), r"is damaged or cut off .*CRC"),
    "huge claim": (lambda path: huge_claim(path, (32000, 32000, 100, 2)), r"claims shape \(32000, 32000, 100, 2\)"),
    "colours": (
        lambda path: save(path, np.zeros((*SHAPE, 2), rgb.dtype)),
        r"has RGB colours, expected one real number",
    ),
    "complex": (lambda path: save(path, np.ones((*SHAPE, 2), np.complex64)), r"complex numbers \(complex64\)"),
    "singular affine": (lambda path: singular(path, (*SHAPE, 2)), r"has a singular or non-finite affine"),
    "negative voxel size": (
        lambda path: negative_size(path, (*SHAPE, 2)),
        r"has the voxel size .* x -4\.\d+ mm in pixdim, expected numbers above 0",
    ),
    "a folder": (lambda path: path.unlink() or path.mkdir(), r"no image .*/Case38\.nii\.gz"),
    "5-D": (lambda path: save(path, np.ones((*SHAPE, 1, 2), np.float32)), r"has 5 dimensions .*, expected 4"),
    "one channel": (
        lambda path: save(path, np.ones((*SHAPE, 1), np.float32)),
        r"has 1 channel\(s\), dataset\.json says 2 \(T2, ADC\)",
    ),
    "three channels": (lambda path: save(path, np.ones((*SHAPE, 3), np.float32)), r"has 3 channel\(s\), dataset\.json"),
    "3-D": (lambda path: save(path, np.ones(SHAPE, np.float32)), r"has 3 dimensions \(12, 10, 4\), expected 4"),
}


@pytest.mark.parametrize("fault", BAD_4D)
def test_an_unusable_4d_image_is_named_with_its_fault_and_nothing_is_written(
    fault: str, deep: ReleaseCase, tmp_path: Path
) -> None:
    damage, reason = BAD_4D[fault]
    damage(deep.image)
    with pytest.raises(UnusableCase, match=reason) as caught:
        take_case(deep, tmp_path / "out")
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", BAD_LABELS)
def test_an_unusable_label_is_named_with_its_fault_and_nothing_is_written(
    fault: str, flat: ReleaseCase, tmp_path: Path
) -> None:
    values, reason = BAD_LABELS[fault]
    nib.save(nib.Nifti1Image(values, AFFINE), flat.label)
    with pytest.raises(UnusableCase, match=reason):
        take_case(flat, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_label_is_told(flat: ReleaseCase, tmp_path: Path) -> None:
    flat.label.unlink()
    with pytest.raises(UnusableCase, match=r"^no label [^/]*/Case38_segmentation\.nii\.gz$"):
        take_case(flat, tmp_path / "out")


def test_a_fault_in_the_channel_that_is_not_taken_does_not_matter(deep: ReleaseCase, tmp_path: Path) -> None:
    values = np.ones((*SHAPE, 2), np.float32)
    values[..., 1] = np.nan
    save(deep.image, values)
    assert take_case(deep, tmp_path / "out").entry["id"] == "decathlon_Case38"


def test_a_file_that_may_not_be_read_is_left_out(
    flat: ReleaseCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(flat.image))

    if os.geteuid() == 0:  # permissions do not bind root
        monkeypatch.setattr("nibabel.load", refuse)
    else:
        flat.image.chmod(0)
    with pytest.raises(UnusableCase, match=r"Case38\.nii\.gz cannot be read: permission denied"):
        take_case(flat, tmp_path / "out")


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
