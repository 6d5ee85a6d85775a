"""Tests of the records of finished cells; their files are tested with the command."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from mixstyleflow_monai.benchmark.plan import Cell, make_plan
from mixstyleflow_monai.benchmark.records import CASE_COLUMNS, case_table, shared_groups, shifted_scores, write_record
from mixstyleflow_monai.bundle_paths import bundles_dir
from tests.benchmark.squares import tiny_description


def test_only_groups_of_several_cases_are_recorded() -> None:
    rows = [("a1", "far", "p"), ("a1", "far", "p"), ("a2", "far", "p"), ("a3", "far", "q"), ("b1", "near", "p")]
    cases = pd.DataFrame(rows, columns=["case_id", "domain", "group"])
    assert shared_groups(cases) == {"far": {"a1": "p", "a2": "p"}}
    assert shared_groups(cases.drop(columns="group")) == {}
    assert shared_groups(cases.assign(group="")) == {}


def test_table_of_cases_has_the_groups_that_a_record_knows() -> None:
    dice = {"far": {"disc": {"a1": 1.0, "a2": 2.0, "a3": 3.0}}}
    record = {"roles": {"far": "unseen"}, "dice": dice, "groups": {"far": {"a1": "p", "a2": "p"}}}
    table = case_table([(Cell("home", "dsu", 1), record), (Cell("home", "dsu", 2), {**record, "groups": {}})])
    assert list(table.columns) == CASE_COLUMNS
    assert table["group"].tolist() == ["p", "p", "", "", "", ""]
    assert table["case_id"].tolist() == ["a1", "a2", "a3"] * 2


def test_validation_under_shifts_is_recorded_where_it_is_of_the_network_that_was_evaluated(tmp_path: Path) -> None:
    plan = make_plan(bundles_dir(), tiny_description(tmp_path), methods=["dsu"], seeds=[0])
    cell = Cell("site_a", "dsu", 0)
    (tmp_path / "evaluation.csv").write_text("case_id,domain,region,dice,asd,asd_unit\na,site_a,square,90,1,px\n")
    evaluation = {"source_mean_dice": 90.0, "unseen_mean_dice": 50.0, "domains": {"site_a": {"role": "source"}}}
    (tmp_path / "evaluation.json").write_text(json.dumps({**evaluation, "model_sha256": "abc"}))
    shifted = {"plain": 90.0, "gamma 2": 80.0, "mean of shifts": 85.12345, "mean of pairs": 70.0}
    found = {}
    for sha256 in ("abc", "of another network", None):
        if sha256:
            (tmp_path / "shifted_validation.json").write_text(json.dumps({**shifted, "model_sha256": sha256}))
        else:
            (tmp_path / "shifted_validation.json").unlink()
        found[sha256] = json.loads(write_record(tmp_path / "cells", plan, cell, tmp_path, {}).read_text())
    expected = {"plain": 90.0, "mean of shifts": 85.123, "mean of pairs": 70.0}
    assert found["abc"]["shifted_validation"] == expected
    assert not [key for key in ("of another network", None) if "shifted_validation" in found[key]]
    table = shifted_scores([(cell, record) for record in found.values()])
    assert table.to_dict("records") == [{"source": "site_a", "method": "dsu", "seed": 0, "dice": 70.0}]
