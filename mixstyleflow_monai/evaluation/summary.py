"""From per-case rows to ``evaluation.json``, ``evaluation.csv`` and a printed table."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from mixstyleflow_monai.artifacts import atomic_path
from mixstyleflow_monai.evaluation.metrics import CaseResult

Record = dict[str, Any]


def summarise(
    results: Iterable[CaseResult], source_domain: str, *, phase: int, seed: int, facts: Mapping[str, Any] | None = None
) -> Record:
    """Summarise per-case rows by domain and region.

    ``source_mean_dice`` is the mean over regions on the source domain; ``unseen_mean_dice`` the mean over unseen
    domains, each with the same weight, of the mean over regions. Dice is in percent. Standard deviations are over
    cases, with n - 1. ``None`` stands for what is not defined (a distance to an absent region, an absent domain).

    Returns:
        {"phase", "seed", "domains": {name: {"role", "n", "regions": {region: {"dice": {"mean", "sd"}, "asd_mm" or
        "asd_px": {"mean", "sd", "n"}}}}}, "source_mean_dice", "unseen_mean_dice", **facts}
    """
    table = pd.DataFrame([asdict(result) for result in results])
    domains: Record = {}
    means: dict[str, float] = {}
    order = [source_domain, *sorted(set(table["domain"]) - {source_domain})]
    for name in order:
        rows = table[table["domain"] == name]
        if rows.empty:
            continue
        regions = {region: _region(rows[rows["region"] == region]) for region in dict.fromkeys(rows["region"])}
        domains[name] = {
            "role": "source" if name == source_domain else "unseen",
            "n": int(rows["case_id"].nunique()),
            "regions": regions,
        }
        means[name] = float(np.mean([region["dice"]["mean"] for region in regions.values()]))
    unseen = [value for name, value in means.items() if name != source_domain]
    return {
        "phase": phase,
        "seed": seed,
        "domains": domains,
        "source_mean_dice": means.get(source_domain),
        "unseen_mean_dice": float(np.mean(unseen)) if unseen else None,
        "dice_unit": "percent",
        **(facts or {}),
    }


def _region(rows: pd.DataFrame) -> Record:
    unit = str(rows["asd_unit"].iloc[0])
    distances = rows["asd"].dropna().to_numpy()
    return {
        "dice": _mean_and_sd(rows["dice"].to_numpy()),
        f"asd_{unit}": {**_mean_and_sd(distances), "n": len(distances)},
    }


def _mean_and_sd(values: np.ndarray) -> dict[str, float | None]:
    return {
        "mean": float(values.mean()) if len(values) else None,
        "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
    }


def write_cases(path: str | os.PathLike[str], results: Sequence[CaseResult], **columns: Any) -> None:
    """Write per-case rows as CSV, with constant columns in front, atomically."""
    table = pd.DataFrame([{**columns, **asdict(result)} for result in results])
    with atomic_path(path) as partial:
        table.to_csv(partial, index=False)


def print_table(records: Sequence[Record], console: Console | None = None) -> None:
    """Print one line a domain and a column a record: the mean Dice over regions, and its spread."""
    table = Table(title="Dice in percent: mean ± standard deviation over cases, mean over regions")
    table.add_column("domain")
    table.add_column("role")
    table.add_column("cases", justify="right")
    for record in records:
        table.add_column(record_name(record), justify="right")
    names = list(dict.fromkeys(name for record in records for name in record["domains"]))
    for name in names:
        shown = next(record["domains"][name] for record in records if name in record["domains"])
        cells = [_cell(record["domains"].get(name)) for record in records]
        table.add_row(name, shown["role"], str(shown["n"]), *cells)
    table.add_section()
    for label, key in (("mean of unseen domains", "unseen_mean_dice"), ("source", "source_mean_dice")):
        cells = ["-" if record[key] is None else f"{record[key]:.1f}" for record in records]
        table.add_row(label, "", "", *cells)
    # A pipe or a log has no width of its own; Rich would cut names at 80 columns.
    (console or Console(width=None if sys.stdout.isatty() else 120)).print(table)


def record_name(record: Record) -> str:
    """Return the heading of a record."""
    method = record.get("method")
    return f"phase {record['phase']}" + (f", {method}" if method else "")


def _cell(domain: Record | None) -> str:
    if domain is None:
        return "-"
    dice = [region["dice"] for region in domain["regions"].values()]
    mean = float(np.mean([d["mean"] for d in dice]))
    spreads = [d["sd"] for d in dice if d["sd"] is not None and not math.isnan(d["sd"])]
    return f"{mean:.1f} ± {float(np.mean(spreads)):.1f}" if spreads else f"{mean:.1f}"
