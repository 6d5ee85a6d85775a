"""The table of a benchmark, as Markdown, CSV and LaTeX, and its figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mixstyleflow_monai.artifacts import atomic_path
from mixstyleflow_monai.benchmark.plan import BASELINE, PHASE_ONE
from mixstyleflow_monai.evaluation.comparison import Comparison, compare, summary

IID = "IID"
"""Heading of the source domain's test cases, as in the paper's tables."""
AVERAGE = "Avg"
SHIFTED = "source, shifted"
"""Heading of the Dice on source validation images under two shifts at a time, which knows no other domain."""
LABELS = {PHASE_ONE: "Phase I", BASELINE: "baseline (no styles)"}


def method_table(cases: pd.DataFrame, methods: Sequence[str], shifted: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the paper's table: a row a method, a column a domain and region, Dice as "mean ± sd" over seeds.

    With several sources a table each stands below the other, the source in the first column. ``Avg`` is the mean over
    unseen domains, ``gap`` the source's mean minus it. The last columns are the difference of ``Avg`` to the baseline
    and to the best other method that has all its seeds, with its 95 % interval over cases and seeds, and Student's
    over seeds. The column ``seeds`` names them: rows of other seeds are to be compared by these differences alone.

    Args:
        cases: a row a cell, domain, case and region.
        methods: order of the rows.
        shifted: a row a cell with its Dice on shifted source validation images, for a column of its own.
    """
    parts = []
    for source in dict.fromkeys(cases["source"]):
        rows = cases[cases["source"] == source]
        part = _source_table(rows, methods)
        if shifted is not None and len(shifted):
            scores = shifted[shifted["source"] == source]
            part[SHIFTED] = [
                _shifted_column(scores[scores["method"] == name], set(rows.loc[rows["method"] == name, "seed"]))
                for name in _present(rows, methods)
            ]
        part.insert(0, "source", source)
        parts.append(part)
    # Another source has other unseen domains.
    table = pd.concat(parts, ignore_index=True).fillna("-")
    last = [name for name in (SHIFTED, AVERAGE, "gap", "seeds", "to baseline", "to best other") if name in table]
    return table[[*(name for name in table.columns if name not in last), *last]]


def _shifted_column(scores: pd.DataFrame, seeds: set[int]) -> str:
    few = f" ({seeds_in_words(scores['seed'])})" if 0 < len(scores) < len(seeds) else ""
    return spread(scores["dice"].tolist()) + few


def choices(shifted: pd.DataFrame, cases: pd.DataFrame) -> list[str]:
    """Return a sentence for each source domain: the method that its shifted validation images put first.

    It is among the methods that are scored, over the seeds that all of these have; Phase I, which is no method, is left
    out.

    Args:
        shifted: a row a cell: source, method, seed and ``dice``.
        cases: of all finished cells, to tell those that are not scored.
    """
    found = []
    for source, part in shifted[shifted["method"] != PHASE_ONE].groupby("source", sort=False):
        of_method = {str(name): rows.set_index("seed")["dice"] for name, rows in part.groupby("method")}
        seeds = set.intersection(*(set(values.index) for values in of_method.values()))
        if len(of_method) < 2 or not seeds:
            continue
        means = {name: float(values.loc[list(seeds)].mean()) for name, values in of_method.items()}
        first, second = (LABELS.get(name, name) for name in sorted(means, key=lambda name: -means[name])[:2])
        best, next_best = sorted(means.values(), reverse=True)[:2]
        missing = sorted(set(cases.loc[cases["source"] == source, "method"]) - {*of_method, PHASE_ONE})
        others = f"; not scored: {', '.join(LABELS.get(name, name) for name in missing)}" if missing else ""
        found.append(
            f"of {len(means)} methods trained on {source}, {first} is first on its shifted validation images, which "
            f"know no other domain ({best:.1f}; next {second}, {next_best:.1f}; {seeds_in_words(seeds)}{others})"
        )
    return found


def _present(cases: pd.DataFrame, methods: Sequence[str]) -> list[str]:
    return [method for method in methods if method in set(cases["method"])]


def seeds_in_words(seeds: Iterable[int]) -> str:
    """Return "seed 3" or "seeds 0-2, 4"."""
    numbers = set(seeds)
    return f"{'seed' if len(numbers) == 1 else 'seeds'} {runs_of(numbers)}"


