"""The paper's division of the 32 Decathlon patients, and its low-data subsets of the training patients.

The official MixStyleFlow code names the patients ``patient_0`` to ``patient_31``, fixes seven of them as test patients,
sorts the other names as texts ("patient_10" before "patient_2") and divides them with scikit-learn. This is done here
with the same function and the same order, and so gives the same patients. Which patient of the release has which number
is not published; we number the cases of the release in the order of their names.

References:
    MixStyleFlow, MICCAI 2025, doi 10.1007/978-3-032-04947-6_36, and its official code
    Chen et al., MaxStyle, MICCAI 2022, from whose code the split comes
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sklearn.model_selection import train_test_split

from mixstyleflow_monai.data.dataset_description import SPLITS
from mixstyleflow_monai.data.splits import assign_splits

TEST_PATIENTS = (0, 5, 7, 12, 17, 22, 24)
PAPER_CASES = 32
PAPER_FRACTIONS = (22 / 32, 3 / 32, 7 / 32)
SEED = 0


@dataclass(frozen=True)
class Division:
    """Who is in which split.

    Attributes:
        split_of: split of each case that is used.
        unused: training patients that a low-data subset leaves out, in alphabetical order.
        method: "paper", or "fractions" where the number of cases is not the paper's.
    """

    split_of: dict[str, str]
    unused: tuple[str, ...]
    method: str


def divide(names: Sequence[str], train_fraction: float = 1.0) -> Division:
    """Divide the cases of the release: as the paper does if there are 32, else by seeded fractions of the same size.

    Args:
        names: case names of the release, all of them, also of cases that later turn out to be unusable: damage to one
            file then moves no other patient.
        train_fraction: see :func:`train_subset`.

    Raises:
        ValueError: fewer than three cases, or a fraction that leaves no training patient or asks for too many.
    """
    ordered = sorted(names)
    if len(ordered) == PAPER_CASES:
        train, validation, test = _paper_split(ordered)
        method = "paper"
    else:
        train, validation, test = _fraction_split(ordered)
        method = "fractions"
    kept = train_subset(train, train_fraction)
    split_of = dict.fromkeys(kept, "train") | dict.fromkeys(validation, "validation") | dict.fromkeys(test, "test")
    return Division(split_of, tuple(sorted(set(train) - set(kept))), method)


def train_subset(train: Sequence[str], train_fraction: float) -> list[str]:
    """Return the training patients of a low-data experiment; validation and test stay as they are.

    The same number of patients gives the same patients, whether it is asked for as a share or as a number. (The
    official code draws a number of patients, not a share, from the first half of the list only.)

    Args:
        train: training patients, in the order in which they were drawn.
        train_fraction: 1 for all; a share between 0 and 1, rounded down (0.1 of 22 gives 2, 0.3 gives 6); or a whole
            number above 1 of patients.

    Raises:
        ValueError: none or more than all patients would be left.
    """
    fraction = check_train_fraction(train_fraction)
    if fraction == 1:
        return list(train)
    # 0.29 of 100 is 28.999999999999996 in floating point.
    count = math.floor(fraction * len(train) + 1e-9) if fraction < 1 else int(fraction)
    if not 1 <= count <= len(train):
        least = math.ceil(100 / len(train)) / 100
        raise ValueError(
            f"--train_fraction {train_fraction}: that is {count} of {len(train)} training patients; allowed: a share "
            f"of {least:g} to 1, or a number of patients from 2 to {len(train)}."
        )
    if count == len(train):
        return list(train)
    subset: list[str] = train_test_split(list(train), train_size=count, random_state=SEED)[0]
    return subset


def check_train_fraction(value: Any) -> float:
    """Return ``value`` if it can be a share or a number of patients, before any file is read.

    Raises:
        ValueError: not a number, not above 0, or a broken number above 1.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value <= 0 or (value > 1 and value != int(value)):
        raise ValueError(
            f"--train_fraction: found {value!r}, allowed: a share above 0 and up to 1, such as 0.1, or a whole number "
            "of patients above 1."
        )
    return float(value)


def _paper_split(ordered: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Return train, validation and test of the 32 cases."""
    name_of = {f"patient_{number}": name for number, name in enumerate(ordered)}
    tested = {f"patient_{number}" for number in TEST_PATIENTS}
    train, validation = train_test_split(sorted(set(name_of) - tested), test_size=0.1, random_state=SEED)
    return [name_of[n] for n in train], [name_of[n] for n in validation], [ordered[n] for n in TEST_PATIENTS]


def _fraction_split(ordered: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Return train, validation and test of any other number of cases."""
    if len(ordered) < len(SPLITS):
        raise ValueError(
            f"Task05_Prostate: dataset.json lists {len(ordered)} case(s); train, validation and test need at least 3 "
            f"(the release has {PAPER_CASES}). Give the whole release."
        )
    entries = [{"domain": "decathlon", "group": name} for name in ordered]
    assigned = assign_splits(entries, "decathlon", fractions=PAPER_FRACTIONS, seed=SEED)
    train, validation, test = ([e["group"] for e in assigned if e["split"] == split] for split in SPLITS)
    return train, validation, test
