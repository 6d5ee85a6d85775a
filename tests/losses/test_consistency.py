"""Tests of the divergence between predictions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, kl_divergence

from mixstyleflow_monai.losses import prediction_divergence


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_views_that_agree_do_not_diverge(activation: str) -> None:
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert prediction_divergence([logits] * 3, activation).item() == pytest.approx(0.0, abs=1e-6)


def test_bernoulli_divergence_is_that_of_torch_distributions() -> None:
    views = list(torch.randn(3, 2, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    average = torch.stack([view.sigmoid() for view in views]).mean(0)
    expected = torch.stack([kl_divergence(Bernoulli(logits=view), Bernoulli(average)).mean() for view in views]).mean()
    assert prediction_divergence(views).item() == pytest.approx(expected.item(), rel=1e-5)


def test_categorical_divergence_is_that_of_torch_distributions() -> None:
    views = list(torch.randn(2, 2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    laws = [view.softmax(1).movedim(1, -1) for view in views]
    average = Categorical(torch.stack(laws).mean(0))
    expected = torch.stack([kl_divergence(Categorical(law), average).mean() for law in laws]).mean()
    assert prediction_divergence(views, "softmax").item() == pytest.approx(expected.item(), rel=1e-5)


def test_certain_and_contrary_views_diverge_by_log_two_with_finite_gradients() -> None:
    views = [torch.full((1, 1, 4, 4), value, requires_grad=True) for value in (80.0, -80.0)]
    divergence = prediction_divergence(views)
    divergence.backward()
    assert divergence.item() == pytest.approx(math.log(2.0), rel=1e-4)
    for view in views:
        assert view.grad is not None
        assert torch.isfinite(view.grad).all()


def test_gradient_reaches_every_view() -> None:
    views = [torch.randn(1, 1, 4, 4, requires_grad=True) for _ in range(3)]
    prediction_divergence(views).backward()
    assert all(view.grad is not None and view.grad.abs().sum() > 0 for view in views)
