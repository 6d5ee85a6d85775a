"""Every compared method on every data set: ``python -m benchmarks.methods --data FOLDER``.

Finished cells are in ``benchmarks/cells``; they are not trained again. ``--report_only`` makes the tables from them,
without any data set.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fire
import pandas as pd

from benchmarks.real import EXAMPLES
from data_prep.folder import make_folder_dataset
from data_prep.phantom import make_phantom
from mixstyleflow_monai.artifacts import atomic_path, sha256_file
from mixstyleflow_monai.benchmark import benchmark
from mixstyleflow_monai.benchmark.plan import BASELINE, PHASE_ONE, Cell
from mixstyleflow_monai.benchmark.records import case_table
from mixstyleflow_monai.benchmark.tables import (
    LABELS,
    difference,
    markdown,
    method_table,
    runs_of,
    seeds_in_words,
    spread,
)
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir
from mixstyleflow_monai.data.dataset_description import DATASET_FILE
from mixstyleflow_monai.evaluation.comparison import summary

CELLS = Path(__file__).parent / "cells"
RECIPE, CONTROL, PAPER = "flow_and_image_styles", "permuted_flow_and_image_styles", "paper_styles"
"""(b), (c) and (a) of the side-by-side table; (d), no stylizer, is `BASELINE`."""
RIVALS = ("mix_style", "dsu", "efd_mix", "tri_d", "rand_conv_supervised", "rand_conv", "big_aug", "san_saw")
SLOW = ("max_style",)
"""A rival too, but several times the cost of the others, so not on all data sets."""
FEW_IMAGES = 10
"""Unseen images of a comparison that are shown one by one."""
METHODS = (
    BASELINE,
    "mixstyleflow",
    PAPER,
    RECIPE,
    CONTROL,
    *RIVALS,
    "flow_styles_and_rand_conv",
    "flow_styles_and_big_aug",
    "flow_and_image_styles_or_big_aug",
    "permuted_flow_and_image_styles_or_big_aug",
    "gaussian_flow_and_image_styles",
)
_IMAGE_STYLES = json.loads((bundles_dir() / PHASE_BUNDLES[2] / "configs" / "image_styles.json").read_text("utf-8"))
FLOWS: dict[str, Any] = {
    "levels": _IMAGE_STYLES["levels"],
    "phase2:temperatures": _IMAGE_STYLES["temperatures"],
}
"""Phase II fits styles of the image as well, once for all methods; ``style_levels`` of a method says what it uses."""


@dataclass(frozen=True)
class Setting:
    """A data set, the network's grid, and what is compared on it.

    Attributes:
        make: (folder of the real images, folder to write) -> None; makes the data set.
        image_size: of the network.
        needs_images: whether the real images are needed.
        methods: to compare.
        sources: of `benchmark`.
        train_fraction: share of the source's training cases.
        data: name of the data set, where several comparisons share one.
        settings: of `benchmark`, for all methods alike.
    """

    make: Callable[[Path | None, Path], object]
    image_size: int
    needs_images: bool
    methods: tuple[str, ...] = METHODS
    sources: str | None = None
    train_fraction: float = 1.0
    data: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def _phantom(task: str) -> Callable[[Path | None, Path], object]:
    return lambda images, folder: make_phantom(task, str(folder), seed=0)


def _real(name: str) -> Callable[[Path | None, Path], object]:
    return lambda images, folder: make_folder_dataset(str(EXAMPLES / f"{name}.yaml"), str(folder), root=images)


SETTINGS: dict[str, Setting] = {
    "white_cells": Setting(_real("white_cells"), 96, True, METHODS + SLOW, sources="all"),
    "prostate_phantom": Setting(_phantom("prostate"), 96, False, METHODS + SLOW),
    "fundus_phantom": Setting(_phantom("fundus"), 96, False),
    "prostate_phantom_30": Setting(_phantom("prostate"), 96, False, train_fraction=0.3, data="prostate_phantom"),
    "prostate_phantom_10": Setting(_phantom("prostate"), 96, False, train_fraction=0.1, data="prostate_phantom"),
    "nuclei": Setting(_real("nuclei"), 96, True),
    # Exposures differ within the source already; the usual remedy in fluorescence microscopy.
    "nuclei_percentiles": Setting(
        _real("nuclei"), 96, True, data="nuclei", settings={"phase1:percentiles": [1.0, 99.8]}
    ),
    "fundus": Setting(_real("fundus"), 160, True),
}


def run(
    name: str,
    images: Path | None,
    output: Path,
    methods: Sequence[str],
    seeds: Sequence[int],
    sources: str | None = None,
    jobs: int = 1,
) -> int:
    """Train what is missing of one comparison, and put its finished cells into `CELLS`.

    Seeds that are finished on other files of the data set are left out: on another processor the prostate phantom's
    voxels are rounded otherwise, and methods of one seed are to start from one Phase I.
    """
    chosen = SETTINGS[name]
    folder = output / name
    dataset = dataset_of(name, images, output)
    others = seeds_of_other_files(chosen, dataset)
    if others & set(seeds):
        print(
            f"{name}: seeds {runs_of(others & set(seeds))} are left out, their cells in {CELLS} are of other files of "
            "this data set (another processor rounds otherwise). Give other --seeds to train methods here."
        )
        seeds = [seed for seed in seeds if seed not in others]
    if not seeds:
        return 0
    code = benchmark(
        str(dataset),
        str(folder),
        methods=list(methods),
        seeds=list(seeds),
        sources=sources or chosen.sources,
        jobs=jobs,
        reuse=str(CELLS),
        **common_settings(chosen),
    )
    CELLS.mkdir(exist_ok=True)
    for path in sorted((folder / "cells").glob("*.json")):
        if not (CELLS / path.name).exists():
            with atomic_path(CELLS / path.name) as partial:
                shutil.copyfile(path, partial)
    return code


def dataset_of(name: str, images: Path | None, output: Path) -> Path:
    """Return the data set of a comparison, made if it is not there yet.

    Raises:
        ValueError: real images are needed and ``images`` is None.
    """
    chosen = SETTINGS[name]
    dataset = output / "data" / (chosen.data or name)
    if not (dataset / DATASET_FILE).is_file():
        if chosen.needs_images and images is None:
            raise ValueError(f"{name}: --data is missing, the folder of the images that data_prep/examples describes.")
        chosen.make(images, dataset)
    return dataset


def seeds_of_other_files(chosen: Setting, dataset: Path) -> set[int]:
    """Return the seeds of a comparison's finished cells that were trained on other files than those in ``dataset``."""
    description = json.loads((dataset / DATASET_FILE).read_text(encoding="utf-8"))
    sha256 = sha256_file(dataset / DATASET_FILE)
    limits = chosen.settings.get("phase1:percentiles")
    records = finished(CELLS).get((title_of(description["name"], limits), chosen.train_fraction), [])
    return {cell.seed for cell, record in records if record["request"]["dataset_sha256"] != sha256}


