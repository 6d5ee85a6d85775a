"""Tests of paired differences and their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mixstyleflow_monai.benchmark.records import CASE_COLUMNS
from mixstyleflow_monai.evaluation.comparison import Comparison, compare, paired_bootstrap, summary, unseen_differences


def make_cases(gain: float, noise: float = 0.0, seeds: int = 3, cases: int = 40, method: str = "b") -> pd.DataFrame:
    """Method "a" and another one that gains on unseen domains; cases differ much from each other."""
    random = np.random.default_rng(0)
    rows = []
    for domain, role in (("home", "source"), ("north", "unseen"), ("south", "unseen")):
        for case in range(cases if domain != "south" else cases // 2):
            base = random.uniform(20, 80)
            for seed in range(seeds):
                for name in ("a", method):
                    dice = base + random.normal(0, noise) + (gain if name == method and role == "unseen" else 0.0)
                    row = ("home", name, seed, domain, role, str(case))
                    rows += [(*row, region, dice, "") for region in ("x", "y")]
    return pd.DataFrame(rows, columns=CASE_COLUMNS)


def test_difference_is_paired_by_case() -> None:
    """Cases differ by tens of points; the interval of a constant gain has no width all the same."""
    found = compare(make_cases(3.0), "b", "a")
    assert found is not None
    assert (found.difference, found.low, found.high) == pytest.approx((3.0, 3.0, 3.0))
    assert found.clear


@pytest.mark.parametrize(("seeds", "cases", "drawn"), [(1, 1, False), (2, 1, True), (1, 2, True)])
def test_a_single_patient_and_seed_has_no_interval(seeds: int, cases: int, drawn: bool) -> None:
    table = make_cases(3.0, noise=1.0, seeds=seeds, cases=cases)
    found = compare(table[table["domain"] != "south"], "b", "a")
    assert found is not None
    assert found.has_interval == drawn
    assert drawn or not found.clear
    same_patient = compare(make_cases(3.0, noise=1.0, seeds=1).assign(group="p"), "b", "a")
    assert same_patient is not None
    assert not same_patient.has_interval


def test_opposite_comparison_has_the_opposite_sign() -> None:
    cases = make_cases(1.0, noise=2.0)
    forth, back = compare(cases, "b", "a"), compare(cases, "a", "b")
    assert forth is not None
    assert back is not None
    assert back.difference == pytest.approx(-forth.difference)
    assert back.low == pytest.approx(-forth.high, abs=0.05)


def test_interval_has_the_width_of_the_standard_error() -> None:
    """With one domain and one seed, the bootstrap of a mean has the width that its standard error says."""
    random = np.random.default_rng(1)
    values = random.normal(1.0, 5.0, size=(1, 400))
    found = paired_bootstrap({("home", "north"): pd.DataFrame(values, index=[0])})
    assert found is not None
    error = values.std(ddof=1) / 20.0
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)
    assert found.difference == pytest.approx(values.mean())


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for trial in range(200):
        values = np.random.default_rng(trial).normal(0.0, 5.0, size=(1, 60))
        found = paired_bootstrap({("home", "north"): pd.DataFrame(values, index=[0])}, resamples=400, seed=trial)
        assert found is not None
        covered += found.low <= 0.0 <= found.high
    assert 180 <= covered <= 199


def test_tiles_of_a_field_count_as_one() -> None:
    """Copies of a case within its group change nothing; copies that are groups of their own narrow the interval."""
    random = np.random.default_rng(2)
    values = random.normal(1.0, 5.0, size=(2, 12))
    names = [str(number) for number in range(12)]

    def interval(copies: int, grouped: bool) -> Comparison:
        columns = [
            (name if grouped else f"{name}/{copy}", f"{name}/{copy}") for copy in range(copies) for name in names
        ]
        index = pd.MultiIndex.from_tuples(columns, names=["group", "case_id"])
        found = paired_bootstrap({("home", "north"): pd.DataFrame(np.tile(values, copies), columns=index)})
        assert found is not None
        return found

    alone, tiles, apart = interval(1, True), interval(9, True), interval(9, False)
    assert (tiles.low, tiles.high) == pytest.approx((alone.low, alone.high))
    assert apart.high - apart.low < 0.8 * (tiles.high - tiles.low)


def test_large_groups_weigh_as_much_as_their_cases() -> None:
    columns = pd.MultiIndex.from_tuples([("a", "1"), ("a", "2"), ("a", "3"), ("b", "4")], names=["group", "case_id"])
    found = paired_bootstrap({("home", "north"): pd.DataFrame([[2.0, 2.0, 2.0, 6.0]], columns=columns)})
    assert found is not None
    assert (found.difference, found.low, found.high) == pytest.approx((3.0, 2.0, 6.0))


def test_groups_of_a_table_of_cases_are_read() -> None:
    cases = make_cases(1.0, noise=3.0)
    cases["group"] = [f"patient {int(case) % 4}" for case in cases["case_id"]]
    table = unseen_differences(cases, "b", "a")["home", "north"]
    assert table.shape == (3, 40)
    assert table.columns.names == ["group", "case_id"]
    assert set(table.columns.get_level_values("group")) == {f"patient {number}" for number in range(4)}


def test_groups_that_one_method_alone_tells_hold_for_both() -> None:
    """Records of an earlier version do not know the groups; their cases are the same ones."""
    cases = make_cases(1.0, noise=3.0)
    told = cases.assign(group=[f"patient {int(case) % 4}" for case in cases["case_id"]])
    half = told.assign(group=told["group"].where(told["method"] == "a", ""))
    whole, part = (unseen_differences(table, "b", "a")["home", "north"] for table in (told, half))
    pd.testing.assert_frame_equal(whole, part)


def test_interval_over_seeds_is_students() -> None:
    random = np.random.default_rng(3)
    values = random.normal(1.0, 5.0, size=(5, 30)) + random.normal(0.0, 3.0, size=(5, 1))
    found = paired_bootstrap({("home", "north"): pd.DataFrame(values)})
    assert found is not None
    assert found.by_seed == pytest.approx(values.mean(1))
    expected = stats.ttest_1samp(values.mean(1), 0.0).confidence_interval(0.95)
    assert found.over_seeds == pytest.approx((expected.low, expected.high))


def test_interval_over_seeds_needs_two_that_all_sources_have() -> None:
    tables = {
        ("home", "north"): pd.DataFrame([[1.0], [2.0], [4.0]], index=[0, 1, 2]),
        ("away", "south"): pd.DataFrame([[3.0], [5.0]], index=[1, 2]),
    }
    found = paired_bootstrap(tables)
    assert found is not None
    assert found.by_seed == pytest.approx((2.5, 4.5))
    single = paired_bootstrap({("home", "north"): pd.DataFrame([[1.0, 2.0]])})
    assert single is not None
    assert single.over_seeds is None


def test_interval_over_seeds_covers_the_truth_where_seeds_differ() -> None:
    """With three seeds that differ more than cases, where the bootstrap's is too narrow."""
    covered = {"bootstrap": 0, "seeds": 0}
    for trial in range(200):
        random = np.random.default_rng(trial)
        values = random.normal(0.0, 3.0, size=(3, 1)) + random.normal(0.0, 3.0, size=(3, 20))
        found = paired_bootstrap({("home", "north"): pd.DataFrame(values)}, resamples=400, seed=trial)
        assert found is not None
        assert found.over_seeds is not None
        covered["bootstrap"] += found.low <= 0.0 <= found.high
        covered["seeds"] += found.over_seeds[0] <= 0.0 <= found.over_seeds[1]
    assert 180 <= covered["seeds"] <= 199
    assert covered["bootstrap"] < covered["seeds"]


