"""From per-case rows to ``evaluation.json``, ``evaluation.csv`` and a printed table."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from mixstyleflow_monai.artifacts import atomic_path
from mixstyleflow_monai.evaluation.metrics import CaseResult

Record = dict[str, Any]
_PLACES = {"dice": 1, "asd": 2}
"""Decimals in tables."""
MEAN = "mean"
BASELINE = "no_stylizer"
"""Method of the equal-steps baseline, Phase III without styles."""


def summarise(
    results: Iterable[CaseResult], source_domain: str, *, phase: int, seed: int, facts: Mapping[str, Any] | None = None
) -> Record:
    """Summarise per-case rows by domain and region.

    ``source_mean_dice`` is the mean over regions on the source domain; ``unseen_mean_dice`` the mean over unseen
    domains, each with the same weight, of the mean over regions. Dice is in percent. Standard deviations are over
    cases, with n - 1. ``None`` stands for what is not defined (a distance to an absent region, an absent domain).

    Returns:
        {"phase", "seed", "source_domain", "domains": {name: {"role", "n", "regions": {region: {"dice": {"mean", "sd"},
        "asd_mm" or "asd_px": {"mean", "sd", "n"}}}, "dice": {"mean", "sd"} of each case's mean over regions}},
        "source_mean_dice", "unseen_mean_dice", **facts}
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
            "dice": _mean_and_sd(rows.groupby("case_id")["dice"].mean().to_numpy()),
        }
        means[name] = float(np.mean([region["dice"]["mean"] for region in regions.values()]))
    unseen = [value for name, value in means.items() if name != source_domain]
    return {
        "phase": phase,
        "seed": seed,
        "source_domain": source_domain,
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


def read_cases(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read what `write_cases` wrote: names stay texts, such as a case 001 and a domain NA.

    The column ``group`` is not in files of earlier versions.
    """
    texts = dict.fromkeys(("case_id", "domain", "region", "group"), str)
    return pd.read_csv(path, dtype=texts, keep_default_na=False, na_values={"dice": [""], "asd": [""]})


@dataclass(frozen=True)
class DomainTable:
    """Evaluations side by side, as text.

    Attributes:
        headings: of each column of values, the training and the region; the region is empty where there is one.
        domains: name, role and number of cases of each domain.
        values: a row a domain, "mean ± standard deviation over cases", with "(n of N)" where the measure is undefined
            for the other cases, such as the distance to a region that was not found; "-" if it is for all. A mean
            distance over regions has no spread.
        means: a row each for the unseen domains, every one with the same weight, and the source; with "(not all)" where
            cases are missing.
    """

    headings: list[tuple[str, str]]
    domains: list[tuple[str, str, int]]
    values: list[list[str]]
    means: dict[str, list[str]]


def domain_table(records: Sequence[Record], measure: str = "dice") -> DomainTable:
    """Put evaluations side by side, with a column a training and region, and one for the mean over several regions.

    Args:
        records: of `summarise`.
        measure: ``"dice"`` (percent) or ``"asd"`` (average surface distance, mm or pixels).
    """
    columns = [(record, region) for record in records for region in _columns(record)]
    names = list(dict.fromkeys(name for record in records for name in record["domains"]))
    shown = [next(record["domains"][name] for record in records if name in record["domains"]) for name in names]
    return DomainTable(
        [(record_name(record), region if len(_columns(record)) > 1 else "") for record, region in columns],
        [(name, str(domain["role"]), int(domain["n"])) for name, domain in zip(names, shown, strict=True)],
        [[_cell(record["domains"].get(name), region, measure) for record, region in columns] for name in names],
        {
            label: [_mean_of(record, role, region, measure) for record, region in columns]
            for label, role in (("mean of unseen domains", "unseen"), ("source", "source"))
        },
    )


def print_table(records: Sequence[Record], console: Console | None = None) -> None:
    """Print the Dice of `domain_table`; where the screen is too narrow for all regions, their means alone."""
    found = domain_table(records)
    # A pipe or a log has no width of its own; Rich would cut names at 80 columns.
    width = None if sys.stdout.isatty() else 60 + 20 * max(3, len(found.headings))
    console = console or Console(width=width)
    table = _rich_table(found, range(len(found.headings)))
    # Measured on a screen that is wide enough for anything.
    if console.measure(table, options=console.options.update(width=10_000)).maximum > console.width:
        means = [column for column, (_, region) in enumerate(found.headings) if region in ("", MEAN)]
        table = _rich_table(found, means)
        table.caption = "The screen is too narrow for all regions: evaluation.csv has every case of each."
    console.print(table)


def _rich_table(found: DomainTable, columns: Sequence[int]) -> Table:
    table = Table(title="Dice in percent: mean ± standard deviation over cases")
    table.add_column("domain")
    table.add_column("role")
    table.add_column("cases", justify="right")
    for column in columns:
        training, region = found.headings[column]
        table.add_column(training + (f"\n{region}" if region else ""), justify="right")
    for (name, role, count), row in zip(found.domains, found.values, strict=True):
        table.add_row(name, role, str(count), *(row[column] for column in columns))
    table.add_section()
    for label, row in found.means.items():
        table.add_row(label, "", "", *(row[column] for column in columns))
    return table


def record_name(record: Record) -> str:
    """Return the heading of a record: "Phase I", "baseline (no styles)", "Phase III"; another method by its name."""
    method = record.get("method")
    if method == BASELINE:
        return "baseline (no styles)"
    phase = f"Phase {'I' * int(record['phase'])}"
    return phase if method in (None, "", "none", "mixstyleflow") else f"{phase}, {method}"


def in_order(records: Iterable[Record]) -> list[Record]:
    """Return evaluations in the order of tables: Phase I, the baseline, Phase III."""
    return sorted(records, key=lambda record: (record["phase"], record.get("method") != BASELINE))


def _columns(record: Record) -> list[str]:
    """Return the regions of a record and "mean"; "mean" alone if there is one region."""
    regions = list(dict.fromkeys(region for domain in record["domains"].values() for region in domain["regions"]))
    return [*regions, MEAN] if len(regions) > 1 else [MEAN]


def _cell(domain: Record | None, region: str, measure: str) -> str:
    chosen = _measured(domain, region, measure)
    if not chosen:
        return "-"
    # The spread of a case's mean over regions cannot be had from that of each region.
    whole = chosen if len(chosen) == 1 else [(domain or {}).get(measure, {})]
    spreads = [d["sd"] for d in whole if d.get("sd") is not None and not math.isnan(d["sd"])]
    places = _PLACES[measure]
    text = f"{float(np.mean([d['mean'] for d in chosen])):.{places}f}"
    text += f" ± {spreads[0]:.{places}f}" if spreads else ""
    least, count = min(d.get("n", math.inf) for d in chosen), domain["n"] if domain else 0
    return text if least >= count else f"{text} ({least} of {count})"


def _mean_of(record: Record, role: str, region: str, measure: str) -> str:
    """Return the mean over the domains of a role, each with the same weight."""
    domains = [domain for domain in record["domains"].values() if domain["role"] == role]
    chosen = [_measured(domain, region, measure) for domain in domains]
    means = [float(np.mean([d["mean"] for d in found])) for found in chosen if found]
    if not means:
        return "-"
    # A mean over the cases in which something was found says nothing of the others.
    whole = all(
        found and min(d.get("n", math.inf) for d in found) >= domain["n"]
        for domain, found in zip(domains, chosen, strict=True)
    )
    return f"{float(np.mean(means)):.{_PLACES[measure]}f}" + ("" if whole else " (not all)")


def _measured(domain: Record | None, region: str, measure: str) -> list[dict[str, Any]]:
    """Return mean and spread of one region, or of each; nothing for a region where the measure is undefined."""
    regions: dict[str, Any] = {} if domain is None else domain["regions"]
    chosen = [entry for name, entry in regions.items() if region in (MEAN, name)]
    found = [value for entry in chosen for key, value in entry.items() if key.split("_")[0] == measure]
    return [value for value in found if value["mean"] is not None]
