"""Reading images as they are found: hashes that do not depend on storage, and images that are stored turned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

import data_prep.image_files as module
from data_prep.image_files import (
    SeveralValues,
    UnusableCase,
    ValueHash,
    array_hash,
    open_image,
    read_label,
    remap,
    similar_name,
    stored_values,
)
from data_prep.volume_files import copy_volume, open_volume
from mixstyleflow_monai.data.file_faults import volume_faults

AFFINE = np.diag([-0.5, 0.75, 3.0, 1.0])
VOLUME = np.random.default_rng(0).integers(0, 200, (7, 6, 5))


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<u4", "<i8", "<f4", ">f4", "<f8"])
@pytest.mark.parametrize("axis", [0, 2])
def test_equal_values_have_one_hash_whatever_the_type_and_the_order_in_memory(dtype: str, axis: int) -> None:
    expected = array_hash(VOLUME.astype(np.int16), axis)
    assert array_hash(VOLUME.astype(dtype), axis) == expected
    assert array_hash(np.asfortranarray(VOLUME.astype(dtype)), axis) == expected
    assert array_hash(np.repeat(VOLUME.astype(dtype), 2, axis=1)[:, ::2], axis) == expected


def test_minus_zero_is_zero_and_other_values_and_shapes_are_others() -> None:
    zeros = np.zeros((4, 6), np.float32)
    assert array_hash(-zeros) == array_hash(zeros) == array_hash(zeros.astype(np.uint8))
    hashes = {array_hash(zeros), array_hash(zeros.T), array_hash(zeros.reshape(4, 6, 1)), array_hash(zeros + 1)}
    hashes |= {array_hash(VOLUME), array_hash(VOLUME[::-1]), array_hash(VOLUME + np.eye(6, 5) * 1e-4)}
    assert len(hashes) == 7


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_the_size_of_the_pieces_does_not_matter(step: int, axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = ValueHash(axis)
    for start in range(0, VOLUME.shape[axis], step):
        digest.update(np.take(VOLUME, range(start, min(start + step, VOLUME.shape[axis])), axis))
    whole = array_hash(VOLUME, axis)
    assert digest.hexdigest() == digest.hexdigest() == whole
    monkeypatch.setattr(module, "_PIECE", 1)
    assert array_hash(VOLUME, axis) == whole


def test_the_check_and_the_import_hash_alike(tmp_path: Path) -> None:
    from data_prep.check_case import _check_image

    save(tmp_path / "image.nii.gz", VOLUME.astype(np.float32))
    assert _check_image(tmp_path / "image.nii.gz", [])[0] == array_hash(VOLUME, axis=2)
    picture = VOLUME[..., :3].astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "image.png")
    assert _check_image(tmp_path / "image.png", [])[0] == array_hash(picture)


def save(path: Path, values: NDArray[Any], slope: float = 1.0, inter: float = 0.0) -> None:
    image = nib.Nifti1Image(values, AFFINE)
    if (slope, inter) != (1.0, 0.0):
        image.header.set_slope_inter(slope, inter)
    nib.save(image, path)


@pytest.mark.parametrize(("slope", "inter"), [(1.0, 0.0), (0.5, 0.0), (2.0, 1.0), (0.25, -8.0)])
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_a_copied_volume_has_the_hash_of_its_scaled_values(
    dtype: type, slope: float, inter: float, tmp_path: Path
) -> None:
    save(tmp_path / "image.nii.gz", VOLUME.astype(dtype), slope, inter)
    save(tmp_path / "label.nii.gz", (VOLUME > 100).astype(np.uint8))
    outputs = tmp_path / "out" / "image.nii.gz", tmp_path / "out" / "label.nii.gz"
    facts = copy_volume(tmp_path / "image.nii.gz", tmp_path / "label.nii.gz", {0: 0, 1: 1}, outputs)
    assert facts["pixels"] == array_hash((VOLUME * slope + inter).astype(np.float32), axis=2)


def turned(path: Path, orientation: int) -> Path:
    """Write a grey image with an EXIF orientation."""
    image = Image.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12))
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = orientation
    image.save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".png"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_image_that_is_stored_turned_is_refused(orientation: int, suffix: str, tmp_path: Path) -> None:
    path = turned(tmp_path / f"a{suffix}", orientation)
    for read in (open_image, read_label):
        with pytest.raises(
            UnusableCase, match=rf"a\{suffix} is stored turned .*EXIF orientation {orientation}, exp"
        ) as e:
            read(path)
        assert "auto-orient" in e.value.remedy


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".png"])
@pytest.mark.parametrize("orientation", [0, 1, 9])
def test_an_upright_image_is_read_and_so_is_one_without_a_valid_orientation(
    orientation: int, suffix: str, tmp_path: Path
) -> None:
    assert open_image(turned(tmp_path / f"a{suffix}", orientation)).size == (12, 8)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_turn_nothing(tmp_path: Path) -> None:
    Image.new("L", (12, 8)).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert open_image(tmp_path / "a.jpg").size == (12, 8)


def test_four_axes_are_opened_only_where_they_are_expected(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    save(path, np.ones((4, 3, 1, 2), np.int16))
    assert open_volume(path, dimensions=4).shape == (4, 3, 1, 2)
    assert [fault.severity for fault in volume_faults(path, 4)[1]] == ["warning"]
    with pytest.raises(UnusableCase, match=r"a\.nii\.gz has 4 dimensions \(4, 3, 1, 2\), expected 3; split it"):
        open_volume(path)
    save(path, np.ones((4, 3, 2), np.int16))
    with pytest.raises(UnusableCase, match=r"a\.nii\.gz has 3 dimensions \(4, 3, 2\), expected 4$"):
        open_volume(path, dimensions=4)


@pytest.mark.parametrize("slope", [0.1, 1 / 3, 1e-4, 977.0])
def test_a_scaled_volume_and_its_copy_in_floating_point_are_equal(slope: float, tmp_path: Path) -> None:
    save(tmp_path / "whole.nii.gz", VOLUME.astype(np.int16), slope)
    scaled = np.asarray(nib.load(tmp_path / "whole.nii.gz").dataobj)
    assert scaled.dtype == np.float64
    save(tmp_path / "copy.nii.gz", scaled.astype(np.float32))
    copy = np.asarray(nib.load(tmp_path / "copy.nii.gz").dataobj)
    assert (copy != scaled).any() or slope == 977.0
    assert array_hash(copy, axis=2) == array_hash(scaled, axis=2)
    assert array_hash(copy * np.float32(1 + 1e-6), axis=2) != array_hash(scaled, axis=2)


def test_numbers_beyond_float32_are_hashed_without_a_warning() -> None:
    assert array_hash(VOLUME * 1e300) == array_hash(VOLUME * 2e300) != array_hash(VOLUME)


def test_a_whole_label_with_a_scale_factor_is_whole() -> None:
    stored = np.array([[0, 41], [41, 0]]) * float(np.float32(1 / 41))
    assert stored.max() != 1.0
    assert remap(stored, {0: 0, 1: 7}, Path("l.nii")).tolist() == [[0, 7], [7, 0]]
    with pytest.raises(ValueError, match=r"has values 0, 0\.5; .* is no whole number"):
        remap(stored.round() / 2, {0: 0, 1: 7}, Path("l.nii"))


@pytest.mark.parametrize(("mode", "kind"), [("L", "grey"), ("I;16", "wide"), ("RGB", "colours"), ("F", "grey")])
def test_only_colours_count_as_colours(mode: str, kind: str, tmp_path: Path) -> None:
    Image.new(mode, (4, 3)).save(tmp_path / "a.tif")
    assert stored_values(tmp_path / "a.tif") == kind


def test_a_jpeg_label_is_refused_and_a_jpeg_image_is_read(tmp_path: Path) -> None:
    Image.new("L", (4, 3)).save(tmp_path / "a.jpg")
    assert open_image(tmp_path / "a.jpg").size == (4, 3)
    with pytest.raises(UnusableCase, match=r"a\.jpg is compressed as JPEG, which changes the values of a label"):
        read_label(tmp_path / "a.jpg")
    Image.new("L", (4, 3)).save(tmp_path / "a.tif", compression="jpeg")
    with pytest.raises(UnusableCase, match=r"a\.tif is compressed as JPEG"):
        read_label(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_a_label_in_the_transparency_is_not_taken_for_background(mode: str, tmp_path: Path) -> None:
    path, alpha = tmp_path / "mask.tif", np.zeros((6, 8), np.uint8)
    alpha[2:4, 2:5] = 255
    image = Image.new("L", (8, 6)).convert("RGBA" if mode == "RGBA" else "LA")
    image.putalpha(Image.fromarray(alpha))
    if mode == "PA":
        image = Image.merge("PA", image.split())
    image.save(path)
    with pytest.raises(SeveralValues, match=rf"mask\.tif: label of mode {mode} is transparent in places, expected one"):
        read_label(path)
    image.putalpha(255)
    image.save(path)
    assert not read_label(path).any()


@pytest.mark.parametrize(
    ("wanted", "there", "found"),
    [
        ("a.png", "A.PNG", True),
        ("\u00e4.png", "a\u0308.png", True),
        ("a.png", "a.png", True),
        ("a.png", "b.png", False),
        ("a.png", "a.tif", False),
    ],
)
def test_a_name_that_only_looks_the_same_is_found(wanted: str, there: str, found: bool, tmp_path: Path) -> None:
    (tmp_path / there).touch()
    assert (f", but {there} (" in similar_name(tmp_path / wanted)) == found
    assert similar_name(tmp_path / "nowhere" / wanted) == ""


def test_folder_of_the_name_of_a_missing_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    assert similar_name(tmp_path / "x.png") == ", but a folder of this name"
