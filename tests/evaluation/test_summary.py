"""Tests of the tables."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mixstyleflow_monai.evaluation import CaseResult, domain_table, print_table, read_cases, summarise, write_cases
from mixstyleflow_monai.evaluation.summary import record_name

RESULTS = [
    CaseResult("s1", "home", "disc", 90.0, 1.0, "px"),
    CaseResult("s1", "home", "cup", 80.0, 2.0, "px"),
    CaseResult("s2", "home", "disc", 94.0, 3.0, "px"),
    CaseResult("s2", "home", "cup", 70.0, math.nan, "px"),
    CaseResult("a1", "far", "disc", 50.0, 9.0, "px"),
    CaseResult("a1", "far", "cup", 30.0, 8.0, "px"),
    CaseResult("b1", "farther", "disc", 20.0, math.nan, "px"),
    CaseResult("b1", "farther", "cup", 0.0, math.nan, "px"),
    CaseResult("b2", "farther", "disc", 40.0, math.nan, "px"),
    CaseResult("b2", "farther", "cup", 20.0, math.nan, "px"),
]


def test_means_give_each_unseen_domain_the_same_weight() -> None:
    record = summarise(RESULTS, "home", phase=3, seed=7)
    assert record["source_mean_dice"] == pytest.approx((92 + 75) / 2)
    assert record["unseen_mean_dice"] == pytest.approx(((50 + 30) / 2 + (30 + 10) / 2) / 2)
    assert (record["phase"], record["seed"]) == (3, 7)


def test_domains_have_roles_counts_and_spreads() -> None:
    domains = summarise(RESULTS, "home", phase=1, seed=0)["domains"]
    assert {name: domain["role"] for name, domain in domains.items()} == {
        "home": "source",
        "far": "unseen",
        "farther": "unseen",
    }
    assert domains["home"]["n"] == 2
    dice = domains["home"]["regions"]["disc"]["dice"]
    assert dice == {"mean": 92.0, "sd": pytest.approx(np.std([90, 94], ddof=1))}
    assert domains["home"]["regions"]["cup"]["asd_px"] == {"mean": 2.0, "sd": None, "n": 1}
    assert domains["far"]["regions"]["disc"]["dice"]["sd"] is None


def test_record_is_json_even_where_a_distance_is_undefined() -> None:
    record = summarise(RESULTS, "home", phase=1, seed=0)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["domains"]["farther"]["regions"]["disc"]["asd_px"]["mean"] is None


def test_without_unseen_domains_there_is_no_unseen_mean() -> None:
    assert summarise(RESULTS[:4], "home", phase=1, seed=0)["unseen_mean_dice"] is None


def test_csv_has_a_row_a_case_and_region(tmp_path: Path) -> None:
    write_cases(tmp_path / "evaluation.csv", RESULTS, phase=3, seed=1)
    with (tmp_path / "evaluation.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(RESULTS)
    assert rows[3] == {
        "phase": "3",
        "seed": "1",
        "case_id": "s2",
        "domain": "home",
        "region": "cup",
        "dice": "70.0",
        "asd": "",
        "asd_unit": "px",
        "group": "",
    }


def test_table_shows_records_side_by_side() -> None:
    stream = StringIO()
    records = [
        summarise(RESULTS, "home", phase=1, seed=0),
        summarise(RESULTS[:6], "home", phase=3, seed=0, facts={"method": "mixstyleflow"}),
    ]
    print_table(records, Console(file=stream, width=140))
    text = stream.getvalue()
    for expected in ("Phase I ", "Phase III", "farther", "83.5", "20.0 ± 14.1"):
        assert expected in text


def test_several_regions_have_a_column_each_and_one_for_their_mean() -> None:
    stream = StringIO()
    print_table([summarise(RESULTS, "home", phase=1, seed=0)], Console(file=stream, width=200))
    lines = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in stream.getvalue().splitlines()]
    rows = {cells[0]: cells[3:] for cells in lines if len(cells) == 6}
    assert rows["farther"] == ["30.0 ± 14.1", "10.0 ± 14.1", "20.0 ± 14.1"]
    assert rows["home"] == ["92.0 ± 2.8", "75.0 ± 7.1", "83.5 ± 2.1"]
    assert rows["mean of unseen domains"] == ["40.0", "20.0", "30.0"]
    assert rows["source"] == ["92.0", "75.0", "83.5"]
    assert [cells[3:] for cells in lines if cells[3:] == ["disc", "cup", "mean"]] != []


def test_one_region_has_one_column() -> None:
    stream = StringIO()
    discs = [result for result in RESULTS if result.region == "disc"]
    print_table([summarise(discs, "home", phase=1, seed=0)], Console(file=stream, width=200))
    assert "mean" not in stream.getvalue().split("┡")[0].partition("domain")[2]
    assert "92.0 ± 2.8" in stream.getvalue()


@pytest.mark.parametrize(
    ("phase", "method", "name"),
    [
        (1, None, "Phase I"),
        (3, "mixstyleflow", "Phase III"),
        (3, "no_stylizer", "baseline (no styles)"),
        (3, "dsu", "Phase III, dsu"),
    ],
)
def test_records_have_the_names_of_the_readme(phase: int, method: str | None, name: str) -> None:
    assert record_name({"phase": phase, **({"method": method} if method else {})}) == name


def test_table_in_a_log_keeps_long_names(capsys: pytest.CaptureFixture[str]) -> None:
    long_names = [dataclasses.replace(result, domain=f"{result.domain}_with_a_long_name") for result in RESULTS]
    record = summarise(long_names, "home_with_a_long_name", phase=3, seed=0, facts={"method": "mixstyleflow"})
    print_table([record, record, record])
    assert "farther_with_a_long_name" in capsys.readouterr().out


def test_names_are_texts_when_they_are_read_back(tmp_path: Path) -> None:
    rows = [
        CaseResult("001", "NA", "None", 90.0, math.nan, "px"),
        CaseResult("2", "null", "nan", math.nan, 1.5, "px"),
    ]
    write_cases(tmp_path / "cases.csv", rows, phase=3)
    found = read_cases(tmp_path / "cases.csv")
    assert found[["case_id", "domain", "region"]].to_numpy().tolist() == [["001", "NA", "None"], ["2", "null", "nan"]]
    np.testing.assert_array_equal(found[["dice", "asd"]].to_numpy(), [[90.0, math.nan], [math.nan, 1.5]])
    assert found["phase"].tolist() == [3, 3]


def test_spread_of_the_mean_is_that_of_each_case() -> None:
    """Cases that differ between regions alone have one mean: 70 in each, with no spread."""
    rows = [("a", 90.0, 50.0), ("b", 50.0, 90.0), ("c", 70.0, 70.0)]
    results = [
        CaseResult(case, "home", region, dice, 1.0, "px")
        for case, *values in rows
        for region, dice in zip(("disc", "cup"), values, strict=True)
    ]
    record = summarise(results, "home", phase=1, seed=0)
    assert record["domains"]["home"]["dice"] == {"mean": 70.0, "sd": 0.0}
    assert domain_table([record], "dice").values == [["70.0 ± 20.0", "70.0 ± 20.0", "70.0 ± 0.0"]]
    del record["domains"]["home"]["dice"]  # as an earlier version wrote it
    assert domain_table([record], "dice").values == [["70.0 ± 20.0", "70.0 ± 20.0", "70.0"]]


def test_distances_of_some_cases_only_are_told() -> None:
    record = summarise(RESULTS, "home", phase=1, seed=0)
    table = domain_table([record], "asd")
    assert table.headings == [("Phase I", "disc"), ("Phase I", "cup"), ("Phase I", "mean")]
    home, far, farther = table.values
    assert home == ["2.00 ± 1.41", "2.00 (1 of 2)", "2.00 (1 of 2)"]
    assert far == ["9.00", "8.00", "8.50"]
    assert farther == ["-", "-", "-"]
    assert table.means == {
        "mean of unseen domains": ["9.00 (not all)", "8.00 (not all)", "8.50 (not all)"],
        "source": ["2.00", "2.00 (not all)", "2.00 (not all)"],
    }


def test_dice_is_of_every_case() -> None:
    table = domain_table([summarise(RESULTS, "home", phase=1, seed=0)])
    assert not any("of" in text for row in table.values for text in row)


def test_a_narrow_screen_gets_whole_numbers_of_the_means() -> None:
    records = [
        {**summarise(RESULTS, "home", phase=phase, seed=0), "method": method}
        for phase, method in ((1, None), (3, "no_stylizer"), (3, "mixstyleflow"))
    ]
    printed = {}
    for width in (90, 200):
        console = Console(file=StringIO(), width=width)
        print_table(records, console)
        printed[width] = console.file.getvalue()  # type: ignore[attr-defined]
    assert "disc" in printed[200]
    assert "disc" not in printed[90]
    assert "too narrow for all regions" in printed[90]
    assert "…" not in printed[90]
    assert "83.5 ± 2.1" in printed[90]
