"""EFDMix against its formula."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mixstyleflow_monai.styles import EFDMix
from mixstyleflow_monai.styles.mix_style import DrawnMixing

DRAWN = DrawnMixing(torch.tensor([2, 0, 3, 1]), torch.tensor([[0.0], [0.25], [0.7], [1.0]], dtype=torch.float64))


def reference(x: np.ndarray, permutation: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """EFDMix channel by channel: the k-th smallest value meets the k-th smallest value of the partner."""
    out = np.empty_like(x)
    for b, c in np.ndindex(x.shape[:2]):
        own, other = x[b, c].ravel(), np.sort(x[permutation[b], c].ravel())
        matched = np.empty_like(own)
        matched[np.argsort(own)] = other
        out[b, c] = (own + (1 - weight[b, 0]) * (matched - own)).reshape(x.shape[2:])
    return out


def test_features_are_those_of_the_formula(features: Tensor) -> None:
    expected = reference(features.numpy(), DRAWN.permutation.numpy(), DRAWN.weight.numpy())
    np.testing.assert_allclose(EFDMix().perturb(features, DRAWN).numpy(), expected)


def test_weight_zero_gives_the_partner_s_values_in_the_image_s_order(features: Tensor) -> None:
    drawn = DrawnMixing(DRAWN.permutation, torch.zeros(4, 1))
    out = EFDMix().perturb(features, drawn)
    torch.testing.assert_close(out.flatten(2).sort(-1).values, features[DRAWN.permutation].flatten(2).sort(-1).values)
    assert torch.equal(out.flatten(2).argsort(-1), features.flatten(2).argsort(-1))


def test_gradient_passes_to_the_image_and_to_its_partner(features: Tensor) -> None:
    x = features.clone().requires_grad_()
    weights = torch.arange(1.0, 5.0, dtype=torch.float64)
    (EFDMix().perturb(x, DRAWN).sum((1, 2, 3)) * weights).sum().backward()
    # Every pixel of an image gets 1 from itself and, as a partner, (1 - w) from the image it was dealt to.
    expected = weights.clone()
    for image, partner in enumerate(DRAWN.permutation.tolist()):
        expected[partner] += (1 - DRAWN.weight[image, 0]) * weights[image]
    torch.testing.assert_close(x.grad, expected[:, None, None, None].expand_as(x))
