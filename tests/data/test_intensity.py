"""Tests of how intensities come to [0, 1]."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from mixstyleflow_monai.data import Task, preprocessing

FACTS: dict[str, Any] = {"in_channels": 1, "regions": {"disc": [1]}, "image_size": (16, 16)}


def write_image(path: Path, array: np.ndarray) -> str:
    Image.fromarray(array).save(path)
    return str(path)


def loaded(path: str, **settings: Any) -> torch.Tensor:
    image: torch.Tensor = preprocessing((16, 16), **settings)({"image": path})["image"]
    return image


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_data_range_keeps_the_brightness_of_a_site(tmp_path: Path, dtype: type, top: int) -> None:
    array = np.linspace(0.25 * top, 0.5 * top, 256).reshape(16, 16).astype(dtype)
    image = loaded(write_image(tmp_path / "a.png", array), intensity="data_range")
    assert image.dtype == torch.float32
    np.testing.assert_allclose(image[0].numpy().T, array / top, atol=1e-6)


def test_slice_range_takes_each_channel_to_zero_and_one(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(50, 120, (16, 16, 3)).astype(np.uint8)
    image = loaded(write_image(tmp_path / "a.png", array), intensity="slice_range")
    assert image.amin(dim=(1, 2)).tolist() == [0.0, 0.0, 0.0]
    assert image.amax(dim=(1, 2)).tolist() == [1.0, 1.0, 1.0]


def test_window_of_hounsfield_units_clips(tmp_path: Path) -> None:
    volume = np.linspace(-1000, 1000, 16 * 16 * 2).reshape(16, 16, 2).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, np.diag([-1.0, -1.0, 1.0, 1.0])), tmp_path / "ct.nii.gz")
    image = loaded(str(tmp_path / "ct.nii.gz"), intensity=(-160, 240))
    np.testing.assert_allclose(image[0].numpy(), np.clip((volume + 160.0) / 400, 0, 1), atol=1e-5)


def test_values_without_a_data_range_are_refused_with_the_file(tmp_path: Path) -> None:
    volume = np.linspace(-5, 900, 16 * 16 * 2).reshape(16, 16, 2)
    nib.save(nib.Nifti1Image(volume.astype(np.float32), np.eye(4)), tmp_path / "mr.nii.gz")
    with pytest.raises(RuntimeError) as error:
        loaded(str(tmp_path / "mr.nii.gz"), intensity="data_range")
    cause = error.value.__cause__
    assert isinstance(cause, ValueError)
    for expected in ("mr.nii.gz", "from -5 to 900", "slice_range"):
        assert expected in str(cause)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"intensity": "zscore"}, r"intensity='zscore': expected one of"),
        ({"intensity": [3, 1]}, r"intensity=\[3.0, 1.0\]: expected a window of two numbers"),
        ({"intensity": [0, 1], "percentiles": [2, 98]}, r"percentiles=\[2.0, 98.0\] with intensity=.*both say"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Task(**FACTS, **settings)


def test_setting_travels_with_the_task() -> None:
    task = Task(**FACTS, intensity=[-160, 240])
    assert Task(**task.to_json()) == task
    assert task.to_json()["intensity"] == [-160.0, 240.0]
