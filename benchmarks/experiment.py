"""Seeds, runs and tables shared by the experiments.

An experiment is a data set and a few settings. For every seed it runs ``python -m mixstyleflow_monai run`` with the
baseline, which goes on where it was stopped, and puts Phase I, the equal-steps baseline and Phase III side by side.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from mixstyleflow_monai.artifacts import atomic_path, git_commit, write_json

NAMES = {"phase1": "Phase I", "baseline": "baseline", "phase3": "Phase III"}


@dataclass(frozen=True)
class Experiment:
    """A data set, the seeds, the overlays, and the settings laid over them."""

    name: str
    dataset_dir: Path
    seeds: Sequence[int] = (0, 1, 2)
    settings: Mapping[str, Any] = field(default_factory=dict)
    overlay: str = "demo"


def run_experiments(experiments: Sequence[Experiment], output: Path) -> None:
    """Run what is not done yet, one (experiment, seed) after the other, each in a process of its own."""
    for number in range(max(len(experiment.seeds) for experiment in experiments)):
        for experiment in experiments:
            if number < len(experiment.seeds):
                run_one(experiment, experiment.seeds[number], output)


def run_one(experiment: Experiment, seed: int, output: Path) -> None:
    """Run one seed of an experiment and note how long it took."""
    folder = output / experiment.name / f"seed{seed}"
    note, resumed = folder / "time.json", folder.exists()
    command = [sys.executable, "-m", "mixstyleflow_monai", "run"]
    command += ["--dataset_dir", str(experiment.dataset_dir), "--output_dir", str(folder)]
    command += ["--seed", str(seed), "--overlay", experiment.overlay, "--baseline"]
    for key, value in experiment.settings.items():
        command += [f"--{key}", json.dumps(value)]
    print(f"{experiment.name}, seed {seed}", flush=True)
    start = time.monotonic()
    subprocess.run(command, check=True)
    # The command skips what is done and refuses other settings; the time is that of the part that it did.
    if not note.is_file():
        seconds = round(time.monotonic() - start)
        write_json(note, {"seconds": seconds, "resumed": resumed, "commit": git_commit()})


def read_results(experiments: Sequence[Experiment], output: Path) -> pd.DataFrame:
    """Return one row an experiment, seed, training, domain and region, with the Dice over cases (percent)."""
    rows = []
    for experiment in experiments:
        for seed in experiment.seeds:
            folder = output / experiment.name / f"seed{seed}"
            for step in NAMES:
                path = folder / step / "evaluation.json"
                if not path.is_file():
                    continue
                record = json.loads(path.read_text(encoding="utf-8"))
                for domain, entry in record["domains"].items():
                    for region, values in entry["regions"].items():
                        rows.append(
                            {
                                "experiment": experiment.name,
                                "seed": seed,
                                "training": step,
                                "domain": domain,
                                "role": entry["role"],
                                "region": region,
                                "cases": entry["n"],
                                "dice": values["dice"]["mean"],
                                "dice_sd": values["dice"]["sd"],
                                "unseen_mean_dice": record["unseen_mean_dice"],
                                "source_mean_dice": record["source_mean_dice"],
                            }
                        )
    return pd.DataFrame(rows)


def report(experiments: Sequence[Experiment], output: Path) -> None:
    """Print the tables and write them to ``results.md`` and ``results.csv``."""
    results = read_results(experiments, output)
    if results.empty:
        raise ValueError(f"{output}: no finished run. Run the experiment first.")
    lines: list[str] = []
    for name, rows in results.groupby("experiment", sort=False):
        lines += [f"### {name}", "", *summary_table(rows), "", *region_table(rows), ""]
    with atomic_path(output / "results.md") as partial:
        partial.write_text("\n".join(lines), encoding="utf-8")
    with atomic_path(output / "results.csv") as partial:
        results.to_csv(partial, index=False)
    print_markdown(lines)


def summary_table(rows: pd.DataFrame) -> list[str]:
    """Return a Markdown table: a row a seed with source and unseen means of each training, then mean and sd."""
    source: dict[tuple[int, str], float] = {}
    unseen: dict[tuple[int, str], float] = {}
    for row in rows.to_dict("records"):
        key = (int(row["seed"]), str(row["training"]))
        source[key], unseen[key] = float(row["source_mean_dice"]), float(row["unseen_mean_dice"])
    seeds = [s for s in dict.fromkeys(seed for seed, _ in source) if all((s, t) in source for t in NAMES)]
    gains = [unseen[s, "phase3"] - unseen[s, "baseline"] for s in seeds]
    lines = [
        "| seed | " + " | ".join(f"{name}: source / unseen" for name in NAMES.values()) + " | gain, unseen |",
        "|---|" + "---|" * (len(NAMES) + 1),
    ]
    for seed, gain in zip(seeds, gains, strict=True):
        cells = [f"{source[seed, t]:.1f} / {unseen[seed, t]:.1f}" for t in NAMES]
        lines.append(f"| {seed} | " + " | ".join(cells) + f" | {gain:+.1f} |")
    if len(seeds) > 1:
        cells = [f"{_spread([source[s, t] for s in seeds])} / {_spread([unseen[s, t] for s in seeds])}" for t in NAMES]
        lines.append("| mean ± sd | " + " | ".join(cells) + f" | {_spread(gains, sign=True)} |")
    return lines


def _spread(values: Sequence[float], *, sign: bool = False) -> str:
    """Return mean ± standard deviation (n - 1) of a few values."""
    mean = statistics.mean(values)
    return f"{mean:+.1f} ± {statistics.stdev(values):.1f}" if sign else f"{mean:.1f} ± {statistics.stdev(values):.1f}"


def region_table(rows: pd.DataFrame) -> list[str]:
    """Return a Markdown table: a row a domain and region, mean over seeds of the Dice and of its spread over cases."""
    lines = ["| domain | role | region | cases | " + " | ".join(NAMES.values()) + " |", "|---|---|---|---|---|---|---|"]
    for (domain, role, region), part in rows.groupby(["domain", "role", "region"], sort=False):
        cells = []
        for training in NAMES:
            chosen = part[part["training"] == training]
            cells.append(f"{chosen['dice'].mean():.1f} ± {chosen['dice_sd'].mean():.1f}" if len(chosen) else "-")
        cases = "/".join(str(n) for n in dict.fromkeys(part["cases"]))
        lines.append(f"| {domain} | {role} | {region} | {cases} | " + " | ".join(cells) + " |")
    return lines


def print_markdown(lines: Sequence[str]) -> None:
    """Print Markdown tables with rich."""
    console = Console()
    table: Table | None = None
    for line in [*lines, ""]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            if table is not None:
                console.print(table)
                table = None
            if line:
                console.print(line.lstrip("# "), style="bold")
        elif table is None:
            table = Table(*cells)
        elif not set(line) <= set("|-"):
            table.add_row(*cells)
