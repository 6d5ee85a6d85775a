"""Division of the source domain into train, validation and test, by whole groups."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixstyleflow_monai.data.dataset_description import SPLITS

FRACTIONS = (0.7, 0.1, 0.2)


def assign_splits(
    cases: Sequence[Mapping[str, Any]],
    source_domain: str,
    *,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return copies of ``cases`` with ``"split"`` set.

    Source cases are divided by ``"group"``: a group goes to one split as a whole, and each split gets at least one
    group. Every other domain is ``"test"``, and all are without a source. The result depends on the set of groups,
    their sizes and the seed, and not on the order of the cases.

    Args:
        cases: dicts with at least the keys ``"domain"`` and ``"group"``.
        source_domain: the domain to divide; empty for none.
        fractions: wanted share of train, validation and test cases; positive, sum 1.
        seed: seed of the shuffle of groups.

    Raises:
        ValueError: fractions that are not three positive numbers with sum 1, no source case, or fewer than 3 groups.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or not math.isclose(sum(fractions), 1.0, abs_tol=1e-6):
        raise ValueError(
            f"split: fractions of {', '.join(SPLITS)} are {tuple(fractions)}; "
            "give three numbers above 0 whose sum is 1, such as 0.7, 0.1, 0.2."
        )
    if not source_domain:
        return [{**case, "split": SPLITS[-1]} for case in cases]
    members: dict[str, int] = defaultdict(int)
    for case in cases:
        if case["domain"] == source_domain:
            members[case["group"]] += 1
    if len(members) < len(SPLITS):
        raise ValueError(_too_few_groups(cases, source_domain, members))
    names = sorted(members)
    order = np.random.default_rng(seed).permutation(len(names))
    split_of = _fill([(names[i], members[names[i]]) for i in order], fractions)
    return [{**case, "split": split_of[case["group"]] if case["domain"] == source_domain else "test"} for case in cases]


def _fill(groups: Sequence[tuple[str, int]], fractions: Sequence[float]) -> dict[str, str]:
    """Give each group to the split that lacks most of its wanted share; a split that would end empty comes first.

    Large groups go first, because a large one that comes last can no longer be balanced. Sizes are compared by their
    power of two only: similar groups keep the shuffled order, so that the seed decides between them.
    """
    total = sum(size for _, size in groups)
    wanted = {split: fraction * total for split, fraction in zip(SPLITS, fractions, strict=True)}
    held = dict.fromkeys(SPLITS, 0)
    split_of: dict[str, str] = {}
    ordered = sorted(groups, key=lambda group: -group[1].bit_length())
    for index, (name, size) in enumerate(ordered):
        empty = [split for split in SPLITS if held[split] == 0]
        choices = empty if len(ordered) - index <= len(empty) else SPLITS
        split = max(choices, key=lambda choice: (wanted[choice] - held[choice]) / (wanted[choice] + size))
        split_of[name] = split
        held[split] += size
    return split_of


def _too_few_groups(cases: Sequence[Mapping[str, Any]], source_domain: str, members: Mapping[str, int]) -> str:
    """Word the error for a source that cannot be divided in three."""
    if not members:
        domains = sorted({case["domain"] for case in cases})
        return (
            f"source_domain: no case is of the domain {source_domain!r}; the cases have {', '.join(domains) or 'none'}."
        )
    sizes = ", ".join(f"{name!r} ({size} cases)" for name, size in sorted(members.items()))
    return (
        f"source_domain {source_domain!r}: {len(members)} group(s), {sizes}; train, validation and test need at least "
        "3 groups, because a group is never divided. Choose a source with more groups, or group by something smaller "
        "(in a folder spec, the key `group` of the domain; leave it out for one group a case). Cases that are only "
        "to be tested on need no source: null."
    )
