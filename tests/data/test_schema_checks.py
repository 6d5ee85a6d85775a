"""Wording of schema errors."""

from __future__ import annotations

from typing import Any

import pytest

from mixstyleflow_monai.data.schema_checks import did_you_mean, raise_problems, schema_problems

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["size"],
    "properties": {"size": {"type": "integer"}, "items": {"type": "array", "items": {"enum": ["big", "small"]}}},
}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"size": 1, "sise": 2}, "top level: unknown key 'sise'; did you mean 'size'? (allowed: size, items)"),
        ({}, "top level: key 'size' is missing; add it"),
        ({"size": "1"}, "size: found '1' (str), expected integer"),
        ({"size": 1, "items": ["smal"]}, "items[0]: found 'smal', allowed: 'big', 'small'; did you mean 'small'?"),
        ([], "top level: found [] (list), expected object"),
    ],
)
def test_each_problem_is_one_line(content: object, problem: str) -> None:
    assert schema_problems(SCHEMA, content) == [problem]


def test_a_valid_content_has_no_problems() -> None:
    assert schema_problems(SCHEMA, {"size": 1, "items": ["big"]}) == []
    raise_problems("file.json", [])


def test_long_lists_of_problems_are_cut() -> None:
    with pytest.raises(ValueError, match=r"file\.json: 25 problems\n(.*\n){20}  \.\.\. and 5 more$"):
        raise_problems("file.json", [f"problem {number}" for number in range(25)])


def test_nothing_near_gives_no_hint() -> None:
    assert did_you_mean("zzz", ["size"]) == ""


def test_a_name_in_other_letter_case_is_the_nearest() -> None:
    assert did_you_mean("refuge", ["ORIGA", "REFUGE"]) == "; did you mean 'REFUGE'?"
    assert did_you_mean("Mask", ["image", "mask"]) == "; did you mean 'mask'?"
