"""Styles of the image itself, level 5: its own channel statistics, after those of the decoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.styles import IMAGE_LEVEL, DrawnStyle, FlowStyleMix, LevelStyle

Make = Callable[..., Any]


@pytest.mark.parametrize("output", ["detail", "low_frequency", "decoded"])
def test_style_of_the_image_level_moves_the_finished_image_alone(
    output: str, make_bank: Make, make_network: Make, make_images: Make, encode: Make
) -> None:
    network, x = make_network(3), make_images(3, 3)
    latent = encode(network, x)
    stylizer = FlowStyleMix(make_bank({2: 32, IMAGE_LEVEL: 3}, temperatures={2: 1.0, IMAGE_LEVEL: 1.0}), output=output)
    inner = stylizer.draw(len(x), probability=1.0).levels[2]
    mean, std = torch.full((3, 3), 0.4), torch.full((3, 3), 0.05)
    outer = LevelStyle(mean, std, torch.tensor([[0.0], [0.5], [1.0]]))
    before = stylizer.stylize(network, x, latent, DrawnStyle({2: inner}))
    after = stylizer.stylize(network, x, latent, DrawnStyle({2: inner, IMAGE_LEVEL: outer}))
    torch.testing.assert_close(after[0], before[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(after[2].mean((1, 2)), mean[2], atol=1e-3, rtol=0)
    torch.testing.assert_close(after[2].std((1, 2)), std[2], atol=1e-3, rtol=0)
    half = 0.5 * (before[1].mean((1, 2)) + mean[1])
    torch.testing.assert_close(after[1].mean((1, 2)), half, atol=1e-3, rtol=0)


@pytest.mark.parametrize("joint", [False, True])
def test_flows_of_grey_images_style_them(
    joint: bool, make_bank: Make, make_network: Make, make_images: Make, encode: Make, tmp_path: Path
) -> None:
    bank = make_bank({IMAGE_LEVEL: 1}, temperatures={IMAGE_LEVEL: 2.0}, joint_statistics=joint)
    bank.save(tmp_path / "bank.pt")
    network, x = make_network(1), make_images(4, 1)
    stylizer = FlowStyleMix(StyleFlowBank.load(tmp_path / "bank.pt"), probability=1.0, weight_law="uniform")
    hard = stylizer(network, x, encode(network, x))
    assert ((hard >= 0) & (hard <= 1)).all()
    assert not torch.allclose(hard, x, atol=1e-2)
