"""Tests of the checks that need only headers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform
from PIL import Image

from mixstyleflow_monai.data import Case, DatasetDescription, check_headers, check_images
from mixstyleflow_monai.data.case_checks import check_data_range


def describe(folder: Path, image: str, label: str, *, dims: int = 2, channels: int = 1) -> DatasetDescription:
    case = Case("c1", "far", "c1", "test", folder / image, folder / label, {}, None)
    path = folder / "dataset.json"
    return DatasetDescription(path, "x", dims, channels, {"disc": [1]}, "home", (case,), {}, "0")


def write_png(path: Path, shape: tuple[int, ...]) -> None:
    Image.fromarray(np.zeros(shape, dtype=np.uint8)).save(path)


def write_nifti(path: Path, shape: tuple[int, ...], affine: np.ndarray | None = None) -> None:
    nib.save(nib.Nifti1Image(np.zeros(shape, dtype=np.int16), np.eye(4) if affine is None else affine), path)


def test_good_cases_pass(tmp_path: Path) -> None:
    write_png(tmp_path / "i.png", (8, 6, 3))
    write_png(tmp_path / "l.png", (8, 6))
    found = describe(tmp_path, "i.png", "l.png", channels=3)
    assert check_headers(found) is found
    write_nifti(tmp_path / "i.nii.gz", (8, 6, 4))
    write_nifti(tmp_path / "l.nii", (8, 6, 4))
    check_headers(describe(tmp_path, "i.nii.gz", "l.nii", dims=3))


@pytest.mark.parametrize(
    ("image", "label", "channels", "message"),
    [
        ((8, 6), (8, 7), 1, r"case c1, .*i.png: is 6 x 8 pixels, its label 7 x 8"),
        ((8, 6, 3), (8, 6), 1, r"has 3 channels \(mode RGB\), dataset.json says 1"),
        ((8, 6), (8, 6, 3), 1, r"its label has 3 channels, expected one integer map"),
    ],
)
def test_wrong_images_are_named(
    tmp_path: Path, image: tuple[int, ...], label: tuple[int, ...], channels: int, message: str
) -> None:
    write_png(tmp_path / "i.png", image)
    write_png(tmp_path / "l.png", label)
    with pytest.raises(ValueError, match=message):
        check_headers(describe(tmp_path, "i.png", "l.png", channels=channels))


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((8, 6, 5), np.eye(4), r"has shape \(8, 6, 4\), its label \(8, 6, 5\)"),
        ((8, 6, 4), np.diag([-1.0, 1.0, 1.0, 1.0]), r"placed 16 mm apart by their affines"),
    ],
)
def test_wrong_volumes_are_named(tmp_path: Path, shape: tuple[int, ...], affine: np.ndarray, message: str) -> None:
    write_nifti(tmp_path / "i.nii.gz", (8, 6, 4))
    write_nifti(tmp_path / "l.nii.gz", shape, affine)
    with pytest.raises(ValueError, match=message):
        check_headers(describe(tmp_path, "i.nii.gz", "l.nii.gz", dims=3))


def test_several_volumes_in_one_file_are_refused(tmp_path: Path) -> None:
    write_nifti(tmp_path / "i.nii.gz", (8, 6, 4, 2))
    write_nifti(tmp_path / "l.nii.gz", (8, 6, 4))
    with pytest.raises(ValueError, match=r"has shape \(8, 6, 4, 2\).*give 3-D volumes of one"):
        check_headers(describe(tmp_path, "i.nii.gz", "l.nii.gz", dims=3))


def test_unreadable_and_wrong_kinds_are_named(tmp_path: Path) -> None:
    (tmp_path / "i.png").write_text("not an image")
    write_png(tmp_path / "l.png", (8, 6))
    with pytest.raises(ValueError, match=r"i.png: cannot be read"):
        check_headers(describe(tmp_path, "i.png", "l.png"))
    with pytest.raises(ValueError, match=r"spatial_dims is 3: image and label must be NIfTI"):
        check_headers(describe(tmp_path, "i.png", "l.png", dims=3))


@pytest.mark.parametrize("axes", ["LAS", "PIR", "SAR"])
def test_a_label_in_another_order_of_axes_is_told_as_that(axes: str, tmp_path: Path) -> None:
    write_nifti(tmp_path / "i.nii.gz", (8, 6, 4))
    label = nib.Nifti1Image(np.zeros((8, 6, 4), np.int16), np.eye(4))
    nib.save(label.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(tuple(axes)))), tmp_path / "l.nii.gz")
    with pytest.raises(ValueError, match=rf"axes RAS, its label in {axes}: the same voxels.*do not copy the affine"):
        check_headers(describe(tmp_path, "i.nii.gz", "l.nii.gz", dims=3))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_that_a_network_takes_pass(channels: int, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", (8, 6) if channels == 1 else (8, 6, 3))
    write_nifti(tmp_path / "a.nii.gz", (8, 6, 4))
    names = ["a.png", "a.nii.gz"] if channels == 1 else ["a.png"]
    check_images([{"image": str(tmp_path / name)} for name in names], channels)
    check_images([], channels)


@pytest.mark.parametrize(("dims", "name"), [(2, "a.nii.gz"), (3, "a.png")])
def test_a_network_of_pictures_takes_no_volume_nor_the_other_way_round(dims: int, name: str, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", (8, 6))
    write_nifti(tmp_path / "a.nii.gz", (8, 6, 4))
    own, wanted = ("a volume", "2-D images") if dims == 2 else ("a 2-D image", "volumes")
    message = rf"{name}: is {own}, and the network was trained on {wanted}; give {wanted}"
    with pytest.raises(ValueError, match=message):
        check_images([{"image": str(tmp_path / n)} for n in ("a.png", "a.nii.gz")], 1, dims)


def test_a_label_in_jpeg_is_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "i.png", (8, 6))
    Image.new("L", (6, 8)).save(tmp_path / "l.jpg")
    with pytest.raises(
        ValueError, match=r"l\.jpg: is compressed as JPEG, which changes the values .* save the label as PNG"
    ):
        check_headers(describe(tmp_path, "i.png", "l.jpg"))


def test_all_images_that_a_network_cannot_take_are_named_at_once(tmp_path: Path) -> None:
    write_png(tmp_path / "grey.png", (8, 6))
    write_png(tmp_path / "clear.png", (8, 6, 4))
    Image.new("P", (6, 8)).save(tmp_path / "indexed.png")
    write_nifti(tmp_path / "one.nii.gz", (8, 6, 4))
    write_nifti(tmp_path / "two.nii.gz", (8, 6, 4, 2))
    (tmp_path / "text.nii").write_text("no volume")
    names = ["grey.png", "clear.png", "indexed.png", "one.nii.gz", "two.nii.gz", "text.nii"]
    with pytest.raises(ValueError, match=r"^images to segment: 6 problems\n") as caught:
        check_images([{"image": str(tmp_path / name)} for name in names], 3)
    lines = str(caught.value).splitlines()[1:]
    for line, name, text in zip(
        lines,
        names,
        (
            "has 1 channels (mode L), the network takes 3; convert it to RGB",
            "has 4 channels (mode RGBA), the network takes 3; convert it to RGB",
            "has indexed colours, and indices are not intensities; save it as grey or RGB",
            "is a volume of one channel, the network takes 3; give images of the kind that it was trained on",
            "has shape (8, 6, 4, 2), expected three axes; give 3-D volumes of one channel: split it, or drop axes of",
            "cannot be read",
        ),
        strict=True,
    ):
        assert line.startswith(f"  {tmp_path / name}: {text}")
    with pytest.raises(ValueError, match=r"clear\.png: has 4 channels \(mode RGBA\), the network takes 1; .* to grey"):
        check_images([{"image": str(tmp_path / "clear.png")}], 1)


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        ("1", {}, "is a TIFF file of 1 bit a pixel"),
        ("P", {}, "is a TIFF file of indexed colours"),
        ("L", {"tiffinfo": {262: 0}}, "is a TIFF file with white as 0"),
    ],
)
def test_tiff_that_programs_read_differently_is_refused(
    mode: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_png(tmp_path / "i.png", (8, 6))
    Image.fromarray(np.eye(8, 6, dtype=np.uint8) * 255).convert(mode).save(tmp_path / "l.tif", **options)
    with pytest.raises(ValueError, match=rf"l\.tif: {message}.*save it as PNG"):
        check_headers(describe(tmp_path, "i.png", "l.tif"))
    if mode == "L":
        with pytest.raises(ValueError, match=rf"l\.tif: {message}"):
            check_images([{"image": str(tmp_path / "l.tif")}], 1)


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}])
def test_usual_tiff_passes(options: dict[str, Any], tmp_path: Path) -> None:
    for name, values in (("i.tif", np.zeros((8, 6), np.uint16)), ("l.tif", np.zeros((8, 6), np.uint8))):
        Image.fromarray(values).save(tmp_path / name, **options)
    check_headers(describe(tmp_path, "i.tif", "l.tif"))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.array([[0.0, 255.0]], np.float32), "has values from 0 to 255"),
        (np.array([[-0.5, 1.0]], np.float32), "has values from -0.5 to 1"),
        (np.array([[0, 70000]], np.int32), "has values from 0 to 70000"),
        (np.array([[0.0, 1.0]], np.float32), ""),
        (np.array([[0, 65535]], np.uint16), ""),
        (np.array([[0, 255]], np.uint8), ""),
    ],
)
def test_pictures_without_a_data_range_are_told(values: np.ndarray, told: str, tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / "i.tif")
    found = describe(tmp_path, "i.tif", "i.tif")
    if not told:
        assert check_data_range(found) is found
        return
    with pytest.raises(ValueError, match=rf"case c1, .*i\.tif: {told}; no data range .* such as \[0,255\]"):
        check_data_range(found)


@pytest.mark.parametrize(("kind", "told"), [(np.int16, True), (np.uint8, False), (np.uint16, False)])
def test_volumes_without_a_data_range_are_told(kind: type, told: bool, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 2), kind), np.eye(4)), tmp_path / "i.nii.gz")
    found = describe(tmp_path, "i.nii.gz", "i.nii.gz", dims=3)
    if told:
        with pytest.raises(ValueError, match=r"i\.nii\.gz: has values of type int16; no data range"):
            check_data_range(found)
        volume = nib.Nifti1Image(np.zeros((4, 4, 2), kind), np.eye(4))
        volume.header.set_slope_inter(1 / 4096, 0)  # floats, once they are read
        nib.save(volume, tmp_path / "i.nii.gz")
    check_data_range(found)
