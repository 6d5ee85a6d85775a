"""A network, images and flows for the tests of stylizers and perturbations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.networks import DualDecoderNet, untracked_batch_norm


@pytest.fixture
def make_network() -> Callable[[int], DualDecoderNet]:
    """An untrained network in train mode: image channels."""

    def make(channels: int = 1) -> DualDecoderNet:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return DualDecoderNet(channels, 1).train()

    return make


@pytest.fixture
def make_images() -> Callable[..., Tensor]:
    """Random images in [0, 1]: number, channels."""

    def make(count: int = 4, channels: int = 1, seed: int = 0) -> Tensor:
        return torch.rand(count, channels, 32, 32, generator=torch.Generator().manual_seed(seed))

    return make


@pytest.fixture
def encode() -> Callable[[DualDecoderNet, Tensor], Tensor]:
    """The latent of images, without a trace in the network."""

    def latent(network: DualDecoderNet, images: Tensor) -> Tensor:
        with torch.no_grad(), untracked_batch_norm(network):
            return network.encode(images)

    return latent


@pytest.fixture(scope="session")
def make_bank() -> Callable[..., StyleFlowBank]:
    """Flows of made-up statistics, not trained: level -> channels, options of the bank."""

    def make(channels: dict[int, int], **options: Any) -> StyleFlowBank:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            bank = StyleFlowBank(channels, num_couplings=2, **options)
        generator = torch.Generator().manual_seed(0)
        bank.initialize(
            {
                k: (torch.randn(50, c, generator=generator), 0.5 + torch.rand(50, c, generator=generator))
                for k, c in channels.items()
            }
        )
        return bank

    return make


@pytest.fixture
def features() -> Tensor:
    """Feature maps in double precision, channels of very different scale and sign, (4, 3, 6, 5)."""
    scale = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)[:, None, None]
    offset = torch.arange(4, dtype=torch.float64)[:, None, None, None]
    generator = torch.Generator().manual_seed(0)
    return scale * (torch.randn(4, 3, 6, 5, generator=generator, dtype=torch.float64) * (1 + offset) - offset)


@pytest.fixture
def untouched_randomness() -> Iterator[None]:
    """Fails the test that reads or changes torch's or numpy's global random state."""
    import numpy as np

    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()
    yield
    assert torch.equal(torch.get_rng_state(), torch_before)
    for before, after in zip(numpy_before, np.random.get_state(), strict=True):
        assert np.array_equal(before, after)
