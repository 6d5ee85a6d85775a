"""MixStyle against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.styles import MixStyle
from mixstyleflow_monai.styles.mix_style import DrawnMixing

EPS = 1e-6
DRAWN = DrawnMixing(torch.tensor([2, 0, 3, 1]), torch.tensor([[0.0], [0.25], [0.7], [1.0]], dtype=torch.float64))


def reference(x: np.ndarray, permutation: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """MixStyle image by image and channel by channel."""
    out = np.empty_like(x)
    for b, c in np.ndindex(x.shape[:2]):
        own, other = x[b, c], x[permutation[b], c]
        sigma, sigma_p = (np.sqrt(v.var(ddof=1) + EPS) for v in (own, other))
        w = weight[b, 0]
        normal = (own - own.mean()) / sigma
        out[b, c] = normal * (w * sigma + (1 - w) * sigma_p) + w * own.mean() + (1 - w) * other.mean()
    return out


def test_features_are_those_of_the_formula(features: Tensor) -> None:
    expected = reference(features.numpy(), DRAWN.permutation.numpy(), DRAWN.weight.numpy())
    np.testing.assert_allclose(MixStyle().perturb(features, DRAWN).numpy(), expected)


def test_statistics_carry_no_gradient(features: Tensor) -> None:
    x = features.clone().requires_grad_()
    MixStyle().perturb(x, DRAWN).sum().backward()
    sigma = (features.var(dim=(2, 3)) + EPS).sqrt()
    scale = (DRAWN.weight * sigma + (1 - DRAWN.weight) * sigma[DRAWN.permutation]) / sigma
    torch.testing.assert_close(x.grad, scale[..., None, None].expand_as(x))


def test_weights_follow_the_beta_law_an_image_and_partners_are_a_permutation() -> None:
    perturbation = MixStyle(alpha=0.1, probability=1.0)
    drawn = perturbation.draw(20_000, 3)
    assert drawn is not None
    assert torch.equal(drawn.permutation.sort().values, torch.arange(20_000))
    assert drawn.weight.shape == (20_000, 1)
    assert float(drawn.weight.double().var()) == pytest.approx(0.25 / 1.2, rel=0.03)


def test_alpha_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha=0"):
        MixStyle(alpha=0.0)
