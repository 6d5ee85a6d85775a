"""TriD against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.styles import TriD
from mixstyleflow_monai.styles.tri_d import DrawnStatistics

EPS = 1e-6


def drawn() -> DrawnStatistics:
    mean, std = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    taken = torch.tensor([[0, 1, 1], [1, 0, 0], [1, 1, 1], [0, 0, 0]], dtype=torch.float64)
    return DrawnStatistics(mean, std, taken)


def test_features_are_those_of_the_formula(features: Tensor) -> None:
    numbers, x = drawn(), features.numpy()
    expected = np.empty_like(x)
    for b, c in np.ndindex(4, 3):
        mu, sigma = x[b, c].mean(), np.sqrt(x[b, c].var(ddof=1) + EPS)
        new = (numbers.mean[b, c].item(), numbers.std[b, c].item()) if numbers.taken[b, c] else (mu, sigma)
        expected[b, c] = (x[b, c] - mu) / sigma * new[1] + new[0]
    np.testing.assert_allclose(TriD().perturb(features, numbers).numpy(), expected)


def test_statistics_carry_no_gradient(features: Tensor) -> None:
    numbers = drawn()
    x = features.clone().requires_grad_()
    TriD().perturb(x, numbers).sum().backward()
    sigma = (features.var(dim=(2, 3)) + EPS).sqrt()
    scale = (numbers.taken * numbers.std + (1 - numbers.taken) * sigma) / sigma
    torch.testing.assert_close(x.grad, scale[..., None, None].expand_as(x))


def test_new_statistics_are_uniform_and_half_of_the_channels_take_them() -> None:
    numbers = TriD(probability=1.0).draw(5000, 4)
    assert numbers is not None
    for values in (numbers.mean, numbers.std):
        assert 0.0 <= float(values.min()) <= float(values.max()) < 1.0
        assert float(values.double().var()) == pytest.approx(1 / 12, rel=0.03)
    assert set(numbers.taken.unique().tolist()) == {0.0, 1.0}
    assert float(numbers.taken.mean()) == pytest.approx(0.5, abs=0.015)
    # Channels of an image are independent of each other, as in the law of the paper.
    assert abs(float(torch.corrcoef(numbers.taken.T)[0, 1])) < 0.06
