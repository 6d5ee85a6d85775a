"""DSU against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.styles import DSU
from mixstyleflow_monai.styles.dsu import DrawnUncertainty

EPS = 1e-6


def drawn(seed: int = 1) -> DrawnUncertainty:
    numbers = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return DrawnUncertainty(numbers[0], numbers[1])


def reference(x: np.ndarray, e_mean: np.ndarray, e_std: np.ndarray, factor: float) -> np.ndarray:
    """DSU with numpy."""
    mu, sigma = x.mean((2, 3)), np.sqrt(x.var((2, 3), ddof=1) + EPS)
    spread_mu, spread_sigma = (np.sqrt(s.var(0, ddof=1) + EPS)[None] for s in (mu, sigma))
    beta, gamma = mu + factor * e_mean * spread_mu, sigma + factor * e_std * spread_sigma
    normal = (x - mu[..., None, None]) / sigma[..., None, None]
    return normal * gamma[..., None, None] + beta[..., None, None]


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0])
def test_features_are_those_of_the_formula(features: Tensor, factor: float) -> None:
    numbers = drawn()
    expected = reference(features.numpy(), numbers.mean.numpy(), numbers.std.numpy(), factor)
    np.testing.assert_allclose(DSU(factor=factor).perturb(features, numbers).numpy(), expected, rtol=1e-6, atol=1e-9)


def test_statistics_carry_gradient_unless_they_are_detached(features: Tensor) -> None:
    numbers = drawn()
    for detach in (False, True):
        x = features.clone().requires_grad_()
        DSU(detach=detach).perturb(x, numbers).sum().backward()
        sigma = (features.var(dim=(2, 3)) + EPS).sqrt()
        spread = (sigma.var(0, keepdim=True) + EPS).sqrt()
        scale = ((sigma + numbers.std * spread) / sigma)[..., None, None].expand_as(x)
        assert torch.allclose(x.grad, scale) == detach
    x = features.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: DSU().perturb(v, numbers), (x,))


def test_numbers_are_standard_normal_an_image_and_channel() -> None:
    numbers = DSU(probability=1.0).draw(4000, 5)
    assert numbers is not None
    for values in (numbers.mean, numbers.std):
        assert values.shape == (4000, 5)
        assert float(values.mean()) == pytest.approx(0.0, abs=0.03)
        assert float(values.std()) == pytest.approx(1.0, abs=0.03)
    assert abs(float((numbers.mean * numbers.std).mean())) < 0.03


@pytest.mark.parametrize("factor", [-1.0, float("nan")])
def test_factor_out_of_range_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match=r"factor=.*at least 0"):
        DSU(factor=factor)
