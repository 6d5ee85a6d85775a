"""Can source images choose the method? ``python -m benchmarks.method_choice --data FOLDER``.

Someone with the images of one site has no unseen domain to choose a method by. Networks of `benchmarks.methods` whose
weights are still there are scored on source validation slices alone: as they are, under the shifts of
`mixstyleflow_monai.engines.shifted_validation`, and under two of these at a time. The table tells how each of the three
orders the methods, against their order on the unseen domains, and what is lost by taking the one that it puts first.
Finished scores are in ``benchmarks/shift_scores.json``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fire
import pandas as pd
from scipy.stats import spearmanr
from tqdm import tqdm

from benchmarks.held_in_shifts import shifts_of_run
from benchmarks.methods import CELLS, RECIPE, RIVALS, SETTINGS, SLOW, data_name, dataset_of, words
from mixstyleflow_monai.artifacts import write_json
from mixstyleflow_monai.benchmark.cells import training_folder
from mixstyleflow_monai.benchmark.data import source_name
from mixstyleflow_monai.benchmark.plan import BASELINE, Cell
from mixstyleflow_monai.benchmark.records import case_table
from mixstyleflow_monai.benchmark.tables import difference, markdown, runs_of, spread
from mixstyleflow_monai.data.dataset_description import DATASET_FILE, read_json
from mixstyleflow_monai.engines.shifted_validation import MEAN, MEAN_OF_PAIRS, PLAIN
from mixstyleflow_monai.stopping import only_one

SCORES = Path(__file__).parent / "shift_scores.json"
CANDIDATES = (
    BASELINE,
    "mixstyleflow",
    "paper_styles",
    RECIPE,
    "flow_and_image_styles_or_big_aug",
    *RIVALS,
    *SLOW,
)
"""What one would choose among; not Phase I, the controls, and what one data set alone has."""
RULES = {"plain": PLAIN, "shifts": MEAN, "pairs": MEAN_OF_PAIRS}
"""Name in the table -> key of `shifted_validation.shifted_dice`."""
CHOSEN = "chosen by pairs"
COLUMNS = ["cell", "data", "source", "seed", "method", "unseen", *RULES]


def score(name: str, images: Path | None, output: Path, seeds: Sequence[int] | None = None) -> None:
    """Score the networks of one comparison that are not scored yet, into `SCORES`; all seeds where none are given."""
    dataset = dataset_of(name, images, output)
    source = read_json(dataset / DATASET_FILE)["source_domain"]
    with only_one(output / "method_choice"):
        found = read_json(SCORES) if SCORES.is_file() else {}
        wanted = {
            cell: folder
            for cell, folder in trained_cells(output / name).items()
            if cell.name not in found and _wanted(cell, seeds)
        }
        for cell, folder in tqdm(wanted.items(), desc=name, unit="network"):
            own = read_json(cell)["request"]["source"]
            result = shifts_of_run(folder, dataset if own == source else output / name / "data" / source_name(own))
            found[cell.name] = {key: round(result[key], 3) for key in RULES.values()}
            write_json(SCORES, dict(sorted(found.items())))


def _wanted(cell: Path, seeds: Sequence[int] | None) -> bool:
    request = read_json(cell)["request"]
    return request["method"] in CANDIDATES and (seeds is None or request["seed"] in seeds)


def trained_cells(output: Path) -> dict[Path, Path]:
    """Return the committed cells whose network is still in the output of the benchmark, with its folder.

    The evaluation beside a network tells whether it is that of the record.
    """
    result = {}
    for path in sorted(CELLS.glob("*.json")):
        record = read_json(path)
        request = record["request"]
        cell = Cell(request["source"], request["method"], request["seed"])
        folder = training_folder(output, cell, request["train_fraction"])
        evaluation = folder / "evaluation.json"
        same = (output / "cells" / path.name).is_file() and evaluation.is_file()
        if same and (folder / "models" / "model.pt").is_file():
            unseen = read_json(evaluation)["unseen_mean_dice"]
            if math.isclose(unseen, record["unseen_mean_dice"], abs_tol=1e-6):
                result[path] = folder
    return result


def report(cells: Path = CELLS, scores: Path = SCORES) -> str:
    """Return, for each comparison, how well source validation chooses among its methods, as Markdown.

    Rank correlations are Spearman's, over the methods of a seed. All columns are means over the seeds, each of which
    makes a choice of its own; differences of the chosen one are paired by case, as those of any method.
    """
    rows = [
        {"cell": name, **_row(cells / name, found)} for name, found in _read(scores).items() if (cells / name).is_file()
    ]
    lines = []
    for (data, source), table in pd.DataFrame(rows, columns=COLUMNS).groupby(["data", "source"], sort=True):
        methods = {int(str(seed)): set(part["method"]) for seed, part in table.groupby("seed")}
        # Of a seed that is scored in part nothing is said; where methods differ between seeds, those of all are taken.
        whole = [seed for seed, names in methods.items() if {BASELINE, RECIPE} <= names]
        if not whole:
            continue
        candidates = set.intersection(*(methods[seed] for seed in whole))
        seeds = [part.set_index("method") for part in (table[table["seed"] == seed] for seed in whole)]
        seeds = [part.loc[sorted(candidates)] for part in seeds]
        line: dict[str, Any] = {"data": data, "source": source, "seeds": runs_of(whole), "methods": len(candidates)}
        for rule in RULES:
            orders = [float(spearmanr(part[rule], part["unseen"]).statistic) for part in seeds]
            line[f"order, {rule}"] = f"{sum(orders) / len(orders):+.2f}"
        for rule in ("plain", "pairs"):
            line[f"unseen, chosen by {rule}"] = spread([part["unseen"][str(part[rule].idxmax())] for part in seeds])
        line["unseen, best"] = spread([part["unseen"].max() for part in seeds])
        for name, method in (("recipe", RECIPE), ("baseline", BASELINE)):
            line[f"unseen, {name}"] = spread([part["unseen"][method] for part in seeds])
        chosen = {seed: str(part["pairs"].idxmax()) for seed, part in zip(whole, seeds, strict=True)}
        of_seed = table[table["seed"].isin(whole) & table["method"].isin(candidates)]
        cases = _cases(of_seed, cells, chosen)
        for name, method in (("the baseline", BASELINE), ("the recipe", RECIPE), ("BigAug", "big_aug")):
            line[f"by pairs, to {name}"] = difference(cases, CHOSEN, method)
        line["chosen by pairs"] = ", ".join(dict.fromkeys(chosen.values()))
        lines.append(line)
    return markdown(pd.DataFrame(lines)) if lines else "No finished scores.\n"


def _cases(table: pd.DataFrame, cells: Path, chosen: Mapping[int, str]) -> pd.DataFrame:
    """Return the cases of all methods, and those of each seed's choice as of a method of its own, `CHOSEN`."""
    records = []
    for row in table.to_dict("records"):
        record, seed = read_json(cells / row["cell"]), int(row["seed"])
        names = [row["method"], *([CHOSEN] if chosen[seed] == row["method"] else [])]
        records += [(Cell(row["source"], name, seed), record) for name in names]
    return case_table(records)