def common_settings(chosen: Setting) -> dict[str, Any]:
    """Return the settings of `benchmark` that all methods of a comparison share."""
    return {
        "train_fraction": chosen.train_fraction,
        "overlay": "demo",
        "tracking": "none",
        "image_size": [chosen.image_size] * 2,
        "amp": True,
        **FLOWS,
        **chosen.settings,
    }


def data_name(record: Mapping[str, Any]) -> str:
    """Return the name of a finished cell's data set, as the network gets it."""
    return title_of(record["dataset"], record["request"].get("overrides", {}).get("1", {}).get("percentiles"))


def title_of(dataset: str, limits: Sequence[float] | None) -> str:
    """Return the name of a data set, with the percentiles that its images are clipped to, if they are."""
    return dataset + (f", between the {limits[0]:g} and {limits[1]:g} percentiles" if limits else "")


def finished(folder: Path = CELLS) -> dict[tuple[str, float], list[tuple[Cell, dict[str, Any]]]]:
    """Return the finished cells of each data set, as the network gets it, and share of its training cases.

    Raises:
        ValueError: two records of one cell, of which one is of other settings than the rest.
    """
    found: dict[tuple[str, float], list[tuple[Cell, dict[str, Any]]]] = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        request = record["request"]
        cell = Cell(request["source"], request["method"], request["seed"])
        records = found.setdefault((data_name(record), request["train_fraction"]), [])
        if any(cell == other for other, _ in records):
            raise ValueError(f"{path}: a second record of {cell.name}, of other settings. Remove the one not wanted.")
        records.append((cell, record))
    return found


