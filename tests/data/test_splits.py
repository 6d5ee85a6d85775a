"""Division of the source domain by groups."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from mixstyleflow_monai.data.splits import assign_splits


def make_cases(sizes: list[int], domain: str = "home") -> list[dict[str, Any]]:
    return [
        {"id": f"{group}.{i}", "domain": domain, "group": f"{group:03}"}
        for group, size in enumerate(sizes)
        for i in range(size)
    ]


def count(cases: list[dict[str, Any]]) -> dict[str, int]:
    return dict(Counter(case["split"] for case in cases))


@pytest.mark.parametrize("seed", range(20))
def test_groups_stay_whole_no_split_is_empty_and_shares_are_near(seed: int) -> None:
    sizes = np.random.default_rng(seed).integers(1, 12, size=3 + 3 * seed).tolist()
    done = assign_splits(make_cases(sizes), "home", seed=seed)
    splits_of = defaultdict(set)
    for case in done:
        splits_of[case["group"]].add(case["split"])
    assert all(len(splits) == 1 for splits in splits_of.values())
    found = count(done)
    assert set(found) == {"train", "validation", "test"}
    for split, fraction in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        assert abs(found[split] - fraction * len(done)) <= max(sizes)


@pytest.mark.parametrize(
    ("n", "expected"), [(3, (1, 1, 1)), (10, (7, 1, 2)), (100, (70, 10, 20)), (200, (140, 20, 40))]
)
def test_single_cases_are_divided_70_10_20(n: int, expected: tuple[int, int, int]) -> None:
    assert count(assign_splits(make_cases([1] * n), "home")) == dict(
        zip(("train", "validation", "test"), expected, strict=True)
    )


def test_a_dominant_group_goes_to_train() -> None:
    for seed in range(5):
        done = assign_splits(make_cases([1, 100, 1]), "home", seed=seed)
        assert count(done) == {"train": 100, "validation": 1, "test": 1}


def test_other_domains_are_test_only_and_the_input_is_left_alone() -> None:
    cases = make_cases([1] * 5) + make_cases([1] * 4, "away")
    done = assign_splits(cases, "home")
    assert {case["split"] for case in done if case["domain"] == "away"} == {"test"}
    assert all("split" not in case for case in cases)
    assert [case["id"] for case in done] == [case["id"] for case in cases]


def test_the_seed_decides_and_the_order_of_cases_does_not() -> None:
    cases = make_cases([3, 4, 5, 6, 7, 4, 5, 6])
    first = {case["id"]: case["split"] for case in assign_splits(cases, "home", seed=1)}
    assert {case["id"]: case["split"] for case in assign_splits(cases[::-1], "home", seed=1)} == first
    others = [{case["id"]: case["split"] for case in assign_splits(cases, "home", seed=seed)} for seed in range(2, 6)]
    assert any(other != first for other in others)


def test_mistakes_are_told_with_remedy() -> None:
    with pytest.raises(ValueError, match=r"2 group\(s\), '000' \(3 cases\), '001' \(3 cases\); .* at least 3 groups"):
        assign_splits(make_cases([3, 3]), "home")
    with pytest.raises(ValueError, match=r"no case is of the domain 'nowhere'; the cases have home"):
        assign_splits(make_cases([1, 1, 1]), "nowhere")
    for fractions in ((0.7, 0.2, 0.2), (0.8, 0.0, 0.2), (0.5, 0.5)):
        with pytest.raises(ValueError, match=r"fractions .* whose sum is 1"):
            assign_splits(make_cases([1] * 5), "home", fractions=fractions)
