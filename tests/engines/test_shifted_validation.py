"""Tests of the hand-set shifts of source images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine

from mixstyleflow_monai.data import Task
from mixstyleflow_monai.data.transforms import StandardizeSlicesd
from mixstyleflow_monai.engines import ShiftedValidation
from mixstyleflow_monai.engines.shifted_validation import (
    GREY_VALUES,
    Shift,
    colour_shifts,
    grey_shifts,
    pairs_of,
    shifted_dice,
    validation_slices,
)
from mixstyleflow_monai.engines.style_preview import batch_dice
from mixstyleflow_monai.networks import DualDecoderNet
from tests.benchmark.squares import tiny_description

SHIFTS = {**grey_shifts(), **colour_shifts()}


def shift_of(name: str) -> Shift:
    return {**grey_shifts(), **colour_shifts()}[name]


@pytest.mark.parametrize("name", SHIFTS)
def test_shift_changes_colours_and_neither_shape_nor_the_global_random_state(name: str) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    shifted = shift_of(name)(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert shifted.shape == images.shape
    assert torch.isfinite(shifted).all()
    assert (shifted.clamp(0, 1) - images).abs().mean() > 0.01
    torch.testing.assert_close(shift_of(name)(images), shifted)
    again = shift_of(name)
    torch.testing.assert_close(torch.cat([again(images[:1]), again(images[1:])]), shifted)


@pytest.mark.parametrize("name", ["pale", "hue +60", "hue -60"])
def test_colour_shifts_leave_grey_images_alone(name: str) -> None:
    grey = torch.rand(2, 1, 16, 16).expand(2, 3, 16, 16)
    torch.testing.assert_close(SHIFTS[name](grey), grey, atol=1e-5, rtol=0)


def test_hue_turned_forth_and_back_is_the_same() -> None:
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(SHIFTS["hue -60"](SHIFTS["hue +60"](images)), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("channels", "dimensions", "colour"), [(1, 2, False), (3, 2, True), (3, 3, False)])
def test_means_are_over_the_shifts_that_fit_the_channels(channels: int, dimensions: int, colour: bool) -> None:
    torch.manual_seed(0)
    settings = {"image_size": (32, 32), "spatial_dims": dimensions, "intensity": "data_range"}
    task = Task(in_channels=channels, regions={"disc": [1]}, **settings)
    network = DualDecoderNet(**task.network_settings()).eval()
    images = torch.rand(2, channels, 32, 32)
    target = (images[:, :1] > 0.5).to(torch.uint8)
    result = shifted_dice(network, task, images, target)
    names = set(grey_shifts()) | (set(colour_shifts()) if colour else set())
    assert set(result) == names | {"plain", "mean of shifts", "mean of pairs"}
    assert result["mean of shifts"] == pytest.approx(sum(result[name] for name in names) / len(names))
    others = names - set(GREY_VALUES)
    pairs = [(shift_of(first), shift_of(second)) for first in GREY_VALUES for second in others]
    with torch.no_grad():
        shown = [second(first(images).clamp(0, 1)).clamp(0, 1) for first, second in pairs]
        found = [batch_dice(network, image, target, task.encoding) for image in shown]
    assert len(found) == 6 * (len(names) - 6)
    assert result["mean of pairs"] == pytest.approx(sum(found) / len(found), abs=1e-3)


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


def test_z_scored_images_are_shifted_between_0_and_1_and_z_scored_again() -> None:
    torch.manual_seed(0)
    grey = torch.rand(2, 1, 32, 32)
    images = torch.stack([StandardizeSlicesd("image")({"image": image})["image"] for image in grey])
    task = Task(
        in_channels=1, regions={"disc": [1]}, image_size=(32, 32), intensity="z_score", image_activation="instance_norm"
    )
    network = DualDecoderNet(**task.network_settings()).eval()
    seen: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    shifted_dice(network, task, images, (grey > 0.5).to(torch.uint8))
    shown = dict(zip(["plain", *grey_shifts()], seen, strict=False))
    torch.testing.assert_close(shown["flat contrast"], images, atol=1e-3, rtol=0)
    assert (shown["gamma 2"] - images).abs().mean() > 0.05
    for values in shown.values():
        torch.testing.assert_close(values.mean((1, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)
        torch.testing.assert_close(values.std((1, 2, 3), correction=0), torch.ones(2), atol=5e-3, rtol=0)


def test_slices_by_ones_give_the_same_as_all_at_once() -> None:
    torch.manual_seed(0)
    task = Task(in_channels=1, regions={"outer": [1, 2], "inner": [2]}, image_size=(32, 32))
    network = DualDecoderNet(**task.network_settings()).eval()
    images, target = torch.rand(5, 1, 32, 32), torch.randint(0, 2, (5, 2, 32, 32), dtype=torch.uint8)
    together, apart = (shifted_dice(network, task, images, target, batch_size=size) for size in (5, 2))
    assert apart == {name: pytest.approx(value, abs=1e-3) for name, value in together.items()}


@pytest.fixture
def squares(tmp_path: Path) -> list[dict[str, str]]:
    """The validation case of the source, and one of another domain."""
    description = tiny_description(tmp_path)
    return [*description.datalist("validation"), *description.datalist("test", "site_b")[:1]]


def evaluated(handler: ShiftedValidation) -> None:
    engine = Engine(lambda *_: None)
    handler.attach(engine)
    engine.run([0])


def test_an_evaluation_writes_what_source_validation_shows(squares: list[dict[str, str]], tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = Task(in_channels=1, regions={"square": [1]}, image_size=(32, 32))
    network = DualDecoderNet(**task.network_settings())
    evaluated(ShiftedValidation(network, squares, "site_a", task, tmp_path, facts={"model_sha256": "abc"}))
    found = json.loads((tmp_path / "shifted_validation.json").read_text())
    assert (found["model_sha256"], found["slices"]) == ("abc", 1), "of the source alone"
    images, target = validation_slices(squares[:1], task)
    expected = shifted_dice(network.eval(), task, images, target)
    assert {name: found[name] for name in expected} == expected


def test_switched_off_nothing_is_looked_at(tmp_path: Path) -> None:
    task = Task(in_channels=1, regions={"square": [1]}, image_size=(32, 32))
    evaluated(ShiftedValidation(torch.nn.Identity(), [], "site_a", task, tmp_path, enabled=False))
    assert not list(tmp_path.iterdir())


def test_a_data_set_without_validation_cases_of_the_source_is_refused_at_once(
    squares: list[dict[str, str]], tmp_path: Path
) -> None:
    task = Task(in_channels=1, regions={"square": [1]}, image_size=(32, 32))
    with pytest.raises(ValueError, match=r"no validation case of 'site_c'.*--shifted_validation false"):
        ShiftedValidation(torch.nn.Identity(), squares, "site_c", task, tmp_path)
    trained_on = [squares[0]["case_id"]]
    with pytest.raises(ValueError, match=r"1 validation cases, among them \['site_a_4'\], were training cases"):
        ShiftedValidation(torch.nn.Identity(), squares, "site_a", task, tmp_path, trained_on=trained_on)
