"""Tests of slice-wise inference."""

from __future__ import annotations

import pytest
import torch

from mixstyleflow_monai.evaluation import PlanarInferer
from mixstyleflow_monai.networks import DualDecoderNet


@pytest.fixture
def network() -> DualDecoderNet:
    torch.manual_seed(0)
    return DualDecoderNet(1, 2).eval()


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 3])
def test_volume_equals_its_slices(network: DualDecoderNet, batch: int) -> None:
    volume = torch.rand(1, 1, 32, 48, 5)
    result = PlanarInferer(sw_batch_size=batch)(volume, network)
    assert result.shape == (1, 2, 32, 48, 5)
    for k in range(5):
        torch.testing.assert_close(result[..., k], network(volume[..., k]), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_image_goes_straight_through(network: DualDecoderNet) -> None:
    image = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(PlanarInferer()(image, network), network(image))


def test_four_dimensional_image_is_refused(network: DualDecoderNet) -> None:
    with pytest.raises(ValueError, match="A 4-D image holds several volumes"):
        PlanarInferer()(torch.rand(1, 1, 32, 32, 3, 2), network)
