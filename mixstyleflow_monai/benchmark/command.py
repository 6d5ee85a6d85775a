"""The command ``python -m mixstyleflow_monai benchmark``."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mixstyleflow_monai import bundle_paths
from mixstyleflow_monai.benchmark.cells import Failure, Workshop
from mixstyleflow_monai.benchmark.data import source_dataset
from mixstyleflow_monai.benchmark.plan import BASELINE, DEFAULT_METHOD, PHASE_ONE, PRESETS, Cell, Plan, make_plan
from mixstyleflow_monai.benchmark.records import case_table, doubts, find_record, shifted_scores
from mixstyleflow_monai.benchmark.steps import count_steps, describe_steps
from mixstyleflow_monai.benchmark.tables import choices, write_tables
from mixstyleflow_monai.bundle_paths import check_no_hash
from mixstyleflow_monai.data import check_headers, load_dataset
from mixstyleflow_monai.data.dataset_description import check_files
from mixstyleflow_monai.engines import flag
from mixstyleflow_monai.options import (
    check_image_level,
    check_loss,
    check_overlays,
    check_settings,
    check_style_levels,
    overrides_by_phase,
    words,
)
from mixstyleflow_monai.stopping import only_one

logger = logging.getLogger(__name__)
CONTROL = "PermutedStyleMix"
"""Stylizer of the methods that are to differ from the flows in where a style comes from, and in nothing else."""


def benchmark(
    dataset_dir: str,
    output_dir: str,
    methods: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] | None = None,
    sources: str | Sequence[str] | None = None,
    train_fraction: float = 1.0,
    jobs: int = 1,
    overlay: str | Sequence[str] = (),
    preset: str | None = None,
    reuse: str | Sequence[str] = (),
    tracking: str | None = "mlflow",
    shifted_validation: bool = True,
    dry_run: bool = False,
    seconds_per_step: float | None = None,
    bundles_dir: str | None = None,
    **overrides: Any,
) -> int:
    """Train every method with every seed for equally many steps from one Phase I, and compare them on unseen domains.

    Started again with the same arguments it goes on where it was. A cell that fails is reported, and the others go on.

    Args:
        dataset_dir: folder with dataset.json.
        output_dir: folder for trainings, finished cells (cells/), tables (benchmark.md, .csv, .tex) and the figure.
        methods: names of overlays in the configs/methods folder of phase 3's bundle, "mixstyleflow", "no_stylizer".
        seeds: of the trainings, for example 0,1,2.
        sources: "all" or names of domains to be the single source in turn; default: the data set's own.
        train_fraction: share of the source's training cases, for low-data experiments.
        jobs: cells that train at the same time.
        overlay: names of overlay files in the bundles' configs folders, for example "demo".
        preset: "paper-prostate" or "paper-fundus", the paper's own settings.
        reuse: further folders with finished cells.
        tracking: "mlflow" for an MLflow run a cell, or "none".
        shifted_validation: score networks on shifted validation images of their source as well.
        dry_run: only say what would be trained, with the number of steps.
        seconds_per_step: of a training step with hard examples, for an estimate of the time.
        bundles_dir: folder of the bundles.
        **overrides: configuration values of all phases, as in `run`.

    Returns:
        0, or 1 if a cell failed.
    """
    description = check_headers(check_files(load_dataset(str(dataset_dir))))
    out = Path(output_dir).resolve()
    check_no_hash(dataset_dir=description.path, output_dir=out)
    plan = _plan(description, methods, seeds, sources, train_fraction, overlay, preset, bundles_dir, overrides)
    _check_numbers(jobs, seconds_per_step)
    tracker, reused = _tracker(tracking), _reused(reuse)
    dry_run, shifted_validation = flag(dry_run, "dry_run"), flag(shifted_validation, "shifted_validation")
    with nullcontext() if dry_run else only_one(out):
        datasets = {s: source_dataset(description, s, plan.train_fraction, out / "data") for s in plan.sources}
        workshop = Workshop(plan, datasets, out, out / "cells", reused, jobs, tracker, shifted_validation)
        done = [cell for cell, _ in _found(workshop)]
        print(describe_steps(plan, count_steps(plan, datasets), seconds_per_step, done))
        if dry_run:
            return 0
        _report(workshop, failures := workshop.run())
        return 1 if failures else 0


def _check_numbers(jobs: Any, seconds_per_step: Any) -> None:
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise ValueError(f"--jobs {jobs!r}: expected a whole number of at least 1.")
    number = isinstance(seconds_per_step, int | float) and not isinstance(seconds_per_step, bool)
    if seconds_per_step is not None and not (number and seconds_per_step > 0):
        raise ValueError(f"--seconds_per_step {seconds_per_step!r}: expected a number above 0.")


def _plan(
    description: Any,
    methods: str | Sequence[str] | None,
    seeds: int | Sequence[int] | None,
    sources: str | Sequence[str] | None,
    train_fraction: float,
    overlay: str | Sequence[str],
    preset: str | None,
    bundles_dir: str | None,
    overrides: dict[str, Any],
) -> Plan:
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"--preset {preset!r}: expected one of {', '.join(PRESETS)}.")
    chosen = PRESETS[preset] if preset is not None else None
    root = bundle_paths.bundles_dir(bundles_dir)
    overlays = (*(chosen.overlays if chosen else ()), *words(overlay))
    check_overlays(root, overlays)
    # A plain option stands above one that the preset has for a single phase.
    preset_values = overrides_by_phase(root, chosen.overrides if chosen else {}, benchmark)
    given = overrides_by_phase(root, overrides, benchmark)
    default_methods = chosen.methods if chosen else (BASELINE, DEFAULT_METHOD)
    default_seeds = chosen.seeds if chosen else (0,)
    plan = make_plan(
        root,
        description,
        methods=words(methods) if methods is not None else default_methods,
        seeds=_several(seeds) if seeds is not None else default_seeds,
        sources=_sources(sources, description.domains) if sources is not None else chosen.sources if chosen else None,
        train_fraction=train_fraction,
        overlays=overlays,
        overrides={phase: preset_values[phase] | given[phase] for phase in given},
    )
    _check_styles(plan)
    check_settings(1, plan.settings(1), description)
    earlier = {phase: plan.settings(phase) for phase in (1, 2)}
    if any(map(plan.needs_flows, plan.methods)):
        check_settings(2, plan.settings(2), description)
        check_image_level(plan.settings(1), plan.settings(2))
    for method in plan.methods:
        if method != PHASE_ONE:
            check_settings(3, plan.settings(3, method), description, earlier)
            check_loss(plan.settings(1), plan.settings(3, method))
    return plan


def _check_styles(plan: Plan) -> None:
    """Refuse methods that cannot be compared.

    Those are flows without a level that a method asks for, a control beside them of another batch norm, and a method
    twice.

    Raises:
        ValueError: what differs, and how to make it equal; or two methods that do not differ.
    """
    settings = {method: plan.settings(3, method) for method in plan.methods if method != PHASE_ONE}
    trained: dict[str, str] = {}
    for method, of in settings.items():
        what = json.dumps({key: value for key, value in of.items() if key != "method"}, sort_keys=True)
        same = trained.setdefault(what, method)
        if same != method:
            raise ValueError(
                f"--methods: {same} and {method} are one and the same training: these options give both the same "
                "settings. Leave one out, or the option or overlay that makes them equal."
            )
    with_flows = [method for method, of in settings.items() if "style_flows" in str(of["made_from"])]
    flows = plan.settings(2)
    for method in with_flows:
        check_style_levels(flows, settings[method])
    name = "style_batch_norm"
    for method, of in settings.items():
        if with_flows and CONTROL in str(of["stylizer"]) and of[name] != flows[name]:
            raise ValueError(
                f"--methods {method}: is to differ from {with_flows[0]} in where its styles come from, but {name} is "
                f"{of[name]!r} and that of the flows {flows[name]!r}. Give --{name} for all phases, or train it in a "
                "benchmark without flows."
            )


def _tracker(tracking: str | None) -> str | None:
    if tracking not in (None, "none", "None", "mlflow"):
        raise ValueError(f"--tracking {tracking!r}: expected mlflow or none.")
    return "mlflow" if tracking == "mlflow" else None


def _reused(folders: str | Sequence[str]) -> tuple[Path, ...]:
    whole = isinstance(folders, str) and Path(folders).is_dir()
    found = tuple(Path(str(folder)) for folder in ((folders,) if whole else words(folders)))
    for folder in found:
        if not folder.is_dir():
            raise ValueError(f"--reuse {folder}: no such folder. Give the cells/ folder of an earlier benchmark.")
    return found


def _several(value: Any) -> tuple[Any, ...]:
    """Return the parts of a sequence, or of anything else that one thing."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _sources(value: Any, domains: Collection[str]) -> str | tuple[str, ...]:
    """Return names of domains; one that has a comma in it stays whole."""
    return value if isinstance(value, str) and (value == "all" or value in domains) else words(value)


