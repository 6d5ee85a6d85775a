"""Tests of the checks that need only headers."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform
from PIL import Image

from mixstyleflow_monai.data import Case, DatasetDescription, check_headers, check_images


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
