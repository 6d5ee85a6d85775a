"""Tests of the measurement of intervals."""

from __future__ import annotations

import pytest

from benchmarks.interval_coverage import coverage, main


def test_few_seeds_that_differ_need_the_interval_over_seeds() -> None:
    bootstrap, over_seeds = coverage(3, 10.0, cases=20, trials=100, resamples=200)
    assert bootstrap < 0.88 < over_seeds


def test_cases_that_differ_need_the_bootstrap() -> None:
    bootstrap, over_seeds = coverage(6, 0.1, cases=20, trials=100, resamples=200)
    assert over_seeds < 0.5 < 0.85 < bootstrap


def test_a_single_seed_has_no_interval_over_seeds() -> None:
    with pytest.raises(ValueError, match="seeds=1"):
        coverage(1, 1.0, cases=5, trials=1, resamples=10)


def test_table_has_a_row_a_number_of_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    main(seeds=(2, 3), ratios=(1.0,), cases=5, trials=3, resamples=20)
    assert capsys.readouterr().out.count(" / ") == 3