def report(folder: Path = CELLS) -> str:
    """Return the tables of all finished cells as Markdown."""
    known = [PHASE_ONE, *METHODS, *SLOW]
    parts: list[str] = []
    for (dataset, share), records in sorted(finished(folder).items()):
        others = sorted({cell.method for cell, _ in records} - set(known))
        cases = case_table(records)
        table = method_table(cases, [*known, *others])
        parts.append(f"### {dataset}" + ("" if share == 1.0 else f", {share:.0%} of the training cases"))
        for source, rows in table.groupby("source", sort=False):
            seconds = [r["seconds"] for c, r in records if c.source == source and r["seconds"] is not None]
            hours = f"{sum(seconds) / 3600:.1f} hours of the methods' own trainings that were not stopped in between"
            parts.append(f"Trained on `{source}`; {hours}.")
            shown = rows.drop(columns="source").loc[:, lambda part: (part != "-").any()]
            parts.append(markdown(shown).rstrip())
            few = image_table(cases[cases["source"] == source], [*known, *others])
            if len(few):
                words_of = " / ".join(cases["region"].unique())
                parts += [f"Image by image, {words_of}, over the seeds:", markdown(few).rstrip()]
    together = side_by_side(folder)
    if len(together):
        parts += ["### The recipe, side by side", markdown(together).rstrip()]
    return "\n\n".join(parts) + "\n"