def _read(scores: Path) -> dict[str, dict[str, float]]:
    content: dict[str, dict[str, float]] = read_json(scores) if scores.is_file() else {}
    return content


def _row(cell: Path, found: Mapping[str, float]) -> dict[str, Any]:
    record = read_json(cell)
    request = record["request"]
    share = request["train_fraction"]
    return {
        "data": data_name(record) + ("" if share == 1.0 else f", {share:.0%}"),
        "source": request["source"],
        "seed": request["seed"],
        "method": request["method"],
        "unseen": record["unseen_mean_dice"],
        **{rule: found[key] for rule, key in RULES.items()},
    }


def main(
    data: str | None = None,
    output: str = "runs/methods",
    tasks: str | Sequence[str] = tuple(SETTINGS),
    seeds: int | Sequence[int] | None = None,
    report_only: bool = False,
) -> None:
    """Score what is missing and print the table. Goes on where it stopped.

    Args:
        data: folder of the real images.
        output: of `benchmarks.methods`, whose networks are scored.
        tasks: names of its comparisons.
        seeds: of the trainings; default: all that are there.
        report_only: score nothing.
    """
    for name in () if report_only else words(tasks):
        if name not in SETTINGS:
            raise ValueError(f"--tasks: no comparison {name!r}, allowed: {', '.join(SETTINGS)}.")
        numbers = (seeds,) if isinstance(seeds, int) else seeds
        score(name, Path(data).resolve() if data else None, Path(output).resolve(), numbers)
    print(report())


if __name__ == "__main__":
    fire.Fire(main)
