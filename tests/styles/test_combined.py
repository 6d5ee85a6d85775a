"""Stylizers made of stylizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.styles import ChainedStylizer, RandomStylizer


class Part(nn.Module):
    """A stylizer that computes something known and notes what it was given."""

    def __init__(
        self, change: Callable[[Tensor], Tensor], *, needs_latent: bool = True, adversary: bool = False
    ) -> None:
        super().__init__()
        self.change = change
        self.needs_latent = needs_latent
        self.needs_objective = adversary
        self.latent = torch.empty(0)
        self.objectives: list[Callable[[Tensor], Tensor]] = []
        self.seed = -1

    def reseed(self, seed: int) -> None:
        self.seed = seed

    def forward(self, network: nn.Module, images: Tensor, latent: Tensor, *objectives: Callable[..., Tensor]) -> Tensor:
        self.latent = latent
        self.objectives.extend(objectives)
        return self.change(images)


def double(images: Tensor) -> Tensor:
    return 2.0 * images


def add_one(images: Tensor) -> Tensor:
    return images + 1.0


def test_parts_of_a_chain_follow_each_other(
    make_network: Callable[..., DualDecoderNet], make_images: Callable[..., Tensor]
) -> None:
    images = make_images()
    chain = ChainedStylizer([Part(double), Part(add_one)])
    torch.testing.assert_close(chain(make_network(), images, torch.zeros(1)), 2.0 * images + 1.0)
    assert chain.eval()(make_network(), images, torch.zeros(1)) is images


def test_each_part_gets_the_latent_of_its_own_input(
    make_network: Callable[..., DualDecoderNet],
    make_images: Callable[..., Tensor],
    encode: Callable[[DualDecoderNet, Tensor], Tensor],
) -> None:
    network, images, latent = make_network(), make_images(), torch.zeros(4, 128, 2, 2)
    first, second, third = Part(lambda images: images), Part(double), Part(add_one)
    ChainedStylizer([first, second, third])(network, images, latent)
    assert first.latent is second.latent is latent  # the first part left the images as they were
    torch.testing.assert_close(third.latent, encode(network, 2.0 * images))
    assert not third.latent.requires_grad


def test_part_that_uses_images_alone_costs_no_encoding(make_images: Callable[..., Tensor]) -> None:
    chain = ChainedStylizer([Part(double), Part(add_one, needs_latent=False)])
    images = make_images()
    torch.testing.assert_close(chain(None, images, torch.zeros(1)), 2.0 * images + 1.0)


@pytest.mark.parametrize("make", [ChainedStylizer, RandomStylizer])
def test_objective_goes_to_the_parts_that_need_it(
    make: Callable[[Sequence[nn.Module]], nn.Module], make_images: Callable[..., Tensor]
) -> None:
    adversary, plain = Part(double, adversary=True), Part(add_one, needs_latent=False)
    stylizer = make([adversary, plain])
    assert stylizer.needs_objective
    assert not make([plain]).needs_objective
    stylizer(None, make_images(), torch.zeros(1), torch.sum)
    assert adversary.objectives == [torch.sum]
    assert plain.objectives == []


@pytest.mark.parametrize("make", [ChainedStylizer, RandomStylizer])
@pytest.mark.usefixtures("untouched_randomness")
def test_parts_have_seeds_of_their_own_that_the_seed_determines(
    make: Callable[[Sequence[nn.Module]], nn.Module],
) -> None:
    parts = [Part(double), Part(double)]
    stylizer = make(parts)
    seeds = []
    for seed in (5, 6, 5):
        stylizer.reseed(seed)  # type: ignore[operator]
        seeds.append([part.seed for part in parts])
    assert seeds[0] == seeds[2] != seeds[1]
    assert len({*seeds[0], *seeds[1]}) == 4


def test_each_image_gets_one_of_the_stylizers(make_images: Callable[..., Tensor]) -> None:
    images = make_images(300)
    stylizer = RandomStylizer([Part(double), Part(add_one)], weights=[3, 1])
    hard = stylizer(None, images, torch.zeros(1))
    doubled = (hard == 2.0 * images).flatten(1).all(1)
    added = (hard == images + 1.0).flatten(1).all(1)
    assert bool((doubled ^ added).all())
    assert int(doubled.sum()) == pytest.approx(225, abs=30)
    assert stylizer.eval()(None, images, torch.zeros(1)) is images


def test_stylizer_of_weight_zero_is_never_chosen(make_images: Callable[..., Tensor]) -> None:
    images = make_images(50)
    hard = RandomStylizer([Part(double), Part(add_one)], weights=[0.0, 1.0])(None, images, torch.zeros(1))
    assert torch.equal(hard, images + 1.0)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]])
def test_wrong_weights_are_told(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="for 2 stylizers: expected one number of at least 0 for each"):
        RandomStylizer([Part(double), Part(add_one)], weights=weights)


@pytest.mark.parametrize("make", [ChainedStylizer, RandomStylizer])
def test_no_stylizer_is_told(make: Callable[[Sequence[nn.Module]], nn.Module]) -> None:
    with pytest.raises(ValueError, match="expected at least one"):
        make([])
