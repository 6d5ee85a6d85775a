"""Command lines are read as they are meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fire
import pytest

from mixstyleflow_monai.command_line import checked_words


def train(
    dataset_dir: str,
    output_dir: str,
    phases: str | int | Sequence[int] = (1, 2, 3),
    overlay: str | Sequence[str] = (),
    seed: int = 0,
    baseline: bool = False,
    note: str | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    return {**locals()}


def copy(source: str, forms: str | Sequence[str] = (), target: str | None = None) -> None:
    """A command without other options."""


def read(line: Sequence[str]) -> dict[str, Any]:
    """What the function gets, without defaults."""
    result = fire.Fire({"train": train}, command=checked_words(line, {"train": train}), serialize=lambda _: None)
    values = {**result.pop("overrides"), **result}
    defaults = {"phases": (1, 2, 3), "overlay": (), "seed": 0, "baseline": False, "note": None}
    return {name: value for name, value in values.items() if name not in defaults or defaults[name] != value}


@pytest.mark.parametrize("value", ["a#1", "2026", "a,b", "run ä", "it's", "[1]", "true", "-1", "None"])
@pytest.mark.parametrize("form", ["apart", "joined", "in its place"])
def test_text_is_what_it_says(value: str, form: str) -> None:
    words = {"apart": ["--output_dir", value], "joined": [f"--output-dir={value}"], "in its place": [value]}[form]
    assert read(["train", "--dataset_dir", "D", *words]) == {"dataset_dir": "D", "output_dir": value}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--baseline", {"baseline": True}),
        ("--baseline false", {}),
        ("--baseline=TRUE --seed 3", {"baseline": True, "seed": 3}),
        ("--phases 1,2 --phase2:max_epochs 5", {"phases": (1, 2), "phase2:max_epochs": 5}),
        ("--learning_rate -1 --image_size=[32,32]", {"learning_rate": -1, "image_size": [32, 32]}),
        ("--phase3:stylizer null --clamp None", {"phase3:stylizer": None, "clamp": None}),
        ("--amp --overlay a,b", {"amp": True, "overlay": ("a", "b")}),
    ],
)
def test_values_are_those_of_the_line(line: str, expected: dict[str, Any]) -> None:
    assert read(["train", "D", "O", *line.split()]) == {"dataset_dir": "D", "output_dir": "O", **expected}


def test_optional_values_may_stand_in_their_places_before_any_flag() -> None:
    words = checked_words(["copy", "A", "ts", "None"], {"copy": copy})
    assert words == ["copy", "--source='A'", "--forms=ts", "--target=None"]


def test_nothing_may_be_meant_where_several_names_can_be_given() -> None:
    assert "--overlay=" in checked_words(["train", "D", "O", "--overlay", ""], {"train": train})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["trian"], "no command 'trian', allowed: train, copy; did you mean 'train'"),
        (["train", "D"], "train: --output_dir must be given; `train --help`"),
        (["train"], "train: --dataset_dir and --output_dir must be given"),
        (["train", "D", "--output_dir"], "--output_dir has no value; give one, as in --output_dir NAME"),
        (["train", "D", "--output_dir", ""], "--output_dir has no value"),
        (["train", "D", "O", "--phases"], "--phases has no value"),
        (["train", "D", "O", "--seed", "1", "--seed", "2"], "--seed is given twice; remove one"),
        (["train", "D", "O", "--seed_x", "1", "--seed_x", "2"], "--seed_x is given twice"),
        (["train", "D", "O", "--baseline", "maybe"], "--baseline: found 'maybe'; it stands alone"),
        (["train", "D", "O", "--phases", "1", "2"], "'2' is too much: .* takes nothing here; .* as in 0,1,2"),
        (["train", "--dataset_dir", "D", "--phases", "1", "O", "2"], "'2' is too much: .* takes only output_dir here"),
        (["train", "D", "O", "1"], "'1' is too much: without a flag it takes only dataset_dir, output_dir"),
        (["copy", "A", "--forms", "ts", "pt2"], "'pt2' is too much"),
    ],
)
def test_mistakes_are_told_before_anything_is_called(line: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_words(line, {"train": train, "copy": copy})
