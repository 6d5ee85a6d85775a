"""The whitening penalty: its formula against loops, its margin, its refusals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.losses.whitening import whitening_penalty


def by_loops(features: Tensor, weights: Tensor) -> float:
    """The penalty with a loop over groups, images and pairs of classes."""
    classes, channels = weights.shape
    pixels = features.shape[2] * features.shape[3]
    order = [sorted(range(channels), key=lambda k: -abs(float(weights[c, k]))) for c in range(classes)]
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    penalty = 0.0
    for k in range(channels // classes):
        maps = [order[c][k] for c in range(classes)]
        factors = [1 / (1 + math.exp(-abs(float(weights[c, maps[c]])))) for c in range(classes)]
        for image in features:
            total = 0.0
            for i, j in pairs:
                product = float((image[maps[i]] * image[maps[j]]).sum()) * factors[i] * factors[j]
                total += abs(product / (pixels - 1))
            penalty += max(0.0, (total - len(pairs) // 2) / len(pairs)) / len(features)
    return penalty


@pytest.mark.parametrize(("classes", "channels"), [(2, 6), (3, 8), (4, 4)])
def test_penalty_is_the_formula(classes: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    features = 2 * torch.rand(3, channels, 5, 4, generator=generator, dtype=torch.float64)
    weights = torch.randn(classes, channels, generator=generator, dtype=torch.float64)
    assert float(whitening_penalty(features, weights)) == pytest.approx(by_loops(features, weights))
    assert by_loops(features, weights) > 0


def test_uncorrelated_channels_cost_nothing_and_the_margin_is_free() -> None:
    # Two channels that are never on at the same pixel; each is the best one of a class.
    features = torch.zeros(1, 2, 2, 2)
    features[0, 0, 0], features[0, 1, 1] = 1.0, 1.0
    assert float(whitening_penalty(features, torch.tensor([[2.0, 1.0], [1.0, 2.0]]))) == 0
    # Of three classes a sum of covariances up to 1 is free.
    ones = torch.full((1, 3, 2, 2), 0.5)
    assert float(whitening_penalty(ones, torch.eye(3))) == 0
    assert float(whitening_penalty(4 * ones, torch.eye(3))) > 0


def test_gradient_reaches_features_and_not_the_classifier() -> None:
    features = torch.rand(2, 4, 3, 3, requires_grad=True)
    weights = torch.rand(2, 4, requires_grad=True)
    whitening_penalty(features, weights).backward()
    assert features.grad is not None
    assert bool(features.grad.any())
    assert weights.grad is None


@pytest.mark.parametrize("shape", [(1, 4), (5, 4), (2, 3)])
def test_shapes_that_do_not_fit_are_told(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"class_weights \(\d, \d\) for features \(1, 4, 2, 2\)"):
        whitening_penalty(torch.rand(1, 4, 2, 2), torch.rand(shape))
