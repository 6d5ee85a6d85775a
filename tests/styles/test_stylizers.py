"""What all stylizers have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.styles import (
    BigAug,
    ChainedStylizer,
    FlowStyleMix,
    GaussianStyleBank,
    MaxStyle,
    PermutedStyleMix,
    RandConv,
    RandomStylizer,
)


def gaussian(**settings: Any) -> FlowStyleMix:
    generator = torch.Generator().manual_seed(0)
    statistics = {
        level: (torch.randn(20, channels, generator=generator), 0.5 + torch.rand(20, channels, generator=generator))
        for level, channels in {2: 32, 3: 16, 4: 16}.items()
    }
    return FlowStyleMix(GaussianStyleBank(statistics), **settings)


def chained(*, probability: float = 0.5, seed: int = 0) -> ChainedStylizer:
    parts = [PermutedStyleMix(probability=probability), RandConv(probability=probability)]
    return ChainedStylizer(parts, seed=seed)


def chosen(*, probability: float = 0.5, seed: int = 0) -> RandomStylizer:
    return RandomStylizer([MaxStyle(probability=probability), BigAug(probability=probability)], seed=seed)


STYLIZERS: list[Callable[..., nn.Module]] = [
    RandConv,
    BigAug,
    MaxStyle,
    PermutedStyleMix,
    gaussian,
    chained,
    chosen,
]
every = pytest.mark.parametrize("make", STYLIZERS)


@pytest.fixture
def run(
    make_network: Callable[..., DualDecoderNet], encode: Callable[[DualDecoderNet, Tensor], Tensor]
) -> Callable[..., Tensor]:
    """Call a stylizer on images as the trainer does."""

    def call(stylizer: nn.Module, images: Tensor, network: DualDecoderNet | None = None) -> Tensor:
        used = make_network(images.shape[1]) if network is None else network
        target = (images[:, :1] > 0.5).float()

        def objective(hard: Tensor) -> Tensor:
            return nn.functional.binary_cross_entropy_with_logits(used(hard), target)

        more = (objective,) if getattr(stylizer, "needs_objective", False) else ()
        hard: Tensor = stylizer(used, images, encode(used, images.float()), *more)
        return hard

    return call


@every
@pytest.mark.parametrize(("count", "channels"), [(4, 1), (4, 3), (1, 1), (1, 3)])
def test_hard_examples_are_images_without_gradient(
    make: Callable[..., nn.Module],
    count: int,
    channels: int,
    run: Callable[..., Tensor],
    make_images: Callable[..., Tensor],
) -> None:
    images = make_images(count, channels)
    hard = run(make(probability=1.0), images)
    assert hard.shape == images.shape
    assert hard.dtype == images.dtype
    assert not hard.requires_grad
    assert float(hard.min()) >= 0.0
    assert float(hard.max()) <= 1.0 + 1e-6
    if count > 1:
        assert not torch.allclose(hard, images, atol=1e-3)


@every
def test_images_stay_in_eval_mode_and_at_probability_zero(
    make: Callable[..., nn.Module], run: Callable[..., Tensor], make_images: Callable[..., Tensor]
) -> None:
    images = make_images()
    assert run(make(probability=1.0).eval(), images) is images
    assert torch.equal(run(make(probability=0.0), images), images)


@every
def test_images_themselves_are_not_written_to(
    make: Callable[..., nn.Module], run: Callable[..., Tensor], make_images: Callable[..., Tensor]
) -> None:
    images = make_images()
    run(make(probability=1.0), images)
    assert torch.equal(images, make_images())


@every
@pytest.mark.usefixtures("untouched_randomness")
def test_same_seed_makes_the_same_examples(
    make: Callable[..., nn.Module],
    run: Callable[..., Tensor],
    make_images: Callable[..., Tensor],
    make_network: Callable[..., DualDecoderNet],
) -> None:
    images, network = make_images(), make_network()
    first, second, other = make(seed=3), make(seed=3), make(seed=4)
    outputs = [run(first, images, network) for _ in range(4)]
    for output in outputs:
        assert torch.equal(output, run(second, images, network))
    assert not all(torch.equal(output, run(other, images, network)) for output in outputs)
    first.reseed(3)  # type: ignore[operator]
    assert all(torch.equal(run(first, images, network), output) for output in outputs)


@every
def test_network_is_left_as_it_was(
    make: Callable[..., nn.Module],
    run: Callable[..., Tensor],
    make_images: Callable[..., Tensor],
    make_network: Callable[..., DualDecoderNet],
) -> None:
    network = make_network()
    next(network.stem.parameters()).requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    asked = [parameter.requires_grad for parameter in network.parameters()]
    run(make(probability=1.0), make_images(), network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [parameter.requires_grad for parameter in network.parameters()] == asked
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.training


@every
def test_stylizer_has_nothing_to_save(make: Callable[..., nn.Module]) -> None:
    assert list(make().parameters()) == []
    assert make().state_dict() == {}


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite(
    make: Callable[..., nn.Module],
    dtype: torch.dtype,
    run: Callable[..., Tensor],
    make_images: Callable[..., Tensor],
) -> None:
    images = make_images().to(dtype)
    images[0] = 0.25  # an image without any contrast
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hard = run(make(probability=1.0), images)
    assert hard.dtype == dtype
    assert bool(hard.isfinite().all())


@every
@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_probability_out_of_range_is_refused(make: Callable[..., nn.Module], probability: float) -> None:
    with pytest.raises(ValueError, match=r"probability=.*in \[0, 1\]"):
        make(probability=probability)


@every
def test_settings_are_shown(make: Callable[..., nn.Module]) -> None:
    assert "probability=0.25" in repr(make(probability=0.25))
