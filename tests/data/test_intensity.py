"""Tests of how intensities come to [0, 1]."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from mixstyleflow_monai.data import Task, augmentation, preprocessing

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


def test_z_score_takes_each_channel_of_each_slice_to_mean_zero_and_deviation_one(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(50, 120, (16, 16, 3)).astype(np.uint8)
    image = loaded(write_image(tmp_path / "a.png", array), intensity="z_score")
    expected = (array - array.mean((0, 1))) / array.std((0, 1))
    np.testing.assert_allclose(image.numpy(), expected.T, atol=1e-5)
    volume = np.random.default_rng(0).normal(size=(16, 16, 3)) * [1, 20, 0] + 7
    nib.save(nib.Nifti1Image(volume.astype(np.float32), np.diag([-1.0, -1.0, 1.0, 1.0])), tmp_path / "mr.nii.gz")
    slices = loaded(str(tmp_path / "mr.nii.gz"), intensity="z_score")[0]
    assert slices.shape == (16, 16, 3)
    torch.testing.assert_close(slices.mean((0, 1)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(slices.std((0, 1), correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-4, rtol=0)


def test_z_scored_images_stay_z_scored_through_augmentation() -> None:
    settings: dict[str, Any] = {"in_channels": 3, "image_size": (32, 32)}
    task = Task(**{**FACTS, **settings}, intensity="z_score", image_activation="instance_norm")
    item = {"image": torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0)), "label": torch.ones(1, 32, 32)}
    recipe = task.training_augmentation("fundus")
    results = [recipe.set_random_state(seed)(dict(item))["image"] for seed in (0, 0, 1, 2, 3)]
    assert torch.equal(results[0], results[1])
    assert len({float(image[0, 0, 0]) for image in results}) > 1
    for image in results:
        torch.testing.assert_close(image.mean((1, 2)), torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(image.std((1, 2)), torch.ones(3), atol=0.01, rtol=0)


def test_augmentation_of_images_in_the_unit_range_is_the_recipe_itself() -> None:
    task = Task(**FACTS)
    names = [
        [type(t).__name__ for t in recipe.transforms]
        for recipe in (task.training_augmentation("auto"), augmentation("auto", task.image_size, 1))
    ]
    assert names[0] == names[1]


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
        ({"intensity": "z_score"}, r"image_activation='sigmoid' with intensity='z_score': 'instance_norm' rebuilds"),
        ({"image_activation": "instance_norm"}, r"'instance_norm' with intensity='slice_range'.*Change one"),
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