def _found(workshop: Workshop) -> list[tuple[Cell, dict[str, Any]]]:
    """Return the finished cells with their records."""
    folders = (workshop.records, *workshop.reuse)
    found = [(cell, find_record(folders, workshop.plan, cell)) for cell in workshop.plan.cells]
    return [(cell, record) for cell, record in found if record is not None]


def _report(workshop: Workshop, failures: Sequence[Failure]) -> None:
    plan, records = workshop.plan, _found(workshop)
    console = Console(width=None if Console().is_terminal else 200)
    if records:
        share = "" if plan.train_fraction == 1.0 else f", {plan.train_fraction:.0%} of the training cases"
        caption = (
            f"{plan.dataset_name}{share}: Dice in percent, mean ± standard deviation over seeds; differences with 95 % "
            "bootstrap intervals over cases and seeds, paired by case"
        )
        notes = doubts(records, plan)
        shifted = shifted_scores(records)
        chosen = choices(shifted, cases := case_table(records))
        caption += "".join(f". Note: {note}" for note in (*notes, *chosen))
        table = write_tables(cases, plan.methods, workshop.output, caption, shifted)
        shown = Table(*map(str, table.columns), title=caption)
        for row in table.itertuples(index=False):
            shown.add_row(*map(str, row))
        console.print(shown)
        for note in notes:
            console.print(f"note: {note}", style="yellow", markup=False)
        for note in chosen:
            console.print(f"note: {note}", markup=False)
        print(f"wrote {workshop.output / 'benchmark.md'}, .csv, .tex and .png")
    for failure in failures:
        console.print(f"failed: {failure.message} (see {failure.log})", style="red", markup=False)
