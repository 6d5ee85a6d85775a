"""One factor of the recipe at a time: ``python -m benchmarks.factors --data FOLDER``.

Every setting is the recipe (`RECIPE`, an overlay of phase 3) with one thing changed, trained from the same Phase I as
the compared methods of `benchmarks.methods`, for as many steps. Two numbers are taken of each: the mean Dice of source
validation slices under shifts set by hand (`benchmarks.held_in_shifts`), by which settings are chosen, and the mean
Dice on unseen domains, which chooses nothing. Finished ones are in ``benchmarks/factor_cells``.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fire
import pandas as pd

from benchmarks.held_in_shifts import shifts_of_run
from benchmarks.methods import FLOWS, RECIPE, SETTINGS, common_settings, data_name, dataset_of, words
from mixstyleflow_monai.artifacts import write_json
from mixstyleflow_monai.benchmark import benchmark
from mixstyleflow_monai.benchmark.cells import REQUEST_FILE
from mixstyleflow_monai.benchmark.data import source_name
from mixstyleflow_monai.benchmark.plan import BASELINE, PHASE_ONE, PHASE_TWO, Cell
from mixstyleflow_monai.benchmark.records import case_table
from mixstyleflow_monai.benchmark.tables import difference, markdown, runs_of, seeds_in_words
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir
from mixstyleflow_monai.data.dataset_description import DATASET_FILE, read_json
from mixstyleflow_monai.engines.shifted_validation import MEAN, MEAN_OF_PAIRS
from mixstyleflow_monai.stopping import only_one

CELLS = Path(__file__).parent / "factor_cells"
TASKS = ("white_cells", "prostate_phantom")
"""The default; comparisons with a share of the training cases are not for this study."""
REFERENCES = (BASELINE, "mixstyleflow", RECIPE)
"""Trained in the same way, and where `benchmarks.methods` has trained them already, taken from there."""
MEASURES = ("under shifts", "two at a time", "source test")
"""Columns beside the Dice of unseen domains, which is paired by case."""
TEMPERATURES: dict[str, float] = FLOWS["phase2:temperatures"]


@dataclass(frozen=True)
class Variant:
    """The recipe with one thing changed.

    Attributes:
        factor: what is changed.
        setting: to what, for the table.
        phase3: options of the hard examples.
        training: settings of `benchmark` for all trainings, for what a method alone may not change.
        with_baseline: whether the baseline is trained with ``training`` too.
    """

    factor: str
    setting: str
    phase3: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    with_baseline: bool = False


def _scaled(factor: float) -> dict[str, float]:
    return {level: factor * value for level, value in TEMPERATURES.items()}


VARIANTS: dict[str, Variant] = {
    "temperature_half": Variant("temperature", "half", {"temperatures": _scaled(0.5)}),
    "temperature_double": Variant("temperature", "double", {"temperatures": _scaled(2.0)}),
    "weight_uniform": Variant("weight law", "uniform", {"weight_law": "uniform"}),
    "weight_about_half": Variant("weight law", "Beta(5, 5)", {"alpha": 5.0}),
    "probability_half": Variant("probability", "0.5", {"probability": 0.5}),
    "levels_image": Variant("levels", "5", {"style_levels": [5]}),
    "levels_features": Variant("levels", "2, 3, 4", {"style_levels": [2, 3, 4]}),
    "style_per_batch": Variant("one style", "a batch", {"style_per": "batch"}),
    "weight_per_channel": Variant("one weight", "a channel", {"weight_per": "channel"}),
    "decoded": Variant("hard image", "decoded", {"stylized_output": "decoded"}),
    "low_frequency": Variant("hard image", "low frequencies of the change", {"stylized_output": "low_frequency"}),
    "batch_norm_running": Variant("batch norm of the hard pass", "running", {"hard_batch_norm": "running"}),
    "batch_norm_tracked": Variant("batch norm of the hard pass", "tracked", {"hard_batch_norm": "tracked"}),
    "batch_norm_separate": Variant("batch norm of the hard pass", "separate affine", {"hard_batch_norm": "separate"}),
    "batch_norm_instance": Variant("batch norm of the hard pass", "instance", {"hard_batch_norm": "instance"}),
    "weight_half": Variant("weight of the hard loss", "0.5", {"hard_weight": 0.5}),
    "weight_double": Variant("weight of the hard loss", "2", {"hard_weight": 2.0}),
    "views_two": Variant("hard images of each image", "2", {"views": 2}),
    "views_four": Variant("hard images of each image", "4", {"views": 4}),
    "consistency": Variant("consistency", "10 times JS divergence", {"consistency_weight": 10.0}),
    "joint": Variant("flows", "joint", training={"phase2:joint_statistics": True}),
    "unclipped": Variant("flows", "samples not clipped", training={"phase2:clip_to_envelope": False}),
    "scratch": Variant("start", "from scratch", training={"phase3:warm_start": False}, with_baseline=True),
    "constant_rate": Variant(
        "schedule", "constant rate", training={"phase3:lr_schedule": "constant"}, with_baseline=True
    ),
    "average": Variant("weights", "average, 0.98", training={"phase3:weight_average": 0.98}, with_baseline=True),
    "long_phase3": Variant("Phase III", "500 steps", training={"phase3:max_epochs": 20}, with_baseline=True),
    "long_phase1": Variant("Phase I", "750 steps", training={"phase1:max_epochs": 30}, with_baseline=True),
}


def run(
    name: str, images: Path | None, output: Path, variants: Sequence[str], seeds: Sequence[int], jobs: int = 1
) -> int:
    """Train what is missing of one data set, and put it with its Dice under shifts into `CELLS`."""
    dataset = dataset_of(name, images, output)
    folder = output / "factors" / name
    with only_one(folder):
        root = _bundles(folder / "bundles", variants)
        groups = {"recipe": (*REFERENCES, *(v for v in variants if not VARIANTS[v].training))}
        groups |= {v: (*((BASELINE,) * VARIANTS[v].with_baseline), RECIPE) for v in variants if VARIANTS[v].training}
        code = 0
        for group, methods in groups.items():
            training = VARIANTS[group].training if group in VARIANTS else {}
            lend(output / name, folder / group, training, seeds)
            code |= benchmark(
                str(dataset),
                str(folder / group),
                methods=methods,
                seeds=list(seeds),
                sources=SETTINGS[name].sources,
                jobs=jobs,
                reuse=str(CELLS) if CELLS.is_dir() else (),
                bundles_dir=str(root),
                **{**common_settings(SETTINGS[name]), **training},
            )
            for path in sorted((folder / group / "cells").glob("*.json")):
                _keep(path, folder / group, group, dataset)
    return code


def _bundles(folder: Path, variants: Sequence[str]) -> Path:
    """Copy the bundles and add a method for each variant that is one."""
    shutil.copytree(bundles_dir(), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("models"))
    methods = folder / PHASE_BUNDLES[3] / "configs" / "methods"
    recipe = json.loads((methods / f"{RECIPE}.json").read_text(encoding="utf-8"))
    for name in variants:
        if not VARIANTS[name].training:
            write_json(methods / f"{name}.json", {**recipe, **VARIANTS[name].phase3, "method": name})
    return folder


def lend(trained: Path, folder: Path, training: Mapping[str, Any], seeds: Sequence[int]) -> None:
    """Copy finished trainings of `benchmarks.methods` that are the same here, so that they are not repeated.

    Args:
        trained: its folder of a comparison.
        folder: that of the benchmark to come.
        training: settings of `benchmark` that are other ones here.
        seeds: of which trainings are lent.
    """
    changed = {key.partition(":")[0] for key in training}
    wanted = [] if "phase1" in changed else [PHASE_ONE]
    wanted += [] if {"phase1", "phase2"} & changed else [PHASE_TWO]
    wanted += [] if training else REFERENCES
    for done in [path for seed in seeds for path in sorted(trained.glob(f"*/seed{seed}/*"))]:
        target = folder / done.relative_to(trained)
        # Without its request a training would pass for one of any settings.
        last = "style_flows" if done.name == PHASE_TWO else "model"  # phase 2 begins with a copy of phase 1's network
        whole = (done / REQUEST_FILE).is_file() and (done / "models" / f"{last}.manifest.json").is_file()
        if done.name in wanted and whole and not target.exists():
            partial = target.with_name(f".partial-{target.name}")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(done, partial, ignore=shutil.ignore_patterns("checkpoints", "panels"))
            partial.rename(target)


def _keep(path: Path, folder: Path, group: str, dataset: Path) -> None:
    """Keep a finished cell, with the Dice of its network on shifted source validation slices.

    One that was kept before there were pairs of shifts is measured again, if its network is still there.
    """
    kept_before = read_json(CELLS / path.name)["held_in_shifts"] if (CELLS / path.name).is_file() else {}
    if MEAN_OF_PAIRS in kept_before:
        return
    record = json.loads(path.read_text(encoding="utf-8"))
    request = record["request"]
    source = request["source"]
    trained = folder / source_name(source) / f"seed{request['seed']}" / request["method"]
    if kept_before and not (trained / "models" / "model.pt").is_file():
        return
    own = read_json(dataset / DATASET_FILE)["source_domain"] == source
    shifts = shifts_of_run(trained, dataset if own else folder / "data" / source_name(source))
    kept = {name: round(value, 2) for name, value in shifts.items()}
    CELLS.mkdir(exist_ok=True)
    write_json(CELLS / path.name, {**record, "group": group, "held_in_shifts": kept})


def report(folder: Path = CELLS) -> str:
    """Return a table for each source domain as Markdown: the recipe, and what each setting adds to it.

    Settings were not all trained with the same seeds, so that their means cannot be set beside each other; differences
    to the recipe are over the seeds that both have.
    """
    rows = [_row(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]
    keys = [(row["data"], row["source"], row["factor"], row["setting"], row["seed"]) for row in rows]
    twice = [key for key in keys if keys.count(key) > 1]
    if twice:
        raise ValueError(f"{folder}: two records of {twice[0]}, of other settings. Remove the one not wanted.")
    if not rows:
        return "No finished cells.\n"
    parts = []
    for (data, source), table in pd.DataFrame(rows).groupby(["data", "source"]):
        parts.append(f"### {data}, trained on `{source}`")
        cases = case_table([(row["cell"], row["record"]) for row in table.to_dict("records")])
        of_recipe = table[table["factor"] == "recipe"].set_index("seed")
        lines = []
        for _, own in table.groupby(["order", "factor", "setting"]):
            factor, setting = (str(own[name].iloc[0]) for name in ("factor", "setting"))
            line = {"factor": factor, "setting": setting, "seeds": runs_of(own["seed"])}
            line |= {name: _beside(own.set_index("seed")[name], of_recipe[name], factor) for name in MEASURES}
            if factor == "recipe":
                line["unseen"] = _mean_and_deviation(own["unseen"])
            else:
                line["unseen"] = difference(cases, _label(factor, setting), _label("recipe", ""))
            without = _label("baseline", "") if factor == "recipe" else _label(factor, f"{setting}, baseline")
            # Trained otherwise, the recipe has another baseline.
            line["to its own baseline"] = difference(cases, _label(factor, setting), without)
            lines.append(line)
        parts.append(markdown(pd.DataFrame(lines)).rstrip())
    return "\n\n".join(parts) + "\n"


def _label(factor: str, setting: str) -> str:
    return f"{factor}: {setting}"


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    request, group = record["request"], record["group"]
    method = request["method"]
    name = method if method in VARIANTS else group
    variant = VARIANTS.get(name)
    if variant is None:
        factor, setting = {BASELINE: "baseline", PHASE_ONE: "Phase I", RECIPE: "recipe"}.get(method, method), ""
    else:
        suffix = {BASELINE: ", baseline", PHASE_ONE: ", Phase I"}.get(method, "")
        factor, setting = variant.factor, variant.setting + suffix
    return {
        "data": data_name(record),
        "source": request["source"],
        "seed": request["seed"],
        "order": list(VARIANTS).index(name) if variant else -1 - (factor == "recipe"),
        "factor": factor,
        "setting": setting,
        "under shifts": record["held_in_shifts"][MEAN],
        "two at a time": record["held_in_shifts"].get(MEAN_OF_PAIRS, math.nan),
        "source test": record["source_mean_dice"],
        "unseen": record["unseen_mean_dice"],
        "cell": Cell(request["source"], _label(factor, setting), request["seed"]),
        "record": record,
    }


def _beside(values: pd.Series[float], of_recipe: pd.Series[float], factor: str) -> str:
    """Return the mean over seeds: the recipe's own, or the difference to it over the seeds that both have."""
    if factor == "recipe":
        return _mean_and_deviation(values)
    paired = (values - of_recipe.reindex(values.index)).dropna()
    few = f" ({seeds_in_words(paired.index)})" if 0 < len(paired) < len(values) else ""
    return _mean_and_deviation(paired, sign="+") + few