def _source_table(cases: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    present = _present(cases, methods)
    regions = list(dict.fromkeys(cases["region"]))
    unseen = sorted(set(cases.loc[cases["role"] == "unseen", "domain"]))
    means = cases.groupby(["method", "seed", "role", "domain", "region"])["dice"].mean()
    totals = summary(cases, present)
    table = []
    for method in present:
        of_method = means.loc[method]
        row: dict[str, str] = {"method": LABELS.get(method, method)}
        source_domain = str(cases.loc[cases["role"] == "source", "domain"].iloc[0])
        for role, domain, heading in (
            ("source", source_domain, IID),
            *(("unseen", name, name) for name in unseen),
        ):
            for region in regions:
                values = of_method.xs((role, domain, region), level=("role", "domain", "region"))
                row[f"{heading} {region}" if len(regions) > 1 else heading] = spread(values.tolist())
        own = totals[totals["method"] == method]
        row[AVERAGE] = spread(own["unseen"].tolist())
        row["gap"] = spread(own["gap"].tolist())
        row["seeds"] = runs_of(own["seed"].tolist())
        row["to baseline"] = difference(cases, method, BASELINE) if method != BASELINE else "-"
        rival = _best_other(totals, method)
        row["to best other"] = "-" if rival is None else f"{difference(cases, method, rival)} ({rival})"
        table.append(row)
    return pd.DataFrame(table)


def _best_other(totals: pd.DataFrame, method: str) -> str | None:
    """Return the method with the best unseen mean over a method's seeds, of those that have them all."""
    seeds = set(totals.loc[totals["method"] == method, "seed"])
    rows = totals[totals["seed"].isin(seeds) & ~totals["method"].isin([method, PHASE_ONE])]
    means = {str(name): part["unseen"].mean() for name, part in rows.groupby("method") if set(part["seed"]) == seeds}
    known = {name: value for name, value in means.items() if not np.isnan(value)}
    return max(known, key=lambda name: known[name]) if known else None


def spread(values: Sequence[float]) -> str:
    """Return "mean ± standard deviation" (n - 1); the value alone where there is one."""
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return "-"
    return f"{np.mean(known):.1f} ± {np.std(known, ddof=1):.1f}" if len(known) > 1 else f"{known[0]:.1f}"


def difference(cases: pd.DataFrame, first: str, second: str) -> str:
    """Return the difference of two methods and its 95 % interval, "-" if nothing can be compared.

    It is over the seeds that both have; where the first has more, these are told. "t" is Student's interval over the
    differences of the seeds, where there are two or more.
    """
    found: Comparison | None = compare(cases, first, second)
    if found is None:
        return "-"
    of_each = cases[cases["role"] == "unseen"].groupby("method")["seed"].agg(set)
    both = of_each[first] & of_each[second]
    few = f" ({seeds_in_words(both)})" if both < of_each[first] else ""
    over_seeds = "" if found.over_seeds is None else ", t [{:+.1f}, {:+.1f}]".format(*found.over_seeds)
    over_cases = f"[{found.low:+.1f}, {found.high:+.1f}]" if found.has_interval else "[-]"
    return f"{found.difference:+.1f} {over_cases}{over_seeds}{few}"


def runs_of(seeds: Iterable[int]) -> str:
    """Return seeds as text: "0-2, 4"."""
    parts: list[list[int]] = []
    for seed in sorted(int(number) for number in seeds):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def markdown(table: pd.DataFrame) -> str:
    """Return a table as Markdown."""
    cells = [list(table.columns), *table.to_numpy().tolist()]
    rows = [[str(cell).replace("|", r"\|") for cell in row] for row in cells]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(table.columns))
    return "\n".join(lines) + "\n"


def _latex(text: str) -> str:
    """Return a text with what LaTeX would read as commands escaped: names of domains may hold anything."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"\(\pm\)"}
    return "".join(special.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)


def write_tables(
    cases: pd.DataFrame, methods: Sequence[str], folder: Path, caption: str, shifted: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Write ``benchmark.md``, ``.csv``, ``.tex``, ``cases.csv`` and ``benchmark.png``; return the table.

    Args:
        cases: a row a cell, domain, case and region.
        methods: order of the rows.
        folder: where to write.
        caption: what was compared.
        shifted: see `method_table`.
    """
    table = method_table(cases, methods, shifted)
    latex = table.map(_latex)
    latex.columns = pd.Index([_latex(str(name)) for name in latex.columns])
    texts = {
        "benchmark.md": f"{caption}\n\n{markdown(table)}",
        "benchmark.csv": table.to_csv(index=False),
        "benchmark.tex": latex.to_latex(index=False, escape=False, caption=_latex(caption)),
        "cases.csv": cases.to_csv(index=False),
    }
    for name, text in texts.items():
        with atomic_path(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    save_figure(cases, methods, folder / "benchmark.png")
    return table


def save_figure(cases: pd.DataFrame, methods: Sequence[str], path: Path) -> None:
    """Draw, for each method, source and unseen means of every seed: the gap between them is what a hospital feels.

    A seed that lacks a source, of a cell that failed, is not drawn: its mean would be over other domains.
    """
    from matplotlib.figure import Figure

    of_seed = cases.groupby(["method", "seed"])["source"].transform("nunique")
    totals = summary(cases[of_seed == cases["source"].nunique()], methods)
    names = list(dict.fromkeys(totals["method"]))
    figure = Figure(figsize=(7.5, 0.45 * len(names) + 1.4), layout="constrained")
    axes = figure.add_subplot()
    for position, name in enumerate(names):
        rows = totals[totals["method"] == name]
        source, unseen = rows["source"].mean(), rows["unseen"].mean()
        axes.plot([unseen, source], [position, position], color="0.8", linewidth=4, zorder=1, solid_capstyle="round")
        for column, colour, mean in (("source", "#4477aa", source), ("unseen", "#cc6677", unseen)):
            axes.scatter(rows[column], [position] * len(rows), color=colour, s=14, alpha=0.6, zorder=2)
            axes.scatter([mean], [position], color=colour, s=60, zorder=3, label=column if position == 0 else None)
    axes.set_yticks(range(len(names)), [LABELS.get(name, name) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("Dice in percent: means over domains; small dots are seeds")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=150, format="png")
