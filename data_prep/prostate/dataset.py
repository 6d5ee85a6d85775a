"""The paper's prostate data set (``python -m data_prep prostate``): train on the Decathlon, test on six other sites.

Volumes and labels are kept as they were released, so that every score is against the original labels; spacing,
percentiles and sizes are set for the training, which applies them when it loads a volume. Those of the paper are
recorded here. Volumes are read one at a time. The
inputs are only read; the result is built in a temporary folder and renamed at the end.

References:
    MixStyleFlow, MICCAI 2025, doi 10.1007/978-3-032-04947-6_36
    Chen et al., MaxStyle, MICCAI 2022: the same volumes at 0.625 x 0.625 x 3.6 mm
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from tqdm import tqdm

from data_prep.building import building
from data_prep.image_files import UnusableCase
from data_prep.import_summary import LeftOut, print_notes, print_summary, write_left_out
from data_prep.prostate.cases import TakenCase, hash_of_image, take_case
from data_prep.prostate.decathlon import DOMAIN, TASK, DecathlonRelease, open_release
from data_prep.prostate.downloads import download_decathlon
from data_prep.prostate.six_sites import SITES, SixSites, find_sites
from data_prep.prostate.split import PAPER_CASES, PAPER_FRACTIONS, SEED, Division, check_train_fraction, divide
from mixstyleflow_monai.data.dataset_description import DATASET_FILE, SPLITS, save_dataset

SPACING = (0.625, 0.625, 3.6)
"""Of the paper, in mm along left-right, front-back and head-foot."""
MIN_SPACING, MAX_SPACING = 0.05, 20.0
CLIPPED = "with prostate"
REGIONS = {"prostate": [1, 2]}
PAPER_LOADING: dict[str, Any] = {
    "spacing": list(SPACING),
    "percentiles": [2.0, 98.0],
    "pad": [288, 288],
    "crop": [224, 224],
    "slices": "those with prostate",
}
"""How the official code prepares and loads the volumes, which the training options repeat: spacing in mm along
left-right, front-back and head-foot; sizes in pixels, before and after the random crop."""


def make_prostate_dataset(
    output: str | os.PathLike[str],
    *,
    decathlon: str | os.PathLike[str] | None = None,
    sites: str | os.PathLike[str] | None = None,
    download: str | os.PathLike[str] | None = None,
    train_fraction: float = 1.0,
    resample: bool = False,
    spacing: Sequence[float] = SPACING,
    console: Console | None = None,
) -> Path:
    """Make the data set from the releases.

    Args:
        output: folder to make; must be absent or empty.
        decathlon: Task05_Prostate as it is released: its folder or its tar file.
        sites: folder of the six-site release; without it the data set has no unseen domain.
        download: folder to download Task05_Prostate.tar to, in place of ``decathlon``; a verified file there is used.
        train_fraction: share, or above 1 the number, of the training patients to keep; see
            :func:`data_prep.prostate.split.train_subset`.
        resample: write volumes resampled to ``spacing`` in place of the released ones.
        spacing: mm along left-right, front-back and head-foot of the patient, for ``resample`` alone; 0.05 to 20.
        console: where notes and tables are printed; standard output by default.

    Returns:
        Path of the written ``dataset.json``.

    Raises:
        FileNotFoundError: a release is not there.
        ValueError: an option out of range, a release that is not recognised, no network, a domain or a split of which
            no case can be used, or an output that is not empty.
    """
    # A pipe has no width of its own; Rich would fold the tables at 80 columns.
    console = console or Console(width=None if sys.stdout.isatty() else 120)
    fraction = check_train_fraction(train_fraction)
    wanted_spacing = _check_options(decathlon, sites, download, resample, spacing)
    found = find_sites(sites) if sites is not None else SixSites((), (), ())
    with building(output) as folder:
        archive = download_decathlon(download) if download is not None else Path(str(decathlon))
        # The scratch folder is inside the temporary one, and so goes with it whatever happens.
        scratch = folder / ".release"
        release = open_release(archive, scratch)
        division = divide([case.name for case in release.cases], train_fraction)
        notes = _notes(release, found, division, with_sites=sites is not None)
        print_notes(notes, console)
        left_out = [*release.left_out, *found.left_out]
        taken = _take_all(release, division, found, folder, wanted_spacing if resample else None, left_out)
        if scratch.exists():
            shutil.rmtree(scratch)
        left_out.sort(key=lambda entry: (entry.domain != DOMAIN, entry.domain, entry.image))
        _check_filled(taken, [DOMAIN, *(site.name for site in found.sites)], division, left_out)
        content = _content(taken, release, found, division, left_out)
        version = _notes_on_version(content["processing"]["domains"])
        print_notes(version, console)
        content["processing"] |= _facts(wanted_spacing if resample else None, fraction, [*notes, *version])
        write_left_out(folder, left_out)
        save_dataset(folder, content)
    print_summary(content, {one.entry["id"]: {"prostate": one.share} for one in taken}, left_out, console)
    return Path(output) / DATASET_FILE


def _facts(spacing: list[float] | None, fraction: float, notes: list[str]) -> dict[str, Any]:
    """Return what the options made of the data set; ``spacing`` is None where the released grids are kept."""
    return {
        "spacing": spacing,
        "resampled": spacing is not None,
        "interpolation": None if spacing is None else {"image": "linear", "label": "nearest"},
        "train_fraction": fraction,
        "notes": notes,
    }


def _check_options(
    decathlon: object, sites: object, download: object, resample: object, spacing: object
) -> list[float]:
    """Check what needs no file; return the spacing."""
    for name, value in (("--decathlon", decathlon), ("--sites", sites), ("--download", download)):
        if isinstance(value, bool) or value == "":
            raise ValueError(f"{name}: a path must follow it, such as `{name} data/prostate`.")
    if (decathlon is None) == (download is None):
        found = "neither" if decathlon is None else "both"
        raise ValueError(
            f"--decathlon, --download: {found} given; give the release with --decathlon (folder or {TASK}.tar), or a "
            "folder to download it to with --download."
        )
    if not isinstance(resample, bool):
        raise ValueError(f"--resample: found {resample!r}, allowed: --resample alone, with no value.")
    return _check_spacing(spacing, resample)


def _check_spacing(spacing: object, resample: bool) -> list[float]:
    """Return three sizes; without ``resample`` they would have no effect, so only the default ones are taken."""
    values: list[Any] = list(spacing) if isinstance(spacing, Sequence) and not isinstance(spacing, str) else [spacing]
    good = [isinstance(v, int | float) and not isinstance(v, bool) and MIN_SPACING <= v <= MAX_SPACING for v in values]
    if len(values) != 3 or not all(good):
        raise ValueError(
            f"--spacing: found {spacing!r}, allowed: three sizes from {MIN_SPACING:g} to {MAX_SPACING:g} mm, "
            "left-right, front-back and head-foot, such as 0.625,0.625,3.6."
        )
    sizes = [float(value) for value in values]
    if not resample and sizes != list(SPACING):
        raise ValueError(
            f"--spacing {','.join(f'{size:g}' for size in sizes)}: it has no effect without --resample, because the "
            "released volumes are kept. Add --resample, or leave --spacing out and give the size of the pixels to the "
            f"training: --pixel_spacing [{sizes[0]:g},{sizes[1]:g}] of phase 1."
        )
    return sizes


def _notes(release: DecathlonRelease, found: SixSites, division: Division, *, with_sites: bool) -> list[str]:
    """Say in what the data set differs from the paper's."""
    notes = []
    listed = len(release.cases)
    if division.method != "paper":
        notes.append(
            f"{TASK} lists {listed} cases, the release has {PAPER_CASES}: the paper's patients cannot be told, so the "
            f"cases are divided at random with seed {SEED}, by shares of 22, 3 and 7 in 32."
        )
    if division.unused:
        kept = sum(split == "train" for split in division.split_of.values())
        notes.append(f"{kept} of {kept + len(division.unused)} training patients are kept (--train_fraction).")
    if not with_sites:
        notes.append("no --sites: the data set has the source domain alone, and no unseen one.")
    elif found.missing:
        names = ", ".join(f"{site.letter} ({site.name})" for site in found.missing)
        notes.append(f"no folder of site {names}; the paper tests on all of {', '.join(s.name for s in SITES)}.")
    counts = Counter(case.domain for case in found.cases)
    for site in found.sites:
        if counts[site.name] != site.cases:
            notes.append(f"site {site.letter} ({site.name}) has {counts[site.name]} cases, the release {site.cases}.")
    return notes


