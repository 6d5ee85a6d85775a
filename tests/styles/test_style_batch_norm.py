"""Styles are put in with batch norm as it was when their statistics were gathered."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.styles import FlowStyleMix, mix_statistics

CHANNELS = {2: 32, 3: 16, 4: 16}
TINY = {2: 3, 3: 2, 4: 2}
Make = Callable[..., Any]


def test_styles_by_running_statistics_are_those_of_eval_mode(
    make_bank: Make, make_network: Make, make_images: Make, encode: Make
) -> None:
    network, x = make_network(3), make_images(3, 3)
    network.reconstruct(make_images(3, 3, seed=5))  # running statistics other than those at the start
    stylizer = FlowStyleMix(make_bank(CHANNELS, batch_norm="running"))
    style = stylizer.draw(len(x), probability=1.0)
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    hard = stylizer.stylize(network, x, torch.zeros(3, 128, 2, 2), style)
    frozen = copy.deepcopy(network).eval()
    with torch.no_grad():
        latent = frozen.encode(x)
        features = frozen.decode_image(
            latent,
            lambda level, h: (
                mix_statistics(h, *(getattr(style.levels[level], n) for n in ("mean", "std", "weight")))
                if level in style.levels
                else h
            ),
        )
        plain = frozen.decode_image(latent)
    torch.testing.assert_close(hard, (x + features - plain).clamp(0, 1), atol=1e-5, rtol=1e-4)
    by_batch = FlowStyleMix(make_bank(CHANNELS))
    assert not torch.allclose(hard, by_batch.stylize(network, x, encode(network, x), style), atol=1e-3)
    assert network.training
    for name, value in network.named_buffers():
        torch.testing.assert_close(value, buffers[name], rtol=0, atol=0)


def test_bank_remembers_how_batch_norm_was_set(make_bank: Make, tmp_path: Path) -> None:
    make_bank(TINY, batch_norm="running").save(tmp_path / "bank.pt")
    assert FlowStyleMix(StyleFlowBank.load(tmp_path / "bank.pt")).batch_norm == "running"
    with pytest.raises(ValueError, match=r"style_batch_norm is 'eval', allowed are 'batch', 'running'"):
        make_bank(TINY, batch_norm="eval")