def _mean_and_deviation(values: pd.Series[float], sign: str = "") -> str:
    if not len(values) or values.isna().any():
        return "-"
    return f"{values.mean():{sign}.1f}" + (f" ± {values.std():.1f}" if len(values) > 1 else "")


def main(
    data: str | None = None,
    output: str = "runs/methods",
    tasks: str | Sequence[str] = TASKS,
    variants: str | Sequence[str] = tuple(VARIANTS),
    seeds: int | Sequence[int] = 0,
    jobs: int = 1,
    report_only: bool = False,
) -> int:
    """Train what is missing and print the tables. Goes on where it stopped.

    Args:
        data: folder of the real images.
        output: folder for data sets, trainings and tables; that of `benchmarks.methods`, whose Phase I is used then.
        tasks: names of comparisons of `benchmarks.methods`.
        variants: names of `VARIANTS`.
        seeds: of the trainings.
        jobs: cells that train at the same time.
        report_only: train nothing.

    Returns:
        0, or 1 if a cell failed.
    """
    code = 0
    chosen = words(variants)
    known = [name for name, setting in SETTINGS.items() if setting.train_fraction == 1.0]
    unknown = [name for name in chosen if name not in VARIANTS] or [t for t in words(tasks) if t not in known]
    if unknown:
        raise ValueError(f"{unknown[0]!r}: no such variant or task, allowed: {', '.join([*VARIANTS, *known])}.")
    for name in () if report_only else words(tasks):
        numbers = (seeds,) if isinstance(seeds, int) else tuple(seeds)
        code |= run(name, Path(data).resolve() if data else None, Path(output).resolve(), chosen, numbers, jobs)
    print(report())
    return code


if __name__ == "__main__":
    # Fire would print what it returns.
    raise SystemExit(fire.Fire(main, serialize=lambda _: None))
