"""The public optic disc and cup releases as a data set (``python -m data_prep fundus``).

A release is recognised by its files or named, and its labels are read by the coding of that release; labels that do
not look like an optic disc when they are read so stop the import. Images keep their size. Labels are written as 0
background, 1 rim, 2 cup. The source domain is divided anew, other domains are test only; the release's own division
into training and test is not kept.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

# The steps after the reading are those of the import of anyone's folder.
from data_prep.building import building
from data_prep.clusters import cluster_cases, separate_domains, set_groups
from data_prep.folder_cases import FoundCase, check_filled
from data_prep.folder_spec import DomainSpec, FolderSpec
from data_prep.fundus.cases import CHANNELS, FundusCase, check_coding, fundus_cases, import_cases
from data_prep.fundus.labels import REGIONS
from data_prep.fundus.layouts import ListedCase
from data_prep.fundus.releases import AUTO, Release, find_release
from data_prep.import_summary import LeftOut, print_notes, print_summary, write_left_out
from mixstyleflow_monai.data.dataset_description import SPLITS, save_dataset
from mixstyleflow_monai.data.schema_checks import did_you_mean
from mixstyleflow_monai.data.splits import FRACTIONS, assign_splits

ALONE = "the release {} has one domain here: it can be the source, but no unseen domain is left to evaluate on."


def make_fundus_dataset(
    root: str | os.PathLike[str],
    source: str,
    output: str | os.PathLike[str],
    *,
    release: str = AUTO,
    rater: int = 1,
    seed: int = 0,
    console: Console | None = None,
) -> Path:
    """Turn a public optic disc and cup release into a data set.

    Args:
        root: folder of the unpacked release, or one around it.
        source: the domain to train on; it is divided by 70, 10 and 20 %, every other domain is test only.
        output: folder to make; must be absent or empty.
        release: name of the release; ``"auto"`` recognises it by its files.
        rater: whose masks to take, from 1, in the domains that have several.
        seed: seed of the division.
        console: where the tables are printed; standard output by default.

    Returns:
        Path of the written ``dataset.json``.

    Raises:
        FileNotFoundError: the root or a part of the release is missing.
        ValueError: a release that is not recognised, unknown, or one of several; a mistake in its lists; labels that
            its coding does not explain; an unknown source or rater; a domain without a usable case; a source that
            cannot be divided; or an output that is not empty.
    """
    console = console or Console(width=None if sys.stdout.isatty() else 120)
    found, base = find_release(Path(root), release)
    _check_rater(found, rater)
    listed = found.list_cases(base, rater)
    _check_source(found, base, source, listed)
    notes = _notes(found, listed)
    print_notes(notes, console)
    spec = _spec(found, base, source, seed, listed)
    cases = fundus_cases(spec, listed, base)
    with building(output) as folder:
        check_coding(found, cases, base)
        left_out: list[LeftOut] = []
        imported = import_cases(found, cases, folder, base, left_out)
        clusters = separate_domains(cluster_cases(imported, source), base, left_out)
        set_groups(clusters)
        kept = {case.id for members in clusters for case in members}
        used = [case for case in imported if case.id in kept]
        left_out.sort(key=lambda entry: (entry.domain, entry.image))
        remedy = "Restore the files, or move the domain's lists or folders away."
        check_filled(spec, used, left_out, where=f"--root {base}: domain ", remedy=remedy)
        content = _content(found, base, spec, used, folder, left_out, notes)
        write_left_out(folder, left_out)
        save_dataset(folder, content)
    print_summary(content, {case.id: case.shares for case in used}, left_out, console)
    print_notes([ALONE.format(found.name)] if len(spec.domains) == 1 else [], console)
    return Path(output) / "dataset.json"


def _check_rater(release: Release, rater: int) -> None:
    if isinstance(rater, bool) or not isinstance(rater, int) or not 1 <= rater <= release.raters:
        allowed = "1, because there is one annotation an image" if release.raters == 1 else f"1 to {release.raters}"
        raise ValueError(f"--rater: found {rater!r}, allowed for the release {release.name}: {allowed}.")


def _check_source(release: Release, base: Path, source: str, listed: Sequence[ListedCase]) -> None:
    """Refuse a release without images, and a source that is not one of its domains."""
    domains = list(dict.fromkeys(case.domain for case in listed))
    if not domains:
        raise ValueError(
            f"--root {base}: looks like the release {release.name}, but no image is where the release has its images; "
            "unpack the release again."
        )
    if source not in domains:
        absent = " (of this release, but not in the folder)" if source in release.domains else ""
        raise ValueError(
            f"--source: found {source!r}{absent}, allowed: {', '.join(domains)} (domains of the release "
            f"{release.name} in {base}){did_you_mean(source, domains)}"
        )


def _notes(release: Release, listed: Sequence[ListedCase]) -> list[str]:
    """Say which domains have not the number of images that was published: a part of the release may be missing."""
    found = Counter(case.domain for case in listed if not case.fault)
    return [
        f"{domain} has {found[domain]} images here, the release {release.name} {count}"
        + (": a part of it may be missing, and scores will not be those of the whole." if found[domain] else ".")
        for domain, count in release.counts.items()
        if found[domain] != count
    ]


def _spec(release: Release, base: Path, source: str, seed: int, listed: Sequence[ListedCase]) -> FolderSpec:
    """Describe the release in the terms of the folder import, whose later steps are used here as well."""
    domains = [
        DomainSpec(
            name=name,
            images="",
            labels="",
            label_values={},
            centre_crop=release.centre_crops.get(name),
            group=None,
            spacing=None,
            max_aspect_ratio=release.max_aspect_ratio,
            exclude={},
        )
        for name in dict.fromkeys(case.domain for case in listed)
    ]
    return FolderSpec(
        path=base,
        name=f"fundus-{release.name}",
        spatial_dims=2,
        channels=CHANNELS,
        regions=REGIONS,
        source_domain=source,
        fractions=FRACTIONS,
        seed=seed,
        # Photographs of one camera, framed by the disc, look alike: a perceptual hash would join different eyes.
        # Equal images are found in any case.
        max_distance=None,
        min_correlation=None,
        domains=tuple(domains),
    )


def _content(
    release: Release,
    base: Path,
    spec: FolderSpec,
    cases: Sequence[FoundCase],
    folder: Path,
    left_out: Sequence[LeftOut],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return the content of ``dataset.json``; holds no date and no absolute path, so that a rerun gives the same."""
    entries = [case.entry(folder) for case in cases]
    try:
        entries = assign_splits(entries, spec.source_domain, fractions=spec.fractions, seed=spec.seed)
    except ValueError as error:
        raise ValueError(f"--root {base}: {error}") from error
    counts = Counter(entry.domain for entry in left_out)
    raters = {case.domain.name: case.listed.rater for case in cases if isinstance(case, FundusCase)}
    return {
        "format": 1,
        "name": spec.name,
        "spatial_dims": spec.spatial_dims,
        "channels": CHANNELS,
        "regions": REGIONS,
        "source_domain": spec.source_domain,
        "cases": entries,
        "processing": {
            "made_by": "data_prep fundus",
            "release": release.name,
            "origin": release.origin,
            "notes": list(notes),
            "group": "image",  # no release tells which photographs are of one patient
            "split": {**dict(zip(SPLITS, spec.fractions, strict=True)), "seed": spec.seed},
            "domains": {
                domain.name: {
                    "what": release.domains[domain.name],
                    "label_coding": release.coding_of(domain.name).meaning,
                    "rater": raters[domain.name],
                    "centre_crop": list(domain.centre_crop) if domain.centre_crop else None,
                    "left_out": counts[domain.name],
                }
                for domain in spec.domains
            },
        },
    }
