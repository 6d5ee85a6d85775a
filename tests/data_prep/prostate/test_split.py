"""The paper's split and its low-data subsets."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from sklearn.model_selection import train_test_split

from data_prep.prostate.split import TEST_PATIENTS, check_train_fraction, divide, train_subset
from tests.data_prep.prostate.prostate_releases import DECATHLON_NUMBERS

NAMES = [f"prostate_{number:02d}" for number in DECATHLON_NUMBERS]


def split(fraction: float = 1.0, names: list[str] = NAMES) -> dict[str, set[str]]:
    split_of = divide(names, fraction).split_of
    return {kind: {name for name, s in split_of.items() if s == kind} for kind in ("train", "validation", "test")}


def test_the_papers_split_is_that_of_its_code() -> None:
    """Reference: the folder names patient_0 ... patient_31, sorted as texts, and one call of scikit-learn."""
    tested = {f"patient_{k}" for k in (17, 7, 12, 22, 0, 24, 5)}
    rest = sorted({f"patient_{k}" for k in range(32)} - tested)
    train, validation = train_test_split(rest, test_size=0.1, random_state=0)
    expected = {"train": train, "validation": validation, "test": tested}
    assert split() == {kind: {NAMES[int(p.split("_")[1])] for p in patients} for kind, patients in expected.items()}
    assert {kind: len(members) for kind, members in split().items()} == {"train": 22, "validation": 3, "test": 7}
    for fraction, count in ((0.1, 2), (0.3, 6)):
        subset = train_test_split(train, train_size=fraction, random_state=0)[0]
        assert split(fraction)["train"] == {NAMES[int(patient.split("_")[1])] for patient in subset}
        assert len(subset) == count


def test_the_test_patients_are_taken_by_position_whatever_the_order_of_the_list() -> None:
    assert split()["test"] == {NAMES[position] for position in TEST_PATIENTS}
    assert divide(NAMES[::-1], 0.3) == divide(NAMES, 0.3)


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.3, 0.5, 0.99, 2, 6, 21, 22])
def test_a_subset_changes_training_alone_and_a_number_gives_the_patients_of_its_share(fraction: float) -> None:
    whole, part = split(), split(fraction)
    count = int(fraction * 22) if fraction < 1 else int(fraction)
    assert len(part["train"]) == count
    assert part["train"] <= whole["train"]
    assert (part["validation"], part["test"]) == (whole["validation"], whole["test"])
    assert set(divide(NAMES, fraction).unused) == whole["train"] - part["train"]
    if 1 < count < 22:
        assert split(count)["train"] == part["train"]


@pytest.mark.parametrize("count", [3, 5, 10, 31, 33])
def test_another_number_of_cases_is_divided_by_fractions(count: int) -> None:
    names = [f"prostate_{number:02d}" for number in range(count)]
    division = divide(names)
    assert division.method == "fractions"
    assert sorted(division.split_of) == names
    assert min(Counter(division.split_of.values()).values()) >= 1
    assert len(set(division.split_of.values())) == 3
    assert divide(names[::-1]) == division


def test_too_few_cases_are_told() -> None:
    with pytest.raises(ValueError, match=r"lists 2 case\(s\); .* need at least 3 \(the release has 32\)"):
        divide(["a", "b"])


@pytest.mark.parametrize("value", [0, -0.1, 2.5, float("nan"), float("inf"), True, "0.1", None, [0.1]])
def test_impossible_fractions_are_refused_before_any_file(value: Any) -> None:
    with pytest.raises(ValueError, match=r"--train_fraction: found .*, allowed: a share above 0 and up to 1"):
        check_train_fraction(value)


def test_a_share_is_not_rounded_below_its_number_of_patients() -> None:
    """0.29 of 100 is 28.999999999999996 in floating point."""
    for size in (22, 29, 100):
        train = [str(number) for number in range(size)]
        for count in range(1, size):
            assert len(train_subset(train, count / size)) == count
    assert len(train_subset([str(number) for number in range(100)], 0.29)) == 29
    assert len(train_subset([str(number) for number in range(22)], 0.2999)) == 6


@pytest.mark.parametrize(("fraction", "count"), [(0.04, 0), (23, 23)])
def test_a_fraction_that_leaves_none_or_asks_for_more_is_refused(fraction: float, count: int) -> None:
    message = (
        rf"--train_fraction {fraction}: that is {count} of 22 .*; allowed: a share of 0\.05 to 1, or .* from 2 to 22"
    )
    with pytest.raises(ValueError, match=message):
        divide(NAMES, fraction)


def test_the_smallest_share_in_the_message_is_allowed() -> None:
    for size in range(2, 23):
        train = [str(number) for number in range(size)]
        with pytest.raises(ValueError, match=r"a share of (0\.\d+)") as caught:
            train_subset(train, 1e-6)
        least = float(str(caught.value).split("a share of ")[1].split()[0])
        assert len(train_subset(train, least)) == 1
