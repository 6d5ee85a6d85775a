"""Anyone's labelled images, described by a spec, as a data set (``python -m data_prep folder``).

The inputs are only read. Cases that cannot be used are reported and left out; mistakes that concern all files (an
unknown label value, a pattern that matches nothing) stop the import. The result is built in a temporary folder beside
the output and renamed at the end, so that an interrupted import leaves no half data set.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from tqdm import tqdm

from data_prep.building import building
from data_prep.clusters import cluster_cases, separate_domains, set_groups
from data_prep.duplicates import group_adjacent_tiles
from data_prep.folder_cases import (
    FoundCase,
    check_filled,
    check_ids,
    check_images,
    choose_channels,
    find_cases,
    other_case_note,
    reasons_of,
    relative_to,
    take_case,
)
from data_prep.folder_spec import FolderSpec, load_spec
from data_prep.image_files import UnusableCase
from data_prep.import_summary import LeftOut, print_notes, print_summary, write_left_out
from mixstyleflow_monai.data.dataset_description import SPLITS, save_dataset
from mixstyleflow_monai.data.splits import assign_splits

_SEEDS = 100
"""Of the division, that are tried where a split lacks a region."""


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
    with building(output) as folder:
        left_out: list[LeftOut] = []
        imported, channels = _import_cases(checked, base, folder, left_out)
        clusters = separate_domains(
            cluster_cases(imported, checked.source_domain, checked.max_distance), base, left_out
        )
        set_groups(clusters + _adjacent_tiles(checked, clusters))
        kept = {case.id for members in clusters for case in members}
        cases = [case for case in imported if case.id in kept]
        left_out.sort(key=lambda entry: (entry.domain, entry.image))
        _check_domains(checked, cases, left_out)
        content = _content(checked, cases, channels, folder, left_out)
        write_left_out(folder, left_out)
        save_dataset(folder, content)
    print_summary(content, {case.id: case.shares for case in cases}, left_out, console)
    print_notes(_notes(checked, base, content, cases), console)
    return Path(output) / "dataset.json"


def _notes(spec: FolderSpec, root: Path, content: Mapping[str, Any], cases: Sequence[FoundCase]) -> list[str]:
    """Return what differs from what a user may take for granted."""
    notes = [note for domain in spec.domains if (note := other_case_note(spec, domain, root))]
    source = next((domain for domain in spec.domains if domain.name == spec.source_domain), None)
    if source is None:
        return [*notes, "source_domain is null: all cases are to be tested on (`mixstyleflow_monai evaluate`)."]
    if source.group is None:
        notes.append(
            f"{source.name} has no `group`, so each of its files counts as a patient of its own. If a patient "
            "has several, add it to the description: otherwise one patient can be in training and test, and scores on "
            "the source are flattered."
        )
    shares = {case.id: case.shares for case in cases}
    absent = _absent_regions(content["cases"], shares, spec, SPLITS[:-1])
    if absent:
        notes.append(
            f"no label of the source shows {', '.join(absent)}, which can be neither learned nor chosen by there: "
            f"{_remedy_by_seed(content['cases'], shares, spec)}."
        )
    return notes


def _remedy_by_seed(
    entries: Sequence[Mapping[str, Any]], shares: Mapping[str, Mapping[str, float]], spec: FolderSpec
) -> str:
    """Return what helps where a split lacks a region: a seed with which none does, or at least not one of training."""
    divisions = [
        assign_splits(entries, spec.source_domain, fractions=spec.fractions, seed=seed) for seed in range(_SEEDS)
    ]
    for splits in (SPLITS, SPLITS[:-1]):
        for seed, divided in enumerate(divisions):
            if not _absent_regions(divided, shares, spec, splits):
                return f"write `seed: {seed}` under `split`, with which {', '.join(splits)} have all regions"
    return "add cases of the source that show it, or remove the region"


def _absent_regions(
    entries: Sequence[Mapping[str, Any]],
    shares: Mapping[str, Mapping[str, float]],
    spec: FolderSpec,
    splits: Sequence[str],
) -> list[str]:
    """Return, in words, the regions that no source case of some split shows."""
    return [
        f"{region} in {split}"
        for split in splits
        for region in spec.regions
        if not any(
            shares[entry["id"]][region]
            for entry in entries
            if entry["split"] == split and entry["domain"] == spec.source_domain
        )
    ]


def _import_cases(spec: FolderSpec, root: Path, folder: Path, left_out: list[LeftOut]) -> tuple[list[FoundCase], int]:
    """Find, read and write all cases, and report those that cannot be used; return the rest and the channels."""
    found = [case for domain in spec.domains for case in find_cases(spec, domain, root)]
    check_ids(spec, found)
    wanted = [case for case in found if case.name not in case.domain.exclude]
    check_images(spec, wanted)
    channels = choose_channels(spec, wanted)
    written = []
    for case in tqdm(found, desc=f"import {spec.name}", unit="case"):
        try:
            label = take_case(case, folder, root, channels, spec.spatial_dims)
        except UnusableCase as problem:
            reason = str(problem)
            left_out.append(LeftOut(case.domain.name, relative_to(case.image, root), reason, problem.remedy))
            continue
        case.shares = {region: float(np.isin(label, values).mean()) for region, values in spec.regions.items()}
        written.append(case)
    return written, channels


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


def _check_domains(spec: FolderSpec, cases: list[FoundCase], left_out: list[LeftOut]) -> None:
    """Refuse a domain of which nothing is left, or whose labels show nothing."""
    remedy = "Correct the patterns, or remove the domain."
    check_filled(spec, cases, left_out, where=f"{spec.path}: domains.", remedy=remedy)
    for domain in spec.domains:
        members = [case for case in cases if case.domain is domain]
        for region, values in spec.regions.items():
            if domain.name == spec.source_domain and not any(case.shares[region] for case in members):
                raise ValueError(
                    f"{spec.path}: regions.{region}: no label of the source domain {domain.name} has one of its "
                    f"values {values}, so it cannot be learned; the first label is {members[0].label}. Correct "
                    f"`label_values` or `labels` of the domain, or remove the region.{_told(left_out, domain.name)}"
                )
        if not any(share for case in members for share in case.shares.values()):
            raise ValueError(
                f"{spec.path}: domains.{domain.name}: all of its {len(members)} labels are background only, so nothing "
                f"can be measured on them; the first is {members[0].label}. Correct `label_values` or `labels`."
            )


def _division(spec: FolderSpec) -> dict[str, Any]:
    return {"split": {**dict(zip(SPLITS, spec.fractions, strict=True)), "seed": spec.seed}}


def _told(left_out: Sequence[LeftOut], domain: str) -> str:
    """Return a sentence on the images of a domain that were left out, which may be why too little is there, or ""."""
    gone = [entry for entry in left_out if entry.domain == domain]
    return f" {len(gone)} images of {domain} were left out: {reasons_of(gone)}." if gone else ""


def _content(
    spec: FolderSpec, cases: list[FoundCase], channels: int, folder: Path, left_out: list[LeftOut]
) -> dict[str, Any]:
    """Return the content of ``dataset.json``; holds no date and no absolute path, so that a rerun gives the same."""
    entries = [case.entry(folder) for case in cases]
    try:
        entries = assign_splits(entries, spec.source_domain, fractions=spec.fractions, seed=spec.seed)
    except ValueError as error:
        raise ValueError(f"{spec.path}: {error}{_told(left_out, spec.source_domain)}") from error
    counts = Counter(entry.domain for entry in left_out)
    return {
        "format": 1,
        "name": spec.name,
        "spatial_dims": spec.spatial_dims,
        "channels": channels,
        "regions": spec.regions,
        "source_domain": spec.source_domain or None,
        "cases": entries,
        "processing": {
            "made_by": "data_prep folder",
            **(_division(spec) if spec.source_domain else {}),
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