def test_spread_of_seeds_widens_the_interval() -> None:
    same, apart = (
        paired_bootstrap({("home", "north"): pd.DataFrame(np.outer(gains, np.ones(50)), index=[0, 1, 2])})
        for gains in ((1.0, 1.0, 1.0), (-4.0, 1.0, 6.0))
    )
    assert same is not None
    assert apart is not None
    assert same.clear
    assert not apart.clear
    assert apart.difference == pytest.approx(same.difference)


def test_unseen_domains_weigh_the_same_whatever_their_size() -> None:
    tables = {
        ("home", "north"): pd.DataFrame(np.full((1, 100), 2.0), index=[0]),
        ("home", "south"): pd.DataFrame(np.full((1, 5), 6.0), index=[0]),
    }
    found = paired_bootstrap(tables)
    assert found is not None
    assert found.difference == pytest.approx(4.0)


def test_seeds_that_one_method_lacks_are_left_out() -> None:
    cases = make_cases(2.0)
    cases = cases[~((cases["method"] == "b") & (cases["seed"] == 2))]
    tables = unseen_differences(cases, "b", "a")
    assert sorted(tables) == [("home", "north"), ("home", "south")]
    assert list(tables["home", "north"].index) == [0, 1]
    assert unseen_differences(cases, "b", "absent") == {}
    assert compare(cases, "b", "absent") is None


def test_summary_has_the_gap_between_source_and_unseen() -> None:
    table = summary(make_cases(5.0), ["b", "a", "absent"])
    assert list(table["method"].unique()) == ["b", "a"]
    own, other = (table[table["method"] == name].reset_index(drop=True) for name in ("b", "a"))
    assert (own["unseen"] - other["unseen"]).tolist() == pytest.approx([5.0] * 3)
    assert own["source"].tolist() == pytest.approx(other["source"].tolist())
    assert own["gap"].tolist() == pytest.approx((own["source"] - own["unseen"]).tolist())
