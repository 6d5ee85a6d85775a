"""Differences between methods, paired by case, with intervals over cases and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Comparison:
    """Mean difference in Dice points on unseen domains, and its interval.

    Attributes:
        difference: first minus second method, mean over sources, unseen domains, seeds and cases.
        low: lower end of the 95 % interval.
        high: upper end.
        by_seed: the difference for each seed that all sources have.
        has_interval: False for one seed and at most one patient (or case) a domain, of which nothing can be drawn.
    """

    difference: float
    low: float
    high: float
    by_seed: tuple[float, ...] = ()
    has_interval: bool = True

    @property
    def clear(self) -> bool:
        """True if there is an interval and it does not hold 0, nor the one over seeds where there is one."""
        if not self.has_interval:
            return False
        intervals = [(self.low, self.high), *([self.over_seeds] if self.over_seeds else [])]
        return all(low > 0 for low, _ in intervals) or all(high < 0 for _, high in intervals)

    @property
    def over_seeds(self) -> tuple[float, float] | None:
        """Student's 95 % interval over the differences of the seeds; None for fewer than two.

        It takes the cases as they are, and each seed as one observation. Where few seeds differ more than cases do, the
        bootstrap's interval is too narrow and this one is not; where cases differ more, it is the other way round
        (`benchmarks.interval_coverage`). A difference is safe where neither holds 0.
        """
        count = len(self.by_seed)
        if count < 2:
            return None
        half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1) * np.std(self.by_seed, ddof=1) / np.sqrt(count))
        return float(np.mean(self.by_seed)) - half, float(np.mean(self.by_seed)) + half


def unseen_differences(cases: pd.DataFrame, first: str, second: str) -> dict[tuple[str, str], pd.DataFrame]:
    """Return the difference of two methods for every case and seed that both have.

    Args:
        cases: columns source, domain, role, method, seed, case_id, region, dice (percent), and group, where that is
            known: the patient or field of a case, empty or missing for one that stands for itself.
        first: a method.
        second: another.

    Returns:
        (source, unseen domain) -> table of the difference of the mean Dice over regions, a row a seed and a column a
        (group, case). Seeds that one of the methods lacks are left out.
    """
    unseen = cases[(cases["role"] == "unseen") & cases["method"].isin([first, second])]
    given = unseen["group"].fillna("") if "group" in unseen else ""
    # An earlier record of one method may not know what a later one of the other does.
    group = unseen.assign(group=given).groupby(["domain", "case_id"])["group"].transform("max")
    unseen = unseen.assign(group=group.where(group != "", unseen["case_id"]))
    result: dict[tuple[str, str], pd.DataFrame] = {}
    for (source, domain), rows in unseen.groupby(["source", "domain"], sort=False):
        means = rows.groupby(["method", "seed", "group", "case_id"])["dice"].mean().unstack(["group", "case_id"])
        methods = set(means.index.get_level_values("method"))
        if not {first, second} <= methods:
            continue
        difference = pd.DataFrame(means.xs(first) - means.xs(second)).dropna(axis=0, how="all").dropna(axis=1)
        if len(difference) and difference.shape[1]:
            result[str(source), str(domain)] = difference
    return result


def paired_bootstrap(
    differences: Mapping[tuple[str, str], pd.DataFrame], *, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison | None:
    """Return the mean difference and its bootstrap interval, over cases and seeds, paired by case.

    Each draw takes as many seeds as there are, with replacement, the same for all domains, and in each domain as many
    groups of cases (patients, fields) as there are, the same for all seeds. Every unseen domain of a source weighs the
    same, and every source. With a single seed the interval is over cases alone; with few that differ it is too narrow,
    see `Comparison.over_seeds`.

    Args:
        differences: of `unseen_differences`.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        None if there is nothing to compare.
    """
    if not differences:
        return None
    random = np.random.default_rng(seed)
    seeds = sorted(set().union(*(table.index for table in differences.values())))
    seed_counts = random.multinomial(len(seeds), np.full(len(seeds), 1.0 / len(seeds)), size=resamples)
    of_source: dict[str, list[np.ndarray]] = {}
    mean_of_source: dict[str, list[np.ndarray]] = {}
    for (source, _), table in differences.items():
        values = table.reindex(seeds).to_numpy(dtype=float)
        known = ~np.isnan(values[:, 0])
        of_group = _members(table.columns)
        groups = len(of_group)
        counts = random.multinomial(groups, np.full(groups, 1.0 / groups), size=resamples)
        weights = seed_counts[:, known]
        # A draw of seeds none of which this source has says nothing about it; it takes the seeds as they are.
        weights = np.where(weights.sum(1, keepdims=True) == 0, 1, weights)
        of_draw = counts @ (of_group @ values[known].T) / (counts @ of_group.sum(1))[:, None]
        of_source.setdefault(source, []).append((of_draw * weights).sum(1) / weights.sum(1))
        mean_of_source.setdefault(source, []).append(values.mean(1))
    draws = np.mean([np.mean(parts, axis=0) for parts in of_source.values()], axis=0)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    mean = float(np.mean([np.mean([np.nanmean(part) for part in parts]) for parts in mean_of_source.values()]))
    of_seed = np.mean([np.mean(parts, axis=0) for parts in mean_of_source.values()], axis=0)
    by_seed = tuple(float(value) for value in of_seed[~np.isnan(of_seed)])
    drawn = len(seeds) > 1 or any(len(_members(table.columns)) > 1 for table in differences.values())
    return Comparison(mean, float(low), float(high), by_seed, drawn)


def _members(columns: pd.Index) -> np.ndarray:
    """Return which columns are of which group, as 0 and 1 of shape (groups, columns); each its own without groups."""
    if "group" not in columns.names:
        return np.eye(len(columns))
    number, names = pd.factorize(columns.get_level_values("group"))
    return (number == np.arange(len(names))[:, None]).astype(float)


def compare(cases: pd.DataFrame, first: str, second: str) -> Comparison | None:
    """Return `paired_bootstrap` of two methods of a table of cases."""
    return paired_bootstrap(unseen_differences(cases, first, second))


def summary(cases: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Return a row a method and seed with the source and unseen mean Dice, and the gap between them.

    The unseen mean gives every unseen domain of a source the same weight, and every source.
    """
    rows = []
    means = cases.groupby(["method", "seed", "source", "role", "domain", "region"])["dice"].mean()
    domains = means.groupby(["method", "seed", "source", "role", "domain"]).mean()
    by_source = domains.groupby(["method", "seed", "source", "role"]).mean()
    table = by_source.groupby(["method", "seed", "role"]).mean().unstack("role")
    for method in methods:
        if method not in table.index.get_level_values("method"):
            continue
        for seed, row in table.loc[method].iterrows():
            source, unseen = float(row.get("source", np.nan)), float(row.get("unseen", np.nan))
            rows.append({"method": method, "seed": seed, "source": source, "unseen": unseen, "gap": source - unseen})
    return pd.DataFrame(rows, columns=["method", "seed", "source", "unseen", "gap"])
