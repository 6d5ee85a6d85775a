"""What the cases of a data set say together; the command's view of it is in `test_check.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from data_prep.check import check_dataset
from data_prep.check_case import CaseResult
from data_prep.check_description import duplicates
from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.data.dataset_description import load_dataset
from tests.data_prep import bad_files as bad
from tests.small_dataset import make_dataset


@pytest.mark.parametrize(("depth", "told"), [(np.uint8, False), (np.uint16, True)])
def test_domain_whose_images_use_little_of_their_range_is_told(tmp_path: Path, depth: type, told: bool) -> None:
    data = tmp_path / "data"
    assert bad.run("folder", bad.make_pictures(tmp_path / "root"), "--output", data) == 0
    content = json.loads((data / "dataset.json").read_text())
    for case in content["cases"]:
        if case["domain"] == "home":
            with Image.open(data / case["image"]) as image:
                size = image.size[::-1]
            values = np.random.default_rng(len(case["id"])).integers(0, 200 if depth is np.uint8 else 4096, size)
            values[0, 0] = 199 if depth is np.uint8 else 4095
            Image.fromarray(values.astype(depth)).save(data / case["image"])
            case["sha256"]["image"] = sha256_file(data / case["image"])
    (data / "dataset.json").write_text(json.dumps(content))

    check_dataset(data, workers=1, fix_report=tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text())["problems"]
    dark = [problem for problem in found if "of the range that their files can hold" in problem["fault"]]
    assert [problem["fault"].startswith("half of the images of 'home' use at most 6 %") for problem in dark] == [
        True
    ] * told
    assert all(p["severity"] == "warning" and "--percentiles [1,99.8]" in p["remedy"] for p in dark)


@pytest.mark.parametrize(
    ("axes", "spacing", "told"),
    [
        ("RAS", (0.6, 0.6, 4.0), ""),
        ("SRA", (4.0, 0.6, 0.6), ""),
        ("RAS", (1.0, 1.0, 1.0), ""),
        ("PSR", (0.6, 0.6, 4.0), "6.7"),  # sagittal
        ("LIA", (0.6, 0.6, 1.2), "2.0"),  # coronal
    ],
)
def test_series_of_another_plane_than_the_network_s_are_told(
    axes: str, spacing: Sequence[float], told: str, tmp_path: Path
) -> None:
    spec = bad.make_volumes(tmp_path / "root")
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    for column, (letter, size) in enumerate(zip(axes, spacing, strict=True)):
        affine["LRPAIS".index(letter) // 2, column] = size if letter in "RAS" else -size
    for path in (tmp_path / "root").rglob("*.nii.gz"):
        if "home" in path.parts:
            nib.save(nib.Nifti1Image(np.asarray(nib.load(path).dataobj), affine), path)
    data = tmp_path / "data"
    assert bad.run("folder", spec, "--output", data) == 0
    check_dataset(data, workers=1, fix_report=tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text())["problems"]
    planes = [problem for problem in found if "within axial slices" in problem["fault"]]
    assert [
        p["fault"].startswith(f"half of the volumes of 'home' have voxels at least {told} times") for p in planes
    ] == [True] * bool(told)
    assert all(problem["severity"] == "warning" for problem in planes)


@pytest.mark.parametrize("same", [True, False])
def test_one_image_with_two_labels_is_told(same: bool, tmp_path: Path) -> None:
    description = load_dataset(make_dataset(tmp_path / "data"))
    twins = description.select("train")[:2]
    labels = {twins[1].id: twins[0].sha256["label"]} if same else {}
    cases = [
        replace(case, sha256={**case.sha256, "label": labels.get(case.id, case.sha256["label"])})
        for case in description.cases
    ]
    pixels = [CaseResult(pixels="one" if case in twins else case.id) for case in description.cases]
    (problem,) = duplicates(replace(description, cases=tuple(cases)), pixels)
    assert problem.severity == "warning"
    assert problem.fault.endswith(f"has the same pixels as {twins[1].id} (home, train)") == same
    assert ("but not the same label" in problem.fault, "keep the one that is right" in problem.remedy) == (
        not same,
    ) * 2