def image_table(cases: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Return the Dice of every unseen image and region over the seeds, a row a method, where images are few."""
    unseen = cases[cases["role"] == "unseen"]
    images = list(dict.fromkeys(unseen["case_id"]))
    if len(images) > FEW_IMAGES:
        return pd.DataFrame()
    rows = []
    for method in [name for name in methods if name in set(unseen["method"])]:
        own = unseen[unseen["method"] == method]
        row = {"method": LABELS.get(method, method), "seeds": runs_of(set(own["seed"]))}
        for image in images:
            regions = own[own["case_id"] == image].groupby("region", sort=False)["dice"]
            row[image] = " / ".join(spread(values.tolist()) for _, values in regions)
        rows.append(row)
    return pd.DataFrame(rows)


def side_by_side(folder: Path = CELLS) -> pd.DataFrame:
    """Return, for each data set, the paper's method, the recipe, its control and the baseline, side by side.

    Unseen means over sources and seeds; differences are paired by case, with 95 % intervals over cases and seeds. A row
    is over the seeds that the four have of every source of the row, or where there is none, the recipe and the
    baseline; of the four, one that lacks a cell has no place in it. For the rival see `_best_rival`.
    """
    rows = []
    for (dataset, share), records in sorted(finished(folder).items()):
        cases = case_table(records)
        sources = list(dict.fromkeys(cases["source"]))
        name = dataset if share == 1.0 else f"{dataset}, {share:.0%}"
        for chosen in ([sources] if len(sources) > 1 else []) + [[source] for source in sources]:
            row = _side_by_side(cases[cases["source"].isin(chosen)])
            if row:
                rows.append({"data": name, "source": "mean of all" if len(chosen) > 1 else chosen[0], **row})
    return pd.DataFrame(rows)


def _side_by_side(cases: pd.DataFrame) -> dict[str, str]:
    cells = _seeds_of_every_source(cases)
    letters = {"(a) paper": PAPER, "(b) recipe": RECIPE, "(c) permuted": CONTROL, "(d) none": BASELINE}
    for together in (letters.values(), (RECIPE, BASELINE)):
        seeds = set.intersection(*(cells.get(method, set()) for method in together))
        if seeds:
            break
    else:
        return {}
    rival = _best_rival(cases, cells, len(seeds))
    against_rival = "-" if rival is None else _against(cases, rival, cells[RECIPE] & cells[rival], seeds)
    whole = [method for method, found in cells.items() if seeds <= found]
    cases = cases[cases["seed"].isin(seeds) & cases["method"].isin(whole)]
    totals = summary(cases, whole)
    unseen = {str(method): rows["unseen"].tolist() for method, rows in totals.groupby("method")}
    source = {str(method): float(rows["source"].mean()) for method, rows in totals.groupby("method")}
    row = {"seeds": runs_of(seeds)}
    row |= {letter: spread(unseen.get(method, [])) for letter, method in letters.items()}
    row["source, (b) - (d)"] = f"{source[RECIPE] - source[BASELINE]:+.1f}"
    for heading, other in {"(b) - (d)": BASELINE, "(b) - (c)": CONTROL, "(b) - (a)": PAPER}.items():
        row[heading] = difference(cases, RECIPE, other)
    return row | {"(b) - rival": against_rival}


def _seeds_of_every_source(cases: pd.DataFrame) -> dict[str, set[int]]:
    """Return, for each method, the seeds that it has of every source."""
    sources = cases["source"].unique()
    return {
        str(method): set.intersection(*(set(part.loc[part["source"] == source, "seed"]) for source in sources))
        for method, part in cases.groupby("method")
    }


def _best_rival(cases: pd.DataFrame, cells: Mapping[str, set[int]], seeds: int) -> str | None:
    """Return the published rival that the recipe is least ahead of, over the seeds that both have.

    It has three of these, or as many as the row where that has less: most rivals have other seeds than the row, and the
    best of those that happen to have them all need not be the best.
    """
    ahead = {}
    for method in RIVALS + SLOW:
        both = cells.get(RECIPE, set()) & cells.get(method, set())
        if both and len(both) >= min(3, seeds):
            totals = summary(cases[cases["seed"].isin(both)], [RECIPE, method]).groupby("method")["unseen"].mean()
            ahead[method] = float(totals[RECIPE] - totals[method])
    return min(ahead, key=lambda method: ahead[method], default=None)


def _against(cases: pd.DataFrame, rival: str, both: set[int], seeds: set[int]) -> str:
    """Return the recipe's difference to a rival over the seeds of both, which are told where they are not the row's."""
    told = rival if both == seeds else f"{rival}, {seeds_in_words(both)}"
    return f"{difference(cases[cases['seed'].isin(both)], RECIPE, rival)} ({told})"


def main(
    data: str | None = None,
    output: str = "runs/methods",
    tasks: str | Sequence[str] = tuple(SETTINGS),
    methods: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] = (0, 1, 2),
    sources: str | None = None,
    jobs: int = 1,
    report_only: bool = False,
) -> int:
    """Train what is missing and print the tables. Goes on where it stopped.

    Args:
        data: folder of the real images.
        output: folder for data sets, trainings and tables.
        tasks: names of comparisons.
        methods: some of the methods; default: all of a comparison.
        seeds: of the trainings.
        sources: source domains of the white cells; default: both.
        jobs: cells that train at the same time.
        report_only: train nothing.

    Returns:
        0, or 1 if a cell failed.
    """
    code = 0
    for name in () if report_only else words(tasks):
        if name not in SETTINGS:
            raise ValueError(f"--tasks: no comparison {name!r}, allowed: {', '.join(SETTINGS)}.")
        wanted = SETTINGS[name].methods if methods is None else words(methods)
        numbers = (seeds,) if isinstance(seeds, int) else tuple(seeds)
        root = Path(data).resolve() if data else None
        code |= run(name, root, Path(output).resolve(), wanted, numbers, sources, jobs)
    text = report()
    out = Path(output)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / "methods.md") as partial:
        partial.write_text(text, encoding="utf-8")
    print(text)
    return code


def words(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return names given as "a,b" or a sequence."""
    return tuple(value.split(",")) if isinstance(value, str) else tuple(value)


if __name__ == "__main__":
    # Fire would print what it returns.
    raise SystemExit(fire.Fire(main, serialize=lambda _: None))
