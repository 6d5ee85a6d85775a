"""Fixtures of the engines' tests: discs as images, an untrained network, and flows of made-up statistics."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.transforms import Compose
from torch import Tensor

from mixstyleflow_monai.data import SliceDataset
from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.styles import FlowStyleMix


class Disc:
    """Transform of {"number": n} to a disc whose size is n; no disc for 0."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Tensor]:
        grid = torch.arange(32.0) - 15.5
        disc = (grid[:, None] ** 2 + grid[None] ** 2 < float(data["number"]) ** 2)[None]
        return {"image": 0.2 + 0.6 * disc.float(), "label": disc.to(torch.uint8)}


@pytest.fixture
def dataset() -> SliceDataset:
    return SliceDataset([{"number": n} for n in (0, 4, 5, 6, 7, 8)], Compose([Disc()]), progress=False)


@pytest.fixture
def network() -> DualDecoderNet:
    torch.manual_seed(0)
    return DualDecoderNet(1, 1)


@pytest.fixture
def statistics() -> dict[int, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return {
        level: (torch.randn(40, size, generator=generator) * 0.1, torch.rand(40, size, generator=generator) + 0.5)
        for level, size in ((2, 32), (3, 16), (4, 16))
    }


@pytest.fixture
def stylizer(statistics: dict[int, tuple[Tensor, Tensor]]) -> FlowStyleMix:
    bank = StyleFlowBank()
    bank.initialize(statistics)
    return FlowStyleMix(bank)
