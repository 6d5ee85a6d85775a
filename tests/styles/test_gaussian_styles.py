"""Gaussian styles in place of flows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.styles import FlowStyleMix, GaussianStyleBank


def statistics() -> dict[int, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([0.1, 1.0, 5.0])
    return {
        level: (
            scale * torch.randn(50, 3, generator=generator) - 2.0,
            10.0 + scale * torch.rand(50, 3, generator=generator),
        )
        for level in (2, 4)
    }


@pytest.mark.parametrize("temperature", [None, 1.0, 2.0])
def test_samples_have_the_mean_of_the_images_and_their_spread_times_the_temperature(temperature: float | None) -> None:
    bank = GaussianStyleBank(statistics(), {"2": 3.0, "4": 1.5})
    for level in (2, 4):
        factor = temperature or {2: 3.0, 4: 1.5}[level]
        sampled = bank.sample(level, 40_000, temperature=temperature, generator=torch.Generator().manual_seed(1))
        for values, training in zip(sampled, statistics()[level], strict=True):
            torch.testing.assert_close(values.mean(0), training.mean(0), atol=0.2, rtol=0)
            torch.testing.assert_close(values.std(0), factor * training.std(0), atol=0, rtol=0.02)
            # Channels are independent.
            assert abs(float(torch.corrcoef(values.T)[0, 1])) < 0.03


def test_spreads_stay_positive() -> None:
    _, std = GaussianStyleBank(statistics(), std_floor=0.01).sample(2, 5000, temperature=100.0)
    assert float(std.min()) == pytest.approx(0.01)


@pytest.mark.usefixtures("untouched_randomness")
def test_bank_serves_the_stylizer_of_the_flows() -> None:
    stylizer = FlowStyleMix(GaussianStyleBank(statistics()), probability=1.0)
    drawn = stylizer.draw(5)
    assert list(drawn.levels) == [2, 4]
    assert drawn.levels[2].mean.shape == (5, 3)
    with pytest.raises(ValueError, match=r"levels among \[2, 4\]"):
        FlowStyleMix(GaussianStyleBank(statistics()), temperatures={3: 1.0})


@pytest.mark.parametrize("batch_norm", ["batch", "running"])
def test_styles_are_put_in_with_the_batch_norm_of_their_statistics(batch_norm: str) -> None:
    assert FlowStyleMix(GaussianStyleBank(statistics(), batch_norm=batch_norm)).batch_norm == batch_norm


def test_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match=r"level 3: this bank has levels \[2, 4\]"):
        GaussianStyleBank(statistics()).sample(3, 1)


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        (None, {"temperatures": {2: 1.0}}, "expected one for each level"),
        (None, {"temperatures": {2: 1.0, 4: -1.0}}, "temperature of level 4=-1.0"),
        (None, {"std_floor": 0.0}, "std_floor=0.0"),
        (None, {"batch_norm": "eval"}, "style_batch_norm='eval': expected one of"),
        ({2: (torch.zeros(1, 3), torch.ones(1, 3))}, {}, "at least two images"),
        ({}, {}, "expected one for each level"),
    ],
)
def test_wrong_settings_are_told(
    given: Mapping[int, tuple[Tensor, Tensor]] | None, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianStyleBank(statistics() if given is None else given, **settings)
