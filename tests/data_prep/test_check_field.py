"""What `check` says of labels that training would not see, and of values that it could not use."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from data_prep import check_case as check_case_module
from data_prep import check_description
from data_prep.check import IMAGE_SIZE, PIXEL_SPACING, check_dataset
from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.data import label_field, load_dataset
from tests.data_prep import bad_files as bad

TRAIN = Path(__file__).resolve().parents[2] / "bundles" / "phase1_base_segmentation" / "configs" / "train.json"


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    assert bad.run("folder", bad.make_volumes(tmp_path / "root"), "--output", tmp_path / "data") == 0
    return tmp_path / "data"


def found(data: Path, *options: object) -> dict[str, list[tuple[str, str]]]:
    """Return severity and text of the faults of each file."""
    report = data.parent / "report.json"
    bad.run("check", data, "--workers", 1, "--fix-report", report, *options)
    result: dict[str, list[tuple[str, str]]] = {}
    for problem in json.loads(report.read_text())["problems"]:
        if "sha256" not in problem["fault"]:
            result.setdefault(problem["file"], []).append((problem["severity"], problem["fault"]))
    return result


def test_the_defaults_are_those_of_the_training() -> None:
    config: dict[str, Any] = json.loads(TRAIN.read_text())
    assert [list(IMAGE_SIZE), list(PIXEL_SPACING)] == [config["image_size"], config["pixel_spacing"]]


@pytest.mark.parametrize("piece", [1, 60, 10**6])
@pytest.mark.parametrize("axes", ["LAS", "PIR", "SLA"])
def test_the_share_outside_of_the_field_is_told(
    axes: str, piece: int, volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The label covers voxels 2 to 4 of 8, each of 0.5 mm; a field of 1 mm at the centre holds voxels 3 and 4."""
    monkeypatch.setattr(check_case_module, "_PIECE", piece)
    case = load_dataset(volumes).cases[0]
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("LAS"), nib.orientations.axcodes2ornt(tuple(axes))
    )
    for path in (case.image, case.label):
        loaded = nib.load(path)
        plain = nib.Nifti1Image(np.asarray(loaded.dataobj), loaded.affine)
        nib.save(plain.as_reoriented(turn), path)
    name = case.label.relative_to(volumes).as_posix()
    told = found(volumes, "--image_size", "2,64", "--pixel_spacing", "0.5,0.75")[name]
    assert told == [
        (
            "warning",
            "has 33 % of organ outside of the central 1 x 48 mm that the network sees (image_size 2,64, pixel_spacing "
            "0.5,0.75)",
        )
    ]
    assert found(volumes, "--image_size", "2,64", "--pixel_spacing", "null").get(name, []) == []
    assert found(volumes).get(name, []) == []


def test_wrong_options_are_told_before_the_work(volumes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, value in (
        ("image_size", "3"),
        ("image_size", "a,b"),
        ("pixel_spacing", "0,1"),
        ("pixel_spacing", "1,1,1"),
    ):
        assert bad.run("check", volumes, f"--{option}", value) == 1
        message = capsys.readouterr().err
        assert message.startswith(f"error: --{option}: found ")
        assert ("or null" in message) == (option == "pixel_spacing")
    with pytest.raises(ValueError, match=r"--image_size: found \(True, 2\)"):
        check_dataset(volumes, image_size=(True, 2))


def test_a_label_without_background_is_a_warning(volumes: Path) -> None:
    path = load_dataset(volumes).cases[0].label
    bad.change_voxels(lambda values: values * 0 + 1)(path)
    name = path.relative_to(volumes).as_posix()
    assert found(volumes)[name] == [("warning", "has no background: every value belongs to a region")]


def test_values_beyond_float32_are_an_error(volumes: Path) -> None:
    path = load_dataset(volumes).cases[0].image
    bad.change_voxels(lambda values: values.astype(np.float64) * 1e300)(path)
    ((severity, text),) = found(volumes)[path.relative_to(volumes).as_posix()]
    assert severity == "error"
    assert text.startswith("has values from -")
    assert text.endswith("more than float32 holds, in which the network computes")


def test_a_scaled_volume_and_its_copy_in_floating_point_are_a_duplicate(volumes: Path) -> None:
    """A slope in the header is how converters store CT; the copy is what a program writes that computed on it."""
    first, *_, last = load_dataset(volumes).cases
    values = np.asarray(nib.load(first.image).dataobj)
    whole = nib.Nifti1Image(values, bad.AFFINE)
    whole.header.set_slope_inter(0.1, 0)
    nib.save(whole, first.image)
    nib.save(nib.Nifti1Image(np.asarray(nib.load(first.image).dataobj).astype(np.float32), bad.AFFINE), last.image)
    assert sha256_file(first.image) != sha256_file(last.image)
    faults = found(volumes)[first.image.relative_to(volumes).as_posix()]
    assert any(severity == "error" and f"the same pixels as {last.id}" in text for severity, text in faults)


def test_volumes_that_hardly_fill_the_field_are_told_once(volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_description, "MIN_SHARE_FILLED", label_field.MIN_SHARE_FILLED)
    told = [text for _, text in found(volumes)["dataset.json"]]
    assert any(
        re.fullmatch(r"half of the volumes of '\S+' fill at most 0\.11 % of what the network sees .*", text)
        for text in told
    )
    assert not any(
        "fill at most" in text for _, text in found(volumes, "--pixel_spacing", "null").get("dataset.json", [])
    )


def test_a_scaled_label_is_counted_as_whole_numbers(volumes: Path) -> None:
    path = load_dataset(volumes).cases[0].label
    label = nib.load(path)
    scaled = nib.Nifti1Image((np.asarray(label.dataobj) * 41).astype(np.uint8), label.affine)
    scaled.header.set_slope_inter(1 / 41, 0)
    nib.save(scaled, path)
    assert np.asarray(nib.load(path).dataobj).max() != 1.0
    assert found(volumes).get(path.relative_to(volumes).as_posix(), []) == []
