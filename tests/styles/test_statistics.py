"""Reading channel statistics and putting others in their place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.styles import channel_statistics, mix_statistics
from mixstyleflow_monai.styles.statistics import VARIANCE_FLOOR


def features(seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([0.1, 1.0, 30.0])[:, None, None]
    return (scale * torch.randn(4, 3, 6, 5, generator=generator) - scale).to(dtype)


def target(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    return mean, 0.2 + torch.rand(4, 3, generator=generator, dtype=torch.float64)


def test_statistics_are_those_of_numpy_with_the_unbiased_variance() -> None:
    h = features()
    mean, std = channel_statistics(h)
    np.testing.assert_allclose(mean.numpy(), h.numpy().mean((2, 3)))
    np.testing.assert_allclose(std.numpy(), np.sqrt(h.numpy().var((2, 3), ddof=1) + VARIANCE_FLOOR))


def test_constant_channels_have_a_positive_spread() -> None:
    assert bool((channel_statistics(torch.ones(2, 3, 4, 4))[1] > 0).all())


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (2, 3, 4), (2, 3, 4, 4, 4)])
def test_other_shapes_and_single_pixels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, C, H, W\) with at least two pixels"):
        channel_statistics(torch.zeros(shape))


def test_weight_zero_changes_nothing() -> None:
    h = features(dtype=torch.float32)
    assert torch.equal(mix_statistics(h, *target(), torch.zeros(4, 1)), h)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weight_one_gives_the_target_statistics(dtype: torch.dtype) -> None:
    mean, std = target()
    out = mix_statistics(features(dtype=dtype), mean, std, torch.ones(4, 1))
    assert out.dtype == dtype
    got_mean, got_std = channel_statistics(out.double(), variance_floor=0.0)
    torch.testing.assert_close(got_mean, mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got_std, std, atol=1e-5, rtol=1e-5)


def test_weights_between_mix_means_and_spreads_linearly_for_each_image() -> None:
    h, (mean, std) = features(), target()
    own_mean, own_std = channel_statistics(h)
    weight = torch.tensor([0.0, 0.25, 0.7, 1.0], dtype=torch.float64)[:, None]
    got_mean, got_std = channel_statistics(mix_statistics(h, mean, std, weight), variance_floor=0.0)
    torch.testing.assert_close(got_mean, (1 - weight) * own_mean + weight * mean)
    torch.testing.assert_close(got_std, (1 - weight) * own_std + weight * std, atol=1e-5, rtol=1e-5)


def test_weight_by_channel_moves_only_its_channels() -> None:
    h = features()
    weight = torch.tensor([0.0, 1.0, 0.0]).expand(4, 3)
    out = mix_statistics(h, *target(), weight)
    assert torch.equal(out[:, [0, 2]], h[:, [0, 2]])
    assert not torch.allclose(out[:, 1], h[:, 1])


def test_gradient_is_the_scale_alone_because_statistics_are_detached() -> None:
    h = features().requires_grad_()
    mean, std = (t.requires_grad_() for t in target())
    weight = torch.full((4, 1), 0.3, dtype=torch.float64, requires_grad=True)
    mix_statistics(h, mean, std, weight).sum().backward()
    own_std = channel_statistics(h.detach())[1]
    scale = (0.7 * own_std + 0.3 * std.detach()) / own_std
    torch.testing.assert_close(h.grad, scale[..., None, None].expand_as(h))
    assert mean.grad is None
    assert std.grad is None
    assert weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_where_a_channel_is_constant(dtype: torch.dtype) -> None:
    h = torch.cat([torch.zeros(2, 1, 4, 4), torch.rand(2, 1, 4, 4)], dim=1).to(dtype)
    mean, std = channel_statistics(h)
    assert mean.dtype == std.dtype == torch.float32
    assert bool((std > 0).all())
    out = mix_statistics(h, torch.zeros(2, 2), torch.ones(2, 2), torch.full((2, 1), 0.5))
    assert out.dtype == dtype
    assert bool(out.isfinite().all())


@pytest.mark.parametrize(("name", "mean", "std"), [("mean", (4, 5), (4, 3)), ("std", (4, 3), (1, 3))])
def test_statistics_of_another_size_are_refused(name: str, mean: tuple[int, int], std: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"mix_statistics: {name} of shape .* expected \(4, 3\).*flows of this net"):
        mix_statistics(features(), torch.zeros(mean), torch.ones(std), torch.ones(4, 1))
