"""Styles of all comparisons, for docs/method_study.md: ``python -m benchmarks.style_tables --data FOLDER``.

Runs `benchmarks.style_study` on Phase I and Phase II of trainings of `benchmarks.methods` that are still there. The
measurements are kept in ``benchmarks/style_studies``, projections in ``docs/figures``; `report` and `painted` make the
tables from the measurements, without any training.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fire
import pandas as pd

from benchmarks import style_study
from benchmarks.methods import SETTINGS, dataset_of, words
from mixstyleflow_monai.benchmark.data import source_name
from mixstyleflow_monai.benchmark.tables import markdown
from mixstyleflow_monai.data.dataset_description import DATASET_FILE, read_json

STUDIES = Path(__file__).parent / "style_studies"
FIGURES = Path(__file__).resolve().parents[1] / "docs" / "figures"
TASKS = ("white_cells", "prostate_phantom", "fundus_phantom", "fundus", "nuclei")
FEATURE_LEVELS, IMAGE_LEVEL = ("2", "3", "4"), ("5",)
REACH = ("channel_coverage", "inside_envelope", "mmd")
"""Of a domain's styles, against samples of a temperature."""


def main(
    data: str | None = None,
    output: str = "runs/methods",
    tasks: str | Sequence[str] = TASKS,
    seed: int = 3,
    slices_a_domain: int = 100,
) -> None:
    """Study the trainings of one seed, of every source, and print the tables.

    Args:
        data: folder of the real images, where their data sets are still to be made.
        output: folder of the trainings of `benchmarks.methods`.
        tasks: names of comparisons.
        seed: of the trainings.
        slices_a_domain: at most so many labelled slices, evenly spaced.

    Raises:
        ValueError: no comparison of a name.
        FileNotFoundError: no training of this seed.
    """
    root = Path(output).resolve()
    for name in words(tasks):
        if name not in SETTINGS:
            raise ValueError(f"--tasks: no comparison {name!r}, allowed: {', '.join(SETTINGS)}.")
        dataset = dataset_of(name, Path(data).resolve() if data else None, root)
        own = read_json(dataset / DATASET_FILE)["source_domain"]
        runs = sorted((root / name).glob(f"*/seed{seed}"))
        if not runs:
            raise FileNotFoundError(f"{root / name}: no training of seed {seed}; benchmarks.methods trains one.")
        for run in runs:
            source = read_json(run / "phase1" / "models" / "model.manifest.json")["source_domain"]
            folder = root / "style_study" / name / source_name(source)
            of_source = dataset if source == own else root / name / "data" / source_name(source)
            style_study.main(str(run), str(of_source), str(folder), slices_a_domain)
            STUDIES.mkdir(exist_ok=True)
            title = f"{name}-{source_name(source)}"
            shutil.copyfile(folder / "style_study.json", STUDIES / f"{title}.json")
            shutil.copyfile(folder / "levels.png", FIGURES / f"study_levels_{title}.png")
    print(report() + "\n" + painted())


def report(folder: Path = STUDIES) -> str:
    """Return the tables of where styles are and how far samples reach, as Markdown."""
    return _tables(folder, ("### Distance from the source", _scores), ("### Reach of the samples", _reach))


def painted(folder: Path = STUDIES) -> str:
    """Return the tables of what is painted, as Markdown."""
    return _tables(folder, ("### Anatomy of stylised images", _anatomy), ("### Distance of images", _images))


def _tables(folder: Path, *tables: tuple[str, Callable[[Mapping[str, Any]], list[dict[str, str]]]]) -> str:
    studies = [read_json(path) for path in sorted(folder.glob("*.json"))]
    parts: list[str] = []
    for heading, rows in tables:
        parts += [heading, markdown(pd.DataFrame([row for study in studies for row in rows(study)])).rstrip()]
    return "\n\n".join(parts) + "\n"


def title(study: Mapping[str, Any]) -> str:
    """Return the data set and its source, for the first column."""
    return f"{study['data'].replace('_', ' ')}, {study['source']}"


def _scores(study: Mapping[str, Any]) -> list[dict[str, str]]:
    levels, running = study["levels"], study["mean_abs_score_by_running_statistics"]
    rows = []
    for domain in study["slices"]:
        row = {"data": title(study), "styles of": domain}
        for level, found in levels.items():
            row[f"level {level}"] = f"{found['mean_abs_score'][domain]:.1f} / {running[level][domain]:.1f}"
        rows.append(row)
    for label, key in (("samples, temperature 1", "temperature 1"), ("samples, own temperature", "1 x")):
        row = {"data": title(study), "styles of": label}
        rows.append(
            row | {f"level {level}": f"{of['mean_abs_score_of_samples'][key]:.1f}" for level, of in levels.items()}
        )
    return rows


def _reach(study: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    for domain in next(iter(study["levels"].values()))["unseen"]:
        for label, levels in (("2 to 4", FEATURE_LEVELS), ("5", IMAGE_LEVEL)):
            found = [study["levels"][level]["unseen"][domain] for level in levels if level in study["levels"]]
            if not found:
                continue
            row = {"data": title(study), "domain": domain, "levels": label}
            row["MMD to the source"] = f"{_mean(of['mmd_to_source'] for of in found):.2f}"
            for temperature in [key for key in found[0] if isinstance(found[0][key], dict)]:
                values = [_mean(of[temperature][measure] for of in found) for measure in REACH]
                row[temperature] = ", ".join(f"{value:.2f}" for value in values)
            rows.append(row)
    return rows


def _anatomy(study: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    for output in ("detail", "decoded"):
        row = {"data": title(study), "output": output}
        for key, found in study["anatomy"].items():
            kind, _, factor = key.partition(", ")
            if kind == output:
                heading = "no style" if factor == "0 x" else factor
                row[heading] = f"{found['dice']:.1f}, {found['gradient_correlation']:.2f}"
        rows.append(row | {"plain": f"{study['anatomy']['plain']['dice']:.1f}"})
    return rows


def _images(study: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {"data": title(study), "domain": domain, **{label: f"{value:.3f}" for label, value in found.items()}}
        for domain, found in study["images"].items()
    ]


def _mean(values: Any) -> float:
    found = list(values)
    return float(sum(found) / len(found))


if __name__ == "__main__":
    fire.Fire(main)