def _notes_on_version(domains: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say which of the two versions of the six-site release this seems to be; nothing without one.

    Its page has `Raw_nii`, all slices, and `Clipped_nii`, those of the prostate alone, which look alike otherwise.
    """
    clipped = {name: facts["slices"] == CLIPPED for name, facts in domains.items() if name != DOMAIN}
    if not clipped:
        return []
    if all(clipped.values()):
        return [
            "the six sites seem to have only slices with prostate (version Clipped_nii of the release), as the paper."
        ]
    if any(clipped.values()):
        names = ", ".join(name for name, cut in clipped.items() if cut)
        return [f"only {names} seem to have slices with prostate alone (Clipped_nii): two versions mixed?"]
    return [
        "the six sites seem to have slices without prostate, too (version Raw_nii of the release); the paper tests on "
        "slices with prostate (Clipped_nii), so scores cannot be compared with its own."
    ]


def _take_all(
    release: DecathlonRelease,
    division: Division,
    sites: SixSites,
    folder: Path,
    spacing: Sequence[float] | None,
    left_out: list[LeftOut],
) -> list[TakenCase]:
    """Write all cases that can be used, and report the others; of equal images only the first stays.

    An unseen image that is equal to an unused one of the source is left out as well, so that the unseen domains are the
    same whatever share of the training patients is kept.
    """
    taken: dict[str, TakenCase] = {}
    used = [case for case in release.cases if case.name in division.split_of]
    unused = [case for case in release.cases if case.name in division.unused]
    source = {found: case for case in unused if (found := hash_of_image(case))}
    for case in tqdm([*used, *sites.cases], desc="import prostate", unit="volume"):
        try:
            one = take_case(case, folder, spacing)
        except UnusableCase as problem:
            left_out.append(LeftOut(case.domain, case.shown, str(problem), problem.remedy))
            continue
        twin = source.get(one.pixels) if case.domain != DOMAIN else None
        twin = twin or taken.setdefault(one.pixels, one).case
        if twin is not case:
            # An image of the source among the unseen ones, or in two splits, would be a leak.
            reason = f"identical to {twin.name!r} of the domain {twin.domain}"
            left_out.append(LeftOut(case.domain, case.shown, reason, "restore it from the release"))
            for key in ("image", "label"):
                (folder / one.entry[key]).unlink()
    return list(taken.values())


def _check_filled(
    taken: Sequence[TakenCase], domains: Sequence[str], division: Division, left_out: Sequence[LeftOut]
) -> None:
    """Refuse a domain, or a split of the source, of which nothing is left."""
    filled = {one.case.domain for one in taken}
    filled |= {f"{DOMAIN}, {division.split_of[one.case.name]}" for one in taken if one.case.domain == DOMAIN}
    for wanted in (*domains, *(f"{DOMAIN}, {split}" for split in SPLITS)):
        if wanted not in filled:
            entries = [entry for entry in left_out if entry.domain == wanted.split(",")[0]]
            shown = "; ".join(f"{entry.image}: {entry.reason}" for entry in entries[:3])
            more = f"; and {len(entries) - 3} more" if len(entries) > 3 else ""
            raise ValueError(f"{wanted}: no case can be used. Left out: {shown}{more}. Restore these files.")


def _content(
    taken: Sequence[TakenCase],
    release: DecathlonRelease,
    found: SixSites,
    division: Division,
    left_out: Sequence[LeftOut],
) -> dict[str, Any]:
    """Return the content of ``dataset.json``; holds no date and no absolute path, so that a rerun gives the same."""
    counts = Counter(entry.domain for entry in left_out)
    cases = [
        {**one.entry, "split": division.split_of[one.case.name] if one.case.domain == DOMAIN else "test"}
        for one in taken
    ]
    domains: dict[str, Any] = {DOMAIN: {"release": TASK, **release.facts, "left_out": counts[DOMAIN]}}
    for site in found.sites:
        cut = [one.clipped for one in taken if one.case.domain == site.name]
        # Of a volume with all slices the outermost may happen to hold prostate; of most of a site they do not.
        version = CLIPPED if 2 * sum(cut) > len(cut) else "all"
        domains[site.name] = {
            "release": "six sites",
            "site": site.letter,
            "slices": version,
            "left_out": counts[site.name],
        }
    return {
        "format": 1,
        "name": "prostate",
        "spatial_dims": 3,
        "channels": 1,
        "regions": REGIONS,
        "source_domain": DOMAIN,
        "cases": cases,
        "processing": {
            "made_by": "data_prep prostate",
            "split": {**dict(zip(SPLITS, PAPER_FRACTIONS, strict=True)), "seed": SEED, "method": division.method},
            "unused_training_patients": [f"{DOMAIN}_{name}" for name in division.unused],
            "paper_loading": PAPER_LOADING,
            "domains": domains,
        },
    }
