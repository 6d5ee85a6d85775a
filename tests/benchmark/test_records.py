"""Tests of the records of finished cells; their files are tested with the command."""

from __future__ import annotations

import pandas as pd

from mixstyleflow_monai.benchmark.plan import Cell
from mixstyleflow_monai.benchmark.records import CASE_COLUMNS, case_table, shared_groups


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
