"""Anyone's labelled images, described by a spec, as a data set (``python -m data_prep folder``).

The inputs are only read. Cases that cannot be used are reported and left out; mistakes that concern all files (an
unknown label value, a pattern that matches nothing) stop the import. The result is built in a temporary folder beside
the output and renamed at the end, so that an interrupted import leaves no half data set.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table
from tqdm import tqdm

from data_prep.duplicates import DisjointSets, group_adjacent_tiles, group_near_duplicates
from data_prep.folder_cases import FoundCase, LeftOut, choose_channels, find_cases, relative_to, take_case
from data_prep.folder_spec import FolderSpec, load_spec
from data_prep.image_files import UnusableCase
from data_prep.splits import SPLITS, assign_splits
from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.data.dataset_description import save_dataset

LEFT_OUT_FILE = "left_out.csv"


def make_folder_dataset(
    spec: str | os.PathLike[str],
    output: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    console: Console | None = None,
) -> Path:
    """Turn the images and labels that a spec describes into a data set.

    Args:
        spec: YAML file; see ``data_prep/examples`` for commented ones.
        output: folder to make; must be absent or empty.
        root: folder that the paths in the spec start from; the folder of the spec by default.
        console: where the tables are printed; standard output by default.

    Returns:
        Path of the written ``dataset.json``.

    Raises:
        FileNotFoundError: the spec or the root does not exist.
        ValueError: a mistake in the spec, a label value it does not know, a domain without a usable case, a source
            that cannot be divided, or an output that is not empty.
    """
    # A pipe has no width of its own; Rich would fold the tables at 80 columns.
    console = console or Console(width=None if sys.stdout.isatty() else 120)
    checked = load_spec(spec)
    base = Path(root) if root is not None else checked.path.parent
    if not base.is_dir():
        raise FileNotFoundError(f"--root {base}: no such folder; give the folder that the paths in {spec} start from.")
    with _building(Path(output)) as folder:
        left_out: list[LeftOut] = []
        imported, channels = _import_cases(checked, base, folder, left_out)
        clusters = _separate_domains(_clusters(checked, imported), base, left_out)
        _set_groups(clusters + _adjacent_tiles(checked, clusters))
        kept = {case.id for members in clusters for case in members}
        cases = [case for case in imported if case.id in kept]
        left_out.sort(key=lambda entry: (entry.domain, entry.image))
        _check_domains(checked, cases, left_out)
        content = _content(checked, cases, channels, folder, left_out)
        _write_left_out(folder, left_out)
        save_dataset(folder, content)
    _print_summary(checked, content, cases, left_out, console)
    return Path(output) / "dataset.json"


@contextmanager
def _building(output: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``output`` when the block ends without an error."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--output {output}: exists and is not an empty folder; choose another or remove it first.")
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".partial-{output.name}-", dir=output.parent))
    try:
        yield partial
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o777 & ~umask)
        if output.exists():
            output.rmdir()
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _import_cases(spec: FolderSpec, root: Path, folder: Path, left_out: list[LeftOut]) -> tuple[list[FoundCase], int]:
    """Find, read and write all cases, and report those that cannot be used; return the rest and the channels."""
    found = [case for domain in spec.domains for case in find_cases(spec, domain, root)]
    channels = choose_channels(spec, found)
    written = []
    for case in tqdm(found, desc=f"import {spec.name}", unit="case"):
        try:
            label = take_case(case, folder, root, channels, spec.spatial_dims)
        except UnusableCase as problem:
            left_out.append(LeftOut(case.domain.name, relative_to(case.image, root), str(problem)))
            continue
        case.shares = {region: float(np.isin(label, values).mean()) for region, values in spec.regions.items()}
        written.append(case)
    return written, channels


def _clusters(spec: FolderSpec, cases: list[FoundCase]) -> list[dict[str, list[FoundCase]]]:
    """Return the sets of cases that show the same thing, each as cases by domain, the source domain first."""
    ordered = sorted(cases, key=lambda case: case.domain.name != spec.source_domain)
    keys = [[case.pixels for case in ordered]]
    if spec.max_distance is not None:
        keys.append(group_near_duplicates([case.outputs[0] for case in ordered], spec.max_distance))
    sets = DisjointSets(range(len(ordered)))
    for names in keys:
        first: dict[str, int] = {}
        for index, name in enumerate(names):
            sets.join(first.setdefault(name, index), index)
    clusters: dict[Hashable, dict[str, list[FoundCase]]] = {}
    for index, case in enumerate(ordered):
        clusters.setdefault(sets.find(index), {}).setdefault(case.domain.name, []).append(case)
    return list(clusters.values())


def _adjacent_tiles(spec: FolderSpec, clusters: list[list[FoundCase]]) -> list[list[FoundCase]]:
    """Return the sets of cases, each of one domain, that are tiles of one field."""
    if spec.min_correlation is None:
        return []
    fields: dict[tuple[str, str], list[FoundCase]] = {}
    for domain in spec.domains:
        members = [case for cluster in clusters for case in cluster if case.domain == domain]
        names = group_adjacent_tiles([case.outputs[0] for case in members], spec.min_correlation)
        for case, name in zip(members, names, strict=True):
            fields.setdefault((domain.name, name), []).append(case)
    return list(fields.values())


def _separate_domains(
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
            left_out.append(LeftOut(case.domain.name, relative_to(case.image, root), reason))
            for path in case.outputs:
                path.unlink()
        kept.append(first)
    return kept


def _set_groups(clusters: list[list[FoundCase]]) -> None:
    """Merge the groups of the spec with the clusters of equal or similar images: a cluster joins whole groups."""
    cases = [case for members in clusters for case in members]
    groups = DisjointSets(sorted({(case.domain.name, case.group) for case in cases}))
    for members in clusters:
        for case in members:
            groups.join((case.domain.name, members[0].group), (case.domain.name, case.group))
    for case in cases:
        domain_and_group: Any = groups.find((case.domain.name, case.group))
        case.group = domain_and_group[1]


def _check_domains(spec: FolderSpec, cases: list[FoundCase], left_out: list[LeftOut]) -> None:
    """Refuse a domain of which nothing is left."""
    filled = {case.domain.name for case in cases}
    for domain in spec.domains:
        if domain.name not in filled:
            entries = [entry for entry in left_out if entry.domain == domain.name]
            reasons = Counter(re.sub(r"\S*[./]\S*", "...", entry.reason) for entry in entries).most_common(3)
            shown = "; ".join(f"{count} x {reason}" for reason, count in reasons)
            raise ValueError(
                f"{spec.path}: domains.{domain.name}: none of its {len(entries)} images can be used: {shown}. "
                f"The first is {entries[0].image}: {entries[0].reason}. Correct the patterns, or remove the domain."
            )


def _content(
    spec: FolderSpec, cases: list[FoundCase], channels: int, folder: Path, left_out: list[LeftOut]
) -> dict[str, Any]:
    """Return the content of ``dataset.json``; holds no date and no absolute path, so that a rerun gives the same."""
    entries = [
        {
            "id": case.id,
            "domain": case.domain.name,
            "group": case.group,
            "split": "",
            "image": case.outputs[0].relative_to(folder).as_posix(),
            "label": case.outputs[1].relative_to(folder).as_posix(),
            "sha256": {"image": sha256_file(case.outputs[0]), "label": sha256_file(case.outputs[1])},
            "spacing": case.spacing,
        }
        for case in cases
    ]
    try:
        entries = assign_splits(entries, spec.source_domain, fractions=spec.fractions, seed=spec.seed)
    except ValueError as error:
        raise ValueError(f"{spec.path}: {error}") from error
    counts = Counter(entry.domain for entry in left_out)
    return {
        "format": 1,
        "name": spec.name,
        "spatial_dims": spec.spatial_dims,
        "channels": channels,
        "regions": spec.regions,
        "source_domain": spec.source_domain,
        "cases": entries,
        "processing": {
            "made_by": "data_prep folder",
            "split": {**dict(zip(SPLITS, spec.fractions, strict=True)), "seed": spec.seed},
            "near_duplicates_max_distance": spec.max_distance,
            "adjacent_tiles_min_correlation": spec.min_correlation,
            "domains": {
                domain.name: {
                    "images": domain.images,
                    "labels": domain.labels,
                    "label_values": {str(found): wanted for found, wanted in domain.label_values.items()},
                    "centre_crop": list(domain.centre_crop) if domain.centre_crop else None,
                    "group": domain.group.pattern if domain.group else None,
                    "left_out": counts[domain.name],
                }
                for domain in spec.domains
            },
        },
    }


def _write_left_out(folder: Path, left_out: list[LeftOut]) -> None:
    with open(folder / LEFT_OUT_FILE, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["domain", "image", "reason"])
        writer.writerows([entry.domain, entry.image, entry.reason] for entry in left_out)


def _print_summary(
    spec: FolderSpec,
    content: Mapping[str, Any],
    cases: list[FoundCase],
    left_out: list[LeftOut],
    console: Console,
) -> None:
    """Print what was left out, and cases by domain and split with the mean share of each region."""
    if left_out:
        table = Table(
            "domain",
            Column("image", overflow="fold"),
            "reason",
            title=f"left out ({len(left_out)}, listed in {LEFT_OUT_FILE})",
        )
        for entry in left_out[:40]:
            table.add_row(entry.domain, entry.image, entry.reason)
        if len(left_out) > 40:
            table.add_row("...", f"{len(left_out) - 40} more", "")
        console.print(table)
    table = Table(
        Column("domain", no_wrap=True),
        "role",
        *SPLITS,
        "groups",
        "left out",
        *(f"{region} %" for region in spec.regions),
    )
    counts = Counter((entry["domain"], entry["split"]) for entry in content["cases"])
    for domain in sorted((domain.name for domain in spec.domains), key=lambda name: name != spec.source_domain):
        members = [case for case in cases if case.domain.name == domain]
        table.add_row(
            domain,
            "source" if domain == spec.source_domain else "unseen",
            *(str(counts[domain, split]) for split in SPLITS),
            str(len({case.group for case in members})),
            str(sum(entry.domain == domain for entry in left_out)),
            *(f"{100 * np.mean([case.shares[region] for case in members]):.1f}" for region in spec.regions),
        )
    console.print(table)
