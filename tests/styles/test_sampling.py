"""Random numbers of the styles."""

from __future__ import annotations

import pytest
import torch

from mixstyleflow_monai.styles.sampling import check_positive, check_probability, draw_beta, draw_seeds


@pytest.mark.parametrize("alpha", [0.1, 1.0, 3.0])
def test_beta_numbers_have_the_mean_and_variance_of_the_law(alpha: float) -> None:
    drawn = draw_beta((20_000, 1), alpha, torch.Generator().manual_seed(0)).double()
    assert 0.0 <= float(drawn.min()) <= float(drawn.max()) <= 1.0
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.015)
    assert float(drawn.var()) == pytest.approx(0.25 / (2 * alpha + 1), rel=0.04)


@pytest.mark.usefixtures("untouched_randomness")
def test_numbers_come_from_the_given_generator_alone() -> None:
    first, second = (torch.Generator().manual_seed(3) for _ in range(2))
    assert torch.equal(draw_beta((5,), 0.1, first), draw_beta((5,), 0.1, second))
    seeds = draw_seeds(5, first)
    assert seeds == draw_seeds(5, second)
    assert len(set(seeds)) == 5
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_probability_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"probability=.*expected a number in \[0, 1\]"):
        check_probability(value)


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_number_that_is_not_positive_is_refused_by_its_name(value: float) -> None:
    with pytest.raises(ValueError, match=r"alpha=.*expected a finite number above 0"):
        check_positive("alpha", value)
