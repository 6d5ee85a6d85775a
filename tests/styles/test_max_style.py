"""MaxStyle: the style's formula, and the search."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.losses import SegmentationLoss
from mixstyleflow_monai.networks import DualDecoderNet, untracked_batch_norm
from mixstyleflow_monai.styles import MaxStyle
from mixstyleflow_monai.styles.max_style import DrawnSearch, LevelStart, _LevelStyle

EPS = 1e-6


def start(dtype: torch.dtype = torch.float64, channels: int = 3) -> LevelStart:
    noise = torch.randn(2, 4, channels, generator=torch.Generator().manual_seed(1), dtype=dtype)
    # The weight is trained without bounds and clipped where it is used.
    weight = torch.tensor([[-0.2], [0.25], [0.7], [1.3]], dtype=dtype)
    return LevelStart(torch.tensor([2, 0, 3, 1]), weight, noise[0], noise[1])


def reference(x: np.ndarray, s: LevelStart, spreads: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    mu, sigma = x.mean((2, 3)), np.sqrt(x.var((2, 3), ddof=1) + EPS)
    spread_mu, spread_sigma = spreads or (mu.std(0, ddof=1), sigma.std(0, ddof=1))
    w, p = np.clip(s.weight.numpy(), 0, 1), s.permutation.numpy()
    mixed_mu, mixed_sigma = mu * (1 - w) + mu[p] * w, sigma * (1 - w) + sigma[p] * w
    scale = mixed_sigma + s.std_noise.numpy() * spread_sigma
    shift = mixed_mu + s.mean_noise.numpy() * spread_mu
    normal = (x - mu[..., None, None]) / sigma[..., None, None]
    return scale[..., None, None] * normal + shift[..., None, None]


@pytest.fixture
def segment() -> Callable[[DualDecoderNet, Tensor], Callable[[Tensor], Tensor]]:
    """The objective of a batch as the trainer gives it."""

    def make(network: DualDecoderNet, images: Tensor) -> Callable[[Tensor], Tensor]:
        loss, target = SegmentationLoss(), (images[:, :1] > 0.5).float()

        def objective(hard: Tensor) -> Tensor:
            with untracked_batch_norm(network):
                value: Tensor = loss(network(hard), target)
            return value

        return objective

    return make


def test_style_is_that_of_the_formula(features: Tensor) -> None:
    style = _LevelStyle(start(), torch.device("cpu"))
    np.testing.assert_allclose(style(features).detach().numpy(), reference(features.numpy(), start()))


def test_spreads_over_the_batch_are_those_of_the_first_pass(features: Tensor) -> None:
    style, later = _LevelStyle(start(), torch.device("cpu")), 3.0 * features**2 - 1.0
    style(features)
    mu, sigma = features.mean((2, 3)), (features.var((2, 3)) + EPS).sqrt()
    expected = reference(later.numpy(), start(), (mu.std(0).numpy(), sigma.std(0).numpy()))
    np.testing.assert_allclose(style(later).detach().numpy(), expected)


def test_statistics_carry_no_gradient_and_style_parameters_do(features: Tensor) -> None:
    style = _LevelStyle(start(), torch.device("cpu"))
    x = features.clone().requires_grad_()
    style(x).square().sum().backward()
    assert all(parameter.grad is not None and bool((parameter.grad != 0).any()) for parameter in style.parameters())
    # Clipped weights do not move.
    assert torch.equal(style.weight.grad[[0, 3]], torch.zeros(2, 1, dtype=torch.float64))
    own = (features.var(dim=(2, 3)) + EPS).sqrt()
    scale = style(features).detach().var(dim=(2, 3)).sqrt() / features.var(dim=(2, 3)).sqrt()
    assert bool((own > 0).all())
    torch.testing.assert_close(x.grad.abs(), (2 * style(features).detach() * scale[..., None, None]).abs())


def test_search_raises_the_segmentation_loss(
    make_network: Callable[..., DualDecoderNet],
    make_images: Callable[..., Tensor],
    encode: Callable[[DualDecoderNet, Tensor], Tensor],
    segment: Callable[..., Callable[[Tensor], Tensor]],
) -> None:
    network, images = make_network(), make_images()
    objective, values = segment(network, images), []

    def spy(hard: Tensor) -> Tensor:
        value = objective(hard)
        values.append(float(value.detach()))
        return value

    stylizer = MaxStyle(probability=1.0, steps=6)
    stylizer(network, images, encode(network, images), spy)
    assert len(values) == 6
    assert values[-1] > values[0] + 1e-3


def test_first_step_moves_every_style_by_the_learning_rate(
    make_network: Callable[..., DualDecoderNet],
    make_images: Callable[..., Tensor],
    encode: Callable[[DualDecoderNet, Tensor], Tensor],
) -> None:
    """Adam's first step is the sign of the gradient; raising the mean raises the last level's mean noise."""
    network, images = make_network(), make_images()
    level = start(torch.float32, channels=1)
    drawn = DrawnSearch({5: level})
    decoded: list[Tensor] = []

    def objective(hard: Tensor) -> Tensor:
        decoded.append(hard.detach())
        return hard.sum()

    MaxStyle(steps=2, learning_rate=0.1).stylize(network, images, encode(network, images), objective, drawn)
    with torch.no_grad(), untracked_batch_norm(network):
        plain = network.decode_image(encode(network, images))
    mu = plain.mean((2, 3))
    weight = level.weight.clone()
    # The sum over pixels knows of means alone: spreads get no gradient but rounding, clipped weights none.
    gain = 0.1 * mu.std(0)
    sign = torch.sign(mu[level.permutation] - mu) * ((weight >= 0) & (weight <= 1))
    moved = (weight + 0.1 * sign).clamp(0, 1) - weight.clamp(0, 1)
    expected = gain + moved * (mu[level.permutation] - mu)
    torch.testing.assert_close((decoded[1] - decoded[0]).mean((2, 3)), expected, atol=2e-6, rtol=1e-3)


def test_hard_example_is_the_decoded_image_from_0_to_1_and_without_active_level_the_plain_one(
    make_network: Callable[..., DualDecoderNet],
    make_images: Callable[..., Tensor],
    encode: Callable[[DualDecoderNet, Tensor], Tensor],
    segment: Callable[..., Callable[[Tensor], Tensor]],
) -> None:
    network, images = make_network(3), make_images(4, 3)
    latent = encode(network, images)
    with torch.no_grad(), untracked_batch_norm(network):
        plain = network.decode_image(latent)
    low, high = plain.amin((2, 3), keepdim=True), plain.amax((2, 3), keepdim=True)
    hard = MaxStyle().stylize(network, images, latent, segment(network, images), DrawnSearch({}))
    torch.testing.assert_close(hard, (plain - low) / (high - low))
    styled = MaxStyle(probability=1.0)(network, images, latent, segment(network, images))
    torch.testing.assert_close(styled.amin((2, 3)), torch.zeros(4, 3))
    torch.testing.assert_close(styled.amax((2, 3)), torch.ones(4, 3))


def test_gradients_of_the_pass_before_are_not_disturbed(
    make_network: Callable[..., DualDecoderNet],
    make_images: Callable[..., Tensor],
    segment: Callable[..., Callable[[Tensor], Tensor]],
) -> None:
    """The trainer's clean pass has built its graph already, and its backward comes afterwards."""
    gradients = []
    for search in (False, True):
        network, images = make_network(), make_images()
        latent = network.encode(images)
        loss = network.decode_segmentation(latent).square().mean()
        if search:
            MaxStyle(probability=1.0)(network, images, latent, segment(network, images))
            assert all(parameter.grad is None for parameter in network.parameters())
        loss.backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_network_is_trainable_again_after_an_error(
    make_network: Callable[..., DualDecoderNet],
    make_images: Callable[..., Tensor],
    encode: Callable[[DualDecoderNet, Tensor], Tensor],
) -> None:
    network, images = make_network(), make_images()

    def failing(hard: Tensor) -> Tensor:
        assert not any(parameter.requires_grad for parameter in network.parameters())
        raise ValueError("no loss")

    with pytest.raises(ValueError, match="no loss"):
        MaxStyle(probability=1.0)(network, images, encode(network, images), failing)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_search_can_be_replayed(
    make_network: Callable[..., DualDecoderNet],
    make_images: Callable[..., Tensor],
    encode: Callable[[DualDecoderNet, Tensor], Tensor],
    segment: Callable[..., Callable[[Tensor], Tensor]],
) -> None:
    network, images = make_network(), make_images()
    stylizer = MaxStyle(probability=1.0)
    drawn = stylizer.draw(4, 1)
    both = [
        stylizer.stylize(network, images, encode(network, images), segment(network, images), drawn) for _ in range(2)
    ]
    assert torch.equal(*both)


def test_levels_are_active_half_of_the_time_and_partners_differ() -> None:
    stylizer = MaxStyle()
    drawn = [stylizer.draw(2, 3) for _ in range(300)]
    for level, channels in ((3, 16), (4, 16), (5, 3)):
        starts = [d.levels[level] for d in drawn if level in d.levels]
        assert len(starts) == pytest.approx(150, abs=35)
        assert all(s.permutation.tolist() == [1, 0] for s in starts)
        assert {tuple(s.mean_noise.shape) for s in starts} == {(2, channels)}


def test_batch_of_one_has_no_partner() -> None:
    assert MaxStyle(probability=1.0).draw(1, 1) == DrawnSearch({})


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"steps": -1}, "steps=-1"), ({"learning_rate": 0.0}, "learning_rate=0.0"), ({"alpha": -1.0}, "alpha=-1.0")],
)
def test_wrong_settings_are_told(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaxStyle(**settings)  # type: ignore[arg-type]
