"""Tests of the hand-set shifts of source images."""

from __future__ import annotations

import pytest
import torch

from benchmarks.held_in_shifts import GREY_VALUES, colour_shifts, grey_shifts, pairs_of, shifted_dice
from mixstyleflow_monai.data import Task
from mixstyleflow_monai.networks import DualDecoderNet

SHIFTS = {**grey_shifts(), **colour_shifts()}


@pytest.mark.parametrize("name", SHIFTS)
def test_shift_changes_colours_and_neither_shape_nor_the_global_random_state(name: str) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    shifted = SHIFTS[name](images)
    assert torch.equal(torch.get_rng_state(), state)
    assert shifted.shape == images.shape
    assert torch.isfinite(shifted).all()
    assert (shifted.clamp(0, 1) - images).abs().mean() > 0.01
    torch.testing.assert_close(SHIFTS[name](images), shifted)


@pytest.mark.parametrize("name", ["pale", "hue +60", "hue -60"])
def test_colour_shifts_leave_grey_images_alone(name: str) -> None:
    grey = torch.rand(2, 1, 16, 16).expand(2, 3, 16, 16)
    torch.testing.assert_close(SHIFTS[name](grey), grey, atol=1e-5, rtol=0)


def test_hue_turned_forth_and_back_is_the_same() -> None:
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(SHIFTS["hue -60"](SHIFTS["hue +60"](images)), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_is_over_the_shifts_that_fit_the_channels(channels: int) -> None:
    torch.manual_seed(0)
    task = Task(in_channels=channels, regions={"disc": [1]}, image_size=(32, 32))
    network = DualDecoderNet(**task.network_settings()).eval()
    images = torch.rand(2, channels, 32, 32)
    result = shifted_dice(network, task, images, (images[:, :1] > 0.5).to(torch.uint8))
    names = set(grey_shifts()) | (set(colour_shifts()) if channels == 3 else set())
    assert set(result) == names | {"plain", "mean of shifts", "mean of pairs"}
    assert result["mean of shifts"] == pytest.approx(sum(result[name] for name in names) / len(names))


def test_pairs_are_each_change_of_grey_values_and_then_each_other_shift() -> None:
    pairs = pairs_of(SHIFTS)
    assert len(pairs) == len(GREY_VALUES) * (len(SHIFTS) - len(GREY_VALUES)) == 60
    images = torch.rand(2, 3, 16, 16)
    expected = SHIFTS["blur"]((images + 0.2).clamp(0, 1))
    torch.testing.assert_close(pairs["brighter, blur"](images), expected)


def test_a_network_of_images_scaled_by_their_range_never_sees_what_is_done_to_all_values_alike() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 1, 32, 32)
    images = (images - images.amin((2, 3), keepdim=True)) / (
        images.amax((2, 3), keepdim=True) - images.amin((2, 3), keepdim=True)
    )
    target = (images > 0.5).to(torch.uint8)
    found = {}
    for intensity in ("slice_range", "data_range"):
        task = Task(in_channels=1, regions={"disc": [1]}, image_size=(32, 32), intensity=intensity)
        torch.manual_seed(1)
        found[intensity] = shifted_dice(DualDecoderNet(**task.network_settings()).eval(), task, images, target)
    assert found["slice_range"]["flat contrast"] == pytest.approx(found["slice_range"]["plain"], abs=1e-3)
    assert found["data_range"]["flat contrast"] != pytest.approx(found["data_range"]["plain"], abs=1e-3)
    assert found["slice_range"]["gamma 2"] == found["data_range"]["gamma 2"]
    task = Task(
        in_channels=1,
        regions={"disc": [1]},
        image_size=(32, 32),
        intensity="z_score",
        image_activation="instance_norm",
    )
    with pytest.raises(ValueError, match="z_score': shifts are for images in"):
        shifted_dice(DualDecoderNet(**task.network_settings()).eval(), task, images, target)
