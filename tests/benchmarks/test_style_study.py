"""Tests of the measures of the style study."""

from __future__ import annotations

import pytest
import torch

from benchmarks.style_study import _nearest, coverage, gradient_correlation, inside, mmd


def normal(count: int, shift: float = 0.0, spread: float = 1.0, seed: int = 0) -> torch.Tensor:
    return shift + spread * torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


def test_discrepancy_is_about_zero_for_one_law_and_grows_with_the_distance() -> None:
    same, near, far = (mmd(normal(150), normal(300, shift, seed=1)) for shift in (0.0, 1.0, 3.0))
    assert abs(same) < 0.02
    assert same < near < far


def test_discrepancy_is_that_of_an_independent_computation() -> None:
    first, second = normal(12).double(), normal(200, 0.5, seed=3).double()
    joined = torch.cat([first, second])
    distances = torch.stack([torch.stack([(a - b).square().sum() for b in joined]) for a in joined])
    median = distances[distances > 0].median()
    kernel = torch.stack([torch.exp(-distances / (f * median)) for f in (0.25, 0.5, 1.0, 2.0, 4.0)]).mean(0)

    def mean_kernel(rows: range, columns: range) -> float:
        return float(torch.stack([kernel[i, j] for i in rows for j in columns if i != j]).mean())

    own, other = range(12), range(12, 212)
    expected = mean_kernel(own, own) + mean_kernel(other, other) - 2 * mean_kernel(own, other)
    assert mmd(first, second) == pytest.approx(expected, abs=1e-6)


def test_coverage_and_envelope_hold_their_own_law_and_not_a_far_one() -> None:
    samples = normal(2000, seed=1)
    assert coverage(normal(300), samples) == pytest.approx(0.99, abs=0.01)
    assert inside(normal(300), samples) == pytest.approx(0.95, abs=0.04)
    assert coverage(normal(300, 8.0), samples) < 0.01
    assert inside(normal(300, 8.0), samples) == 0.0


def test_gradient_correlation_ignores_contrast_and_sees_lost_anatomy() -> None:
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    other = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(gradient_correlation(images, 0.3 * images + 0.2), torch.ones(3), atol=1e-4, rtol=0)
    assert gradient_correlation(images, other).abs().max() < 0.2


def test_distance_of_grey_values_is_the_shift_between_them() -> None:
    images = 0.5 * torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(_nearest(images + 0.2, images), torch.tensor([0.2]), atol=1e-4, rtol=0)
    # Of a pool, the nearest counts.
    pool = torch.cat([images, images + 0.3])
    torch.testing.assert_close(_nearest(images + 0.2, pool), torch.tensor([0.1]), atol=1e-4, rtol=0)
