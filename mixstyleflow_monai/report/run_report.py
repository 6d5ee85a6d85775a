"""The report of a run: one HTML file with its results by domain, region and case, and its pictures."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mixstyleflow_monai.artifacts import atomic_path
from mixstyleflow_monai.bundle_runs import TRAININGS
from mixstyleflow_monai.data.dataset_description import read_json
from mixstyleflow_monai.evaluation.comparison import Comparison, compare
from mixstyleflow_monai.evaluation.summary import BASELINE, Record, domain_table, in_order, read_cases, record_name
from mixstyleflow_monai.report.figures import CONTOUR_COLOURS, plain, png
from mixstyleflow_monai.report.poor_styles import poor_styles
from mixstyleflow_monai.report.predictions import DOMAINS, predictions

REPORT_FILE = "report.html"
GENERATOR = '<meta name="generator" content="mixstyleflow_monai">'
"""In every report, by which one of ours is known from another file of that name."""
EVALUATED = {
    "test": "test cases of all domains",
    "validation": "validation cases, by which checkpoints may have been chosen",
    "train": "training cases, which the networks have seen",
    "all": "every case of a data set of other sites",
}
"""What each split means, for the head of the report."""
WORST = 12
"""Cases that are listed as the worst."""
_COLOURS = ("#8a8f98", "#d9822b", "#2563a8", "#2f8f5b", "#8e4fa8")


@dataclass(frozen=True)
class Picture:
    """A picture in the report: what it shows, and its content as a data URI."""

    title: str
    uri: str


def write_report(run_dir: Path, output: Path | None = None) -> Path:
    """Write what a finished run, or one evaluation, gave as an HTML file that needs no other file.

    Args:
        run_dir: folder with evaluation.json and evaluation.csv. Of an evaluation by the command `evaluate`, pictures
            and settings are those of the run, where that is still in its place.
        output: file to write; default: report.html in that folder. A report that is there is replaced.

    Returns:
        The written file.

    Raises:
        ValueError: no evaluation in the folder, or a file of that name that is no report of ours.
    """
    target = run_dir / REPORT_FILE if output is None else output
    check_replaceable(target)
    records = _records(run_dir)
    cases = _cases(run_dir, records)
    home = _home(run_dir)
    dice = domain_table(records)
    domains = [name for name, _, _ in dice.domains]
    regions = list(dict.fromkeys(cases["region"]))
    shown = predictions([run_dir, *(run_dir / name for name in TRAININGS)], records, cases, domains)
    environment = Environment(
        loader=PackageLoader("mixstyleflow_monai.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.get_template("run_report.html.j2").render(
        generator=GENERATOR,
        title=f"{records[0].get('dataset', 'data set')}: {run_dir.resolve().name}",
        facts=_facts(home, records),
        evaluated=EVALUATED.get(split := str(records[0].get("split", "test")), split),
        results=_results(records, cases),
        seeds=sorted({record["seed"] for record in records}),
        tables={
            "Dice in percent": dice,
            f"Average surface distance in {_unit(cases)}": domain_table(records, "asd"),
        },
        figure=_figure(records, cases),
        worst=_worst(records, cases),
        predictions=shown,
        which=f"each of the first {DOMAINS} domains" if len(domains) > DOMAINS else "every domain",
        outlines={region: CONTOUR_COLOURS[number % len(CONTOUR_COLOURS)] for number, region in enumerate(regions)},
        pictures=_pictures(home),
        styles=_styles(home),
        warnings=[f"{fault}: look at the pictures; {remedy}." for fault, remedy in poor_styles(_style_numbers(home))],
    )
    with atomic_path(target) as partial:
        partial.write_text(text, encoding="utf-8")
    return target


def check_replaceable(path: Path) -> None:
    """Refuse to replace a file that is no report of ours.

    Raises:
        ValueError: there is one.
    """
    if path.is_dir() or (path.is_file() and GENERATOR.encode() not in path.read_bytes()[:2000]):
        raise ValueError(f"{path}: is there, and is no report of a run; it would be replaced. Move it away.")


def _home(run_dir: Path) -> Path:
    """Return the folder of the run that an evaluation is of: named by the command `evaluate`, otherwise the same."""
    path = run_dir / "evaluate.json"
    content = read_json(path, remedy="Evaluate again.") if path.is_file() else None
    named = content.get("run_dir") if isinstance(content, dict) else None
    return Path(named) if named and Path(named).is_dir() else run_dir


def _records(run_dir: Path) -> list[Record]:
    path = run_dir / "evaluation.json"
    if not path.is_file() or not path.with_suffix(".csv").is_file():
        raise ValueError(
            f"{run_dir}: no evaluation.json and evaluation.csv. Give the --output_dir of `run`, or a folder that "
            "`evaluate.json` wrote to."
        )
    content = read_json(path, remedy="Evaluate again.")
    found: list[Record] = content if isinstance(content, list) else [content]
    if not found or not all(isinstance(record, dict) and "domains" in record for record in found):
        raise ValueError(f"{path}: holds no evaluation. Evaluate again.")
    return in_order(found)


def _cases(run_dir: Path, records: Sequence[Record]) -> pd.DataFrame:
    """Return the rows of cases with the columns training (as in the tables), role and source."""
    cases = read_cases(run_dir / "evaluation.csv")
    if "method" not in cases:
        cases["method"] = records[0].get("method", "")
    names = {(record["phase"], record.get("method", "")): record_name(record) for record in records}
    cases["training"] = [
        names.get((phase, method), "") for phase, method in zip(cases["phase"], cases["method"], strict=True)
    ]
    roles = {name: domain["role"] for record in records for name, domain in record["domains"].items()}
    cases["role"] = cases["domain"].map(roles)
    cases["source"] = next((name for name, role in roles.items() if role == "source"), "")
    return cases[cases["training"] != ""]


def _unit(cases: pd.DataFrame) -> str:
    return {"px": "pixels"}.get(str(cases["asd_unit"].iloc[0]), str(cases["asd_unit"].iloc[0]))


def _facts(home: Path, records: Sequence[Record]) -> dict[str, str]:
    """Return what the run was: data, settings, versions; what is not known is left out."""
    # Evaluations of earlier versions do not name the domain.
    sources = [name for record in records for name, domain in record["domains"].items() if domain["role"] == "source"]
    facts = {
        "data set": str(records[0].get("dataset", "")),
        "SHA-256 of its dataset.json": str(records[0].get("dataset_sha256", "")),
        "run": str(home.resolve().name),
        "trained on the domain": str(records[0].get("source_domain") or next(iter(sources), "")),
    }
    request = home / "run.json"
    if request.is_file():
        content = json.loads(request.read_text(encoding="utf-8"))
        facts["overlays"] = ", ".join(content.get("overlay", [])) or "none"
        for phase in ("phase 1", "phase 2", "phase 3"):
            given = content.get(phase) or {}
            facts[f"options of {phase}"] = ", ".join(f"{name} = {value}" for name, value in given.items())
    manifests = sorted(home.glob("*/models/model.manifest.json")) or sorted(home.glob("models/model.manifest.json"))
    if manifests:
        last = json.loads(manifests[-1].read_text(encoding="utf-8"))
        facts["made with"] = ", ".join(f"{name} {value}" for name, value in last.get("versions", {}).items())
        facts["commit"] = str(last.get("git_commit") or "")
    for record in records:
        facts[f"SHA-256 of {record_name(record)}"] = str(record.get("model_sha256", ""))
    return {name: value for name, value in facts.items() if value}


def _results(records: Sequence[Record], cases: pd.DataFrame) -> list[dict[str, str]]:
    """Return a row a training: means, their gap, and the difference to the baseline, paired by case."""
    baseline = next((record_name(record) for record in records if record.get("method") == BASELINE), None)
    named = cases.assign(method=cases["training"])
    rows = []
    for record in records:
        source, unseen = record["source_mean_dice"], record["unseen_mean_dice"]
        name = record_name(record)
        found = compare(named, name, baseline) if baseline and name != baseline else None
        rows.append(
            {
                "training": name,
                "source": _number(source),
                "unseen": _number(unseen),
                "gap": _number(None if source is None or unseen is None else source - unseen),
                "difference": "-" if found is None else _interval(found),
            }
        )
    return rows


def _interval(found: Comparison) -> str:
    return f"{found.difference:+.1f} " + (f"[{found.low:+.1f}, {found.high:+.1f}]" if found.has_interval else "[-]")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _figure(records: Sequence[Record], cases: pd.DataFrame) -> Picture:
    """Draw the Dice of every case: a panel a region, a group a domain, a colour a training."""
    regions = list(dict.fromkeys(cases["region"]))
    names = [record_name(record) for record in records]
    domains = [name for name, _, _ in domain_table(records).domains]
    width = max(6.0, 1.2 + 0.34 * (len(names) + 1) * len(domains))
    figure = Figure(figsize=(min(width, 16.0), 3.1 * len(regions) + 0.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    for region, axis in zip(regions, figure.subplots(len(regions), 1, squeeze=False)[:, 0], strict=True):
        _draw_region(axis, cases[cases["region"] == region], names, domains)
        axis.set_title(plain(str(region)) if len(regions) > 1 else "", fontsize=9, loc="left")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(names), fontsize=8, frameon=False)
    return Picture("Dice of every case, in percent", _uri(png(figure)))


def _draw_region(axis: Axes, cases: pd.DataFrame, names: Sequence[str], domains: Sequence[str]) -> None:
    step = 1.0 / (len(names) + 1)
    for number, name in enumerate(names):
        colour = _COLOURS[number % len(_COLOURS)]
        for place, domain in enumerate(domains):
            values = cases[(cases["training"] == name) & (cases["domain"] == domain)]["dice"].to_numpy(dtype=float)
            centre = place + (number - (len(names) - 1) / 2) * step
            # The same places in every report: no random jitter.
            shift = step * 0.3 * np.linspace(-1, 1, len(values)) if len(values) > 1 else np.zeros(len(values))
            label = plain(name) if place == 0 else None
            axis.plot(centre + shift, values, ".", color=colour, alpha=0.55, markersize=3.5, label=label)
            if len(values):
                axis.plot([centre - 0.38 * step, centre + 0.38 * step], [values.mean()] * 2, color=colour, linewidth=2)
    long = max(map(len, domains)) > 18
    axis.set_xticks(range(len(domains)), [plain(name) for name in domains], fontsize=8)
    if long:
        axis.tick_params(axis="x", labelrotation=20)
    axis.set_xlim(-0.6, len(domains) - 0.4)
    axis.set_ylim(-3, 103)
    axis.set_ylabel("Dice, %", fontsize=8)
    axis.tick_params(axis="y", labelsize=8)
    axis.grid(axis="y", alpha=0.3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _worst(records: Sequence[Record], cases: pd.DataFrame) -> dict[str, Any]:
    """Return the cases with the lowest Dice of the last training, and what the others have there."""
    names = [record_name(record) for record in records]
    wide = cases.pivot_table(index=["domain", "case_id", "region"], columns="training", values="dice", sort=False)
    lowest = wide.sort_values(names[-1], kind="stable").head(WORST)
    rows = [
        [*map(str, key), *("-" if pd.isna(row.get(name)) else f"{row[name]:.1f}" for name in names)]
        for key, row in zip(lowest.index, lowest.to_dict("records"), strict=True)
    ]
    return {"names": names, "rows": rows}


def _pictures(home: Path) -> list[Picture]:
    """Return the last panel of each training, and that of the style flows."""
    titles = {
        "phase1": "Phase I: images and their reconstructions",
        "phase2": "Phase II: images in styles that were sampled from the flows",
        "phase3": "Phase III: images, reconstructions and stylised images of training",
        "baseline": "baseline: images and their reconstructions",
    }
    found = []
    for name, title in titles.items():
        panels = sorted((home / name / "panels").glob("*.png"))
        if panels:
            found.append(Picture(f"{title} ({panels[-1].stem})", _uri(panels[-1].read_bytes())))
    # The folder of one training alone.
    own = sorted((home / "panels").glob("*.png"))[-1:]
    return found + [Picture(f"images of the training ({path.stem})", _uri(path.read_bytes())) for path in own]


def _uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _style_numbers(home: Path) -> Mapping[str, Any]:
    path = home / "phase2" / "style_report.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _styles(home: Path) -> list[tuple[str, str]]:
    """Return what Phase II measured of its flows, in words and numbers; nothing without Phase II."""
    content = _style_numbers(home)
    described = {
        "reconstruction_psnr": ("reconstruction of images without a style", "dB"),
        "plain_dice": ("Dice of Phase I on labelled validation slices", "%"),
        "in_domain_dice": ("the same in styles of the domain (temperature 1)", "%"),
        "stylised_dice": ("the same in styles beyond it (the levels' own temperatures)", "%"),
    }
    return [
        (text, f"{content[name]:.1f} {unit}")
        for name, (text, unit) in described.items()
        if content.get(name) is not None
    ]
