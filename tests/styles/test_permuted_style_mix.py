"""The control of flow styles: statistics dealt out within the batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.networks import DualDecoderNet, untracked_batch_norm
from mixstyleflow_monai.styles import IMAGE_LEVEL, DrawnStyle, FlowStyleMix, LevelStyle, PermutedStyleMix
from mixstyleflow_monai.styles.permuted_style_mix import DrawnPermutations, LevelPermutation


@pytest.mark.parametrize("output", ["decoded", "detail"])
def test_statistics_are_mixed_with_those_of_the_plainly_decoded_partner(
    output: str,
    make_network: Callable[..., DualDecoderNet],
    make_images: Callable[..., Tensor],
    encode: Callable[[DualDecoderNet, Tensor], Tensor],
) -> None:
    network, images = make_network().double(), make_images().double()
    latent = encode(network, images)
    weight = torch.tensor([[0.0], [0.3], [0.8], [1.0]], dtype=torch.float64)
    deals = {3: torch.tensor([1, 2, 3, 0]), 4: torch.tensor([3, 0, 1, 2])}
    drawn = DrawnPermutations({level: LevelPermutation(deal, weight) for level, deal in deals.items()})
    hard = PermutedStyleMix(output=output).stylize(network, images, latent, drawn)

    with torch.no_grad(), untracked_batch_norm(network):
        plain = network.image_levels(latent)

        def hook(level: int, h: Tensor) -> Tensor:
            if level not in deals:
                return h
            w = weight[..., None, None]
            mu, sigma = h.mean((2, 3), keepdim=True), h.std((2, 3), keepdim=True)
            partner = plain[level][deals[level]]
            mu_p, sigma_p = partner.mean((2, 3), keepdim=True), partner.std((2, 3), keepdim=True)
            return (h - mu) / sigma * ((1 - w) * sigma + w * sigma_p) + (1 - w) * mu + w * mu_p

        styled = network.decode_image(latent, hook)
    if output == "detail":
        expected = (images + styled - plain[5]).clamp(0, 1)
    else:
        low, high = styled.amin((2, 3), keepdim=True), styled.amax((2, 3), keepdim=True)
        expected = (styled - low) / (high - low)
    torch.testing.assert_close(hard, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("batch_norm", ["batch", "running"])
def test_same_styles_make_what_flows_with_these_styles_make(
    batch_norm: str,
    make_network: Callable[..., DualDecoderNet],
    make_images: Callable[..., Tensor],
    encode: Callable[[DualDecoderNet, Tensor], Tensor],
) -> None:
    """At the levels of the decoder and of the image itself, and with either setting of batch norm."""
    network, images = make_network(3), make_images(channels=3)
    network(make_images(8, channels=3, seed=1))  # running statistics other than those at the start
    latent = encode(network, images)
    deals = {2: torch.tensor([1, 2, 3, 0]), 4: torch.tensor([2, 2, 2, 2]), IMAGE_LEVEL: torch.tensor([3, 0, 1, 2])}
    weight = torch.tensor([[0.2], [0.5], [0.9], [1.0]])
    drawn = DrawnPermutations({level: LevelPermutation(deal, weight) for level, deal in deals.items()})
    permuted = PermutedStyleMix([2, 4, IMAGE_LEVEL], batch_norm=batch_norm, image_channels=3)

    # What phase 2 would gather of these images, as flows would draw it.
    with torch.no_grad():
        if batch_norm == "running":
            features = copy.deepcopy(network).eval().image_levels(copy.deepcopy(network).eval().encode(images))
        else:
            with untracked_batch_norm(network):
                features = network.image_levels(latent)
    features[IMAGE_LEVEL] = images
    styles = {
        level: LevelStyle(features[level].mean((2, 3))[deal], features[level].std((2, 3))[deal], weight)
        for level, deal in deals.items()
    }
    flows = FlowStyleMix(StyleFlowBank({2: 32, 4: 16, 5: 3}, {2: 1.0, 4: 1.0, 5: 1.0}, batch_norm=batch_norm))
    expected = flows.stylize(network, images, latent, DrawnStyle(styles))
    torch.testing.assert_close(permuted.stylize(network, images, latent, drawn), expected, atol=1e-5, rtol=1e-4)
    other = PermutedStyleMix([2, 4, IMAGE_LEVEL], batch_norm="running" if batch_norm == "batch" else "batch")
    assert (other.stylize(network, images, latent, drawn) - expected).abs().max() > 1e-3


def test_styles_of_images_alone_decode_nothing(make_images: Callable[..., Tensor]) -> None:
    """With w = 1 each channel has the statistics of the partner's."""
    images = 0.4 + 0.2 * make_images(channels=3)
    drawn = DrawnPermutations({IMAGE_LEVEL: LevelPermutation(torch.tensor([1, 2, 3, 0]), torch.ones(4, 3))})
    network: Any = None
    hard = PermutedStyleMix([IMAGE_LEVEL], image_channels=3).stylize(network, images, torch.empty(0), drawn)
    torch.testing.assert_close(hard.mean((2, 3)), images.mean((2, 3))[[1, 2, 3, 0]], atol=1e-4, rtol=0)
    torch.testing.assert_close(hard.std((2, 3)), images.std((2, 3))[[1, 2, 3, 0]], atol=1e-4, rtol=0)


def test_partners_are_a_permutation_an_image_or_one_image_for_the_batch() -> None:
    dealt = PermutedStyleMix(probability=1.0).draw(9)
    assert list(dealt.levels) == [2, 3, 4]
    for level in dealt.levels.values():
        assert sorted(level.permutation.tolist()) == list(range(9))
        assert level.weight.shape == (9, 1)
    assert dealt.levels[2].permutation.tolist() != dealt.levels[3].permutation.tolist()
    settings: dict[str, Any] = {"probability": 1.0, "style_per": "batch", "weight_per": "channel"}
    one = PermutedStyleMix([5, 2, 3, 4], image_channels=3, **settings).draw(9)
    assert list(one.levels) == [2, 3, 4, 5]
    for number, channels in ((2, 32), (3, 16), (4, 16), (5, 3)):
        assert len(one.levels[number].permutation.unique()) == 1
        assert one.levels[number].permutation.shape == (9,)
        assert one.levels[number].weight.shape == (9, channels)


def test_levels_are_active_as_often_as_with_flows() -> None:
    stylizer = PermutedStyleMix()
    active = sum(len(stylizer.draw(2).levels) for _ in range(400))
    assert active == pytest.approx(600, abs=70)
    assert stylizer.draw(2, probability=0.0) == DrawnPermutations({})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": [6]}, r"levels=\[6\]: expected some of \[0, 1, 2, 3, 4, 5\]"),
        ({"levels": 5}, r"style_levels=5: expected a list of levels"),
        ({"levels": []}, r"levels=\[\]"),
        ({"levels": [2, 2]}, "each once"),
        ({"batch_norm": "eval"}, r"style_batch_norm='eval': expected one of \('batch', 'running'\)"),
        ({"output": "latent"}, "output='latent'"),
        ({"alpha": 0.0}, "alpha=0.0"),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PermutedStyleMix(**settings)
