"""Tests of the table of a benchmark; its files and figure are tested with the command."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mixstyleflow_monai.benchmark.tables import (
    choices,
    difference,
    markdown,
    method_table,
    runs_of,
    write_tables,
)


def cell(method: str, seed: int, unseen: float) -> list[dict[str, object]]:
    """Return the rows of a case of each domain."""
    shared = {"source": "home", "method": method, "seed": seed, "case_id": "a", "region": "disc"}
    return [
        {**shared, "domain": "home", "role": "source", "dice": 90.0},
        {**shared, "domain": "far", "role": "unseen", "dice": unseen},
    ]


def test_a_method_with_fewer_seeds_is_nobodys_best_other() -> None:
    rows = [row for seed in (0, 1) for name, dice in {"a": 60.0, "b": 70.0}.items() for row in cell(name, seed, dice)]
    cases = pd.DataFrame([*rows, *cell("lucky", 0, 99.0)])
    table = method_table(cases, ["a", "b", "lucky"]).set_index("method")
    assert table.loc["a", "to best other"] == "-10.0 [-10.0, -10.0], t [-10.0, -10.0] (b)"
    assert table.loc["b", "to best other"] == "+10.0 [+10.0, +10.0], t [+10.0, +10.0] (a)"
    assert str(table.loc["lucky", "to best other"]).endswith("(b)")


def test_a_difference_over_fewer_seeds_than_its_row_says_so() -> None:
    rows = [row for seed in (0, 1, 2) for row in cell("a", seed, 60.0 + 10 * seed)]
    cases = pd.DataFrame([*rows, *cell("b", 0, 50.0), *cell("b", 1, 50.0), *cell("c", 0, 50.0)])
    assert difference(cases, "a", "b") == "+15.0 [+10.0, +20.0], t [-48.5, +78.5] (seeds 0-1)"
    assert difference(cases, "a", "c") == "+10.0 [-] (seed 0)"  # one case
    assert difference(cases, "c", "a") == "-10.0 [-]"
    assert difference(cases, "a", "d") == "-"


def test_a_row_names_its_seeds() -> None:
    cases = pd.DataFrame([row for seed in (0, 1, 2, 4) for row in cell("a", seed, 60.0)])
    assert method_table(cases, ["a"])["seeds"].tolist() == ["0-2, 4"]
    assert runs_of([5, 3]) == "3, 5"
    assert runs_of([]) == ""


def scores(*rows: tuple[str, str, int, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["source", "method", "seed", "dice"])


def test_shifted_validation_of_the_source_has_a_column_where_cells_tell_it() -> None:
    cases = pd.DataFrame([row for seed in (0, 1) for name in ("a", "b") for row in cell(name, seed, 60.0)])
    assert "source, shifted" not in method_table(cases, ["a", "b"], scores())
    found = scores(("home", "a", 0, 70.0), ("home", "a", 1, 72.0), ("far", "b", 0, 9.0))
    table = method_table(cases, ["a", "b"], found)
    assert table["source, shifted"].tolist() == ["71.0 ± 1.4", "-"]
    assert method_table(cases, ["a", "b"], found[:1])["source, shifted"].tolist() == ["70.0 (seed 0)", "-"]
    assert list(table.columns)[:5] == ["source", "method", "IID", "far", "source, shifted"]


def test_the_method_that_the_source_would_choose_is_over_the_seeds_of_all_and_not_phase_1() -> None:
    of_methods = (("no_stylizer", 60.0), ("b", 61.0), ("c", 50.0))
    rows = [("home", name, seed, dice + seed) for name, dice in of_methods for seed in (0, 1)]
    more = [("home", "phase1", 0, 99.0), ("home", "b", 7, 0.0), ("far", "a", 0, 80.0)]
    cases = pd.DataFrame([row for name in ("b", "dsu", "phase1") for row in cell(name, 0, 60.0)])
    text = "of 3 methods trained on home, b is first on its shifted validation images, which know no other domain "
    text += "(61.5; next baseline (no styles), 60.5; seeds 0-1; not scored: dsu)"
    assert choices(scores(*rows, *more), cases) == [text], "one method alone is no choice"
    assert choices(scores(("home", "a", 0, 1.0), ("home", "b", 1, 2.0)), cases) == [], "no seed in common"


def test_names_of_domains_may_hold_what_latex_and_markdown_read_as_commands(tmp_path: Path) -> None:
    cases = pd.DataFrame([*cell("a_1", 0, 60.0), *cell("b", 0, 50.0)])
    cases["domain"] = cases["domain"].replace({"far": r"B & C | 50% #1 $x_2 {\n} ~^"})
    table = write_tables(cases, ["a_1", "b"], tmp_path, "at 5 % & more")
    lines = (tmp_path / "benchmark.tex").read_text().splitlines()
    (header,) = [line for line in lines if line.startswith("source")]
    assert r"B \& C | 50\% \#1 \$x\_2 \{\textbackslash{}n\} \textasciitilde{}\textasciicircum{}" in header
    columns = header.replace(r"\&", "").count("&") + 1
    assert columns == len(table.columns)
    assert any(r"\caption{at 5 \% \& more}" in line for line in lines)
    assert {line.replace(r"\|", "").count("|") for line in markdown(table).splitlines()} == {len(table.columns) + 1}
