"""Cases that show the same thing: kept in one split, and out of all domains but one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from data_prep.duplicates import DisjointSets, group_near_duplicates
from data_prep.folder_cases import FoundCase, relative_to
from data_prep.import_summary import LeftOut


def cluster_cases(
    cases: Sequence[FoundCase], source_domain: str, max_distance: int | None = None
) -> list[dict[str, list[FoundCase]]]:
    """Return the sets of cases that show the same thing, each as cases by domain, the source domain first.

    Args:
        cases: written cases.
        source_domain: the domain that keeps an image which others have too.
        max_distance: bits by which perceptual hashes may differ; None for equal pixels only.
    """
    ordered = sorted(cases, key=lambda case: case.domain.name != source_domain)
    keys = [[case.pixels for case in ordered]]
    if max_distance is not None:
        keys.append(group_near_duplicates([case.outputs[0] for case in ordered], max_distance))
    sets = DisjointSets(range(len(ordered)))
    for names in keys:
        first: dict[str, int] = {}
        for index, name in enumerate(names):
            sets.join(first.setdefault(name, index), index)
    clusters: dict[Hashable, dict[str, list[FoundCase]]] = {}
    for index, case in enumerate(ordered):
        clusters.setdefault(sets.find(index), {}).setdefault(case.domain.name, []).append(case)
    return list(clusters.values())


def separate_domains(
    clusters: list[dict[str, list[FoundCase]]], root: Path, left_out: list[LeftOut]
) -> list[list[FoundCase]]:
    """Leave an image that two domains share out of all but the first (the source, if it is one of them).

    An unseen domain with images of the source is not unseen. The unseen domains are kept apart from each other too,
    because any of them may become the source of a resplit.

    Returns:
        The clusters, each of one domain.
    """
    kept = []
    for cluster in clusters:
        first, *others = cluster.values()
        for case in (case for members in others for case in members):
            twins = [twin for twin in first if twin.pixels == case.pixels]
            kind = "identical to" if twins else "near-duplicate of"
            reason = f"{kind} {(twins or first)[0].name!r} of the domain {first[0].domain.name}"
            left_out.append(LeftOut(case.domain.name, relative_to(case.image, root), reason, "none needed"))
            for path in case.outputs:
                path.unlink()
        kept.append(first)
    return kept


def set_groups(clusters: list[list[FoundCase]]) -> None:
    """Merge the groups of the spec with the clusters of equal or similar images: a cluster joins whole groups."""
    cases = [case for members in clusters for case in members]
    groups = DisjointSets(sorted({(case.domain.name, case.group) for case in cases}))
    for members in clusters:
        for case in members:
            groups.join((case.domain.name, members[0].group), (case.domain.name, case.group))
    for case in cases:
        domain_and_group: Any = groups.find((case.domain.name, case.group))
        case.group = domain_and_group[1]
