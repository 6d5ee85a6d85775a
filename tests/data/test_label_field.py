"""Labels outside of what the network sees: told once before training, by case and share."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from mixstyleflow_monai.data import Case, DatasetDescription, Task, warn_of_cut_labels
from mixstyleflow_monai.data import label_field as module

SHAPE = (60, 50, 4)
TASK: dict[str, Any] = {"image_size": (32, 32), "pixel_spacing": (1.0, 1.0)}
"""Sees voxels 14 to 45 and 9 to 40 of the two first axes."""


def describe(folder: Path, blocks: dict[str, tuple[int, int]], domain: str = "home") -> DatasetDescription:
    """Write a label a case, from one voxel to another of the first axis; the second region is its upper half."""
    folder.mkdir(exist_ok=True)
    cases = []
    for name, (start, stop) in blocks.items():
        label = np.zeros(SHAPE, np.uint8)
        label[start:stop, 20:30] = 1
        label[(start + stop) // 2 : stop, 20:30] = 2
        path = folder / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(label, np.diag([-1.0, -1.0, 3.0, 1.0])), path)
        cases.append(Case(name, domain, name, "train", path, path, {}, None))
    regions = {"whole": [1, 2], "part": [2]}
    return DatasetDescription(folder / "dataset.json", "x", 3, 1, regions, domain, tuple(cases), {}, "0")


def warnings_of(description: DatasetDescription, caplog: pytest.LogCaptureFixture, **settings: Any) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, module.__name__):
        warn_of_cut_labels(description, Task.from_dataset(description, **{**TASK, **settings}))
    return caplog.messages


def test_cases_and_shares_are_named_in_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    description = describe(tmp_path, {"inside": (20, 40), "half": (36, 56), "out": (46, 56)})
    (message,) = warnings_of(description, caplog)
    assert message.startswith("2 of 3 cases looked at have labels outside of the central 32 x 32 mm")
    assert "half 50 % of whole, 100 % of part; out 100 % of whole, 100 % of part. To keep them" in message
    assert "(image_size 32,32, pixel_spacing 1,1)" in message


@pytest.mark.parametrize("settings", [{"pixel_spacing": None}, {"image_size": (64, 64)}, {"pixel_spacing": (2.0, 2.0)}])
def test_a_field_that_holds_all_is_silent(
    settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert warnings_of(describe(tmp_path, {"out": (0, 9)}), caplog, **settings) == []


def test_a_hundredth_is_not_worth_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert module.shares_outside({"a": 1000, "b": 100, "c": 0}, {"a": 990, "b": 98, "c": 0}) == {
        "b": pytest.approx(0.02)
    }
    assert warnings_of(describe(tmp_path, {"inside": (14, 46)}), caplog) == []


def test_labels_are_read_only_where_a_part_may_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    description = describe(tmp_path, {name: (46, 56) for name in "abcdef"})
    read: list[str] = []
    shares = module._case_shares

    def note(case: Case, *arguments: Any) -> dict[str, float]:
        read.append(case.id)
        return shares(case, *arguments)

    monkeypatch.setattr(module, "_case_shares", note)
    monkeypatch.setattr(module, "CASES_PER_DOMAIN", 3)
    (message,) = warnings_of(description, caplog)
    assert message.startswith("3 of 3 cases looked at")
    assert read == ["a", "c", "e"]
    assert warnings_of(description, caplog, image_size=(64, 64)) == []
    assert read == ["a", "c", "e"]


def test_a_damaged_label_is_left_to_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    description = describe(tmp_path, {"cut": (46, 56), "text": (46, 56), "out": (46, 56)})
    cut, text, _ = (case.label for case in description.cases)
    cut.write_bytes(cut.read_bytes()[:-20])
    text.write_text("no label")
    (message,) = warnings_of(description, caplog)
    assert ": out 100 % of whole" in message


def test_images_are_resized_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    case = Case("a", "home", "a", "train", tmp_path / "a.png", tmp_path / "a.png", {}, None)
    flat = DatasetDescription(tmp_path / "dataset.json", "x", 2, 1, {"a": [1]}, "home", (case,), {}, "0")
    assert warnings_of(flat, caplog) == []


def test_volumes_that_hardly_fill_the_field_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    description = describe(tmp_path, {"a": (20, 40), "b": (20, 40)})
    # 60 x 50 of 192 x 160 pixels
    (message,) = warnings_of(description, caplog, image_size=(192, 160))
    assert message.startswith("2 of 2 cases looked at fill less than 10 % of the central 192 x 160 mm")
    assert "a 9.8 %; b 9.8 %. Give training a finer pixel_spacing, or pixel_spacing null" in message
    assert warnings_of(description, caplog, image_size=(160, 160)) == []
