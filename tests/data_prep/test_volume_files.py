"""Labels on the grid of their images, in whatever order of axes they are stored."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform

from data_prep.image_files import UnusableCase
from data_prep.volume_files import copy_volume, label_on_grid
from tests.data_prep import bad_files as bad

AXES = ["".join(c) for order in itertools.permutations(("LR", "PA", "SI")) for c in itertools.product(*order)]
AFFINE = np.array([[0.6, 0.02, 0, -98.2], [-0.02, 0.57, 1.15, -105.5], [0, -0.17, 3.8, -39.2], [0, 0, 0, 1.0]])
SHAPE = (8, 7, 5)


def a_label() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, SHAPE).astype(np.uint8)


def stored_as(axes: str, values: np.ndarray, affine: np.ndarray = AFFINE) -> nib.Nifti1Image:
    image = nib.Nifti1Image(values, affine)
    turn = ornt_transform(nib.io_orientation(affine), axcodes2ornt(tuple(axes)))
    return image.as_reoriented(turn)


@pytest.mark.parametrize("axes", AXES)
def test_a_label_in_any_order_of_axes_is_written_on_its_image(axes: str, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.arange(280).reshape(SHAPE).astype(np.int16), AFFINE), tmp_path / "image.nii.gz")
    nib.save(stored_as(axes, a_label()), tmp_path / "label.nii.gz")
    outputs = tmp_path / "out" / "image.nii.gz", tmp_path / "out" / "label.nii.gz"
    copy_volume(tmp_path / "image.nii.gz", tmp_path / "label.nii.gz", {0: 0, 1: 4}, outputs)
    written = nib.load(outputs[1])
    np.testing.assert_array_equal(np.asarray(written.dataobj), 4 * a_label())
    np.testing.assert_allclose(written.affine, nib.load(outputs[0]).affine, atol=1e-5)


def test_rounding_in_headers_is_allowed_and_told_from_equality() -> None:
    rounded = AFFINE + np.eye(4, k=3) * 0.02
    for own, exact in ((AFFINE, True), (AFFINE + 1e-5 * np.eye(4, k=3), True), (rounded, False)):
        values, same = label_on_grid(a_label(), own, AFFINE, SHAPE)
        np.testing.assert_array_equal(values, a_label())
        assert same is exact
    turned = stored_as("PIR", a_label())
    assert label_on_grid(np.asarray(turned.dataobj), turned.affine, AFFINE, SHAPE)[1] is False


def test_another_grid_is_no_order_of_axes() -> None:
    with pytest.raises(UnusableCase, match=r"image has shape \(8, 7, 5\), label \(7, 8, 5\)"):
        label_on_grid(np.zeros((7, 8, 5)), AFFINE, AFFINE, SHAPE)
    mirrored = AFFINE @ np.diag([-1.0, 1.0, 1.0, 1.0])
    with pytest.raises(UnusableCase, match=r"placed .* mm apart by their affines, allowed 0\.06 mm"):
        label_on_grid(a_label(), mirrored, AFFINE, SHAPE)


def test_folder_turns_such_a_label_and_check_names_it_in_a_data_set(tmp_path: Path) -> None:
    spec = bad.make_volumes(tmp_path / "root")
    label = tmp_path / "root" / "home" / "p1" / "seg.nii.gz"
    values, affine = np.asarray(nib.load(label).dataobj), nib.load(label).affine
    nib.save(stored_as("SPL", values, affine), label)
    assert bad.run("folder", spec, "--output", tmp_path / "out") == 0
    assert bad.left_out(tmp_path / "out") == []
    written = tmp_path / "out" / "labels" / "home" / "p1_t2.nii.gz"
    np.testing.assert_array_equal(np.asarray(nib.load(written).dataobj), values)
    nib.save(stored_as("SPL", values, affine), written)
    report = tmp_path / "report.json"
    assert bad.run("check", tmp_path / "out", "--workers", 1, "--fix-report", report) == 1
    faults = [problem["fault"] for problem in json.loads(report.read_text())["problems"]]
    assert "is stored in the axes LAS, its label in SPL: the same voxels in another order" in faults


@pytest.mark.parametrize(("largest", "taken"), [(3e38, True), (1e43, False), (np.inf, False)])
def test_values_that_training_could_not_hold_are_left_out(largest: float, taken: bool, tmp_path: Path) -> None:
    values = np.zeros((5, 4, 3))
    values[2, 2, 1] = -largest
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "i.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((5, 4, 3), np.uint8), np.eye(4)), tmp_path / "l.nii.gz")
    outputs = tmp_path / "out" / "i.nii.gz", tmp_path / "out" / "l.nii.gz"
    if taken:
        copy_volume(tmp_path / "i.nii.gz", tmp_path / "l.nii.gz", {0: 0, 1: 1}, outputs)
        assert outputs[1].is_file()
    else:
        with pytest.raises(UnusableCase, match="has 1 voxels that are NaN or infinite, or beyond single precision"):
            copy_volume(tmp_path / "i.nii.gz", tmp_path / "l.nii.gz", {0: 0, 1: 1}, outputs)
