"""Tests of the comparison for lent GPUs, on the CPU with tiny trainings."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from benchmarks import gpu_comparison
from benchmarks.gpu_comparison import COMPARISONS, TIME_IS_UP, main
from tests.benchmark.squares import tiny_dataset

TINY = {"tasks": "white_cells", "seeds": 0, "jobs": 1, "phase1_steps": 25, "phase3_steps": 25}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for the images, 32 x 32 pixels."""
    dataset = tiny_dataset(tmp_path / "squares")
    monkeypatch.setattr(gpu_comparison, "dataset_of", lambda name, images, output: dataset)
    monkeypatch.setitem(COMPARISONS, "white_cells", (32, None))
    return tmp_path / "out"


def test_it_ends_when_the_time_is_up_and_goes_on_at_the_next_run(tiny: Path) -> None:
    assert main(str(tiny), minutes=0.01, methods="no_stylizer", **TINY) == TIME_IS_UP
    assert not list((tiny / "results" / "cells").glob("*.json"))
    assert main(str(tiny), minutes=9, methods="no_stylizer", **TINY) == 0
    cells = [json.loads(path.read_text()) for path in (tiny / "results" / "cells").glob("*.json")]
    assert {cell["request"]["method"] for cell in cells} == {"phase1", "no_stylizer"}
    request = next(cell["request"] for cell in cells if cell["request"]["method"] == "no_stylizer")
    assert [request["overrides"][phase]["max_epochs"] for phase in ("1", "3")] == [1, 1]
    assert request["overrides"]["1"]["image_size"] == [32, 32]
    assert (tiny / "results" / "white_cells.md").is_file()
    times = (tiny / "results" / "times.md").read_text()
    assert times.startswith("CPU, 25 steps, up to 1 trainings")
    assert "| no_stylizer | 0 |" in times
    # What came back from a lost machine is not trained again.
    finished = str(tiny / "results" / "cells")
    assert main(str(tiny.parent / "fresh"), methods="no_stylizer", finished=finished, **TINY) == 0
    assert not list((tiny.parent / "fresh").rglob("model.pt"))


def test_preparing_makes_the_data_sets_alone(tiny: Path) -> None:
    assert main(str(tiny), prepare_only=True, **TINY) == 0
    assert not tiny.exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tasks": "nuclei"}, r"--tasks: no comparison \['nuclei'\], allowed: white_cells, fundus"),
        ({"minutes": 0}, "--minutes 0: expected a number above 0"),
        ({"phase1_steps": 90}, "--phase1_steps 90: expected a multiple of 25, the steps of an epoch"),
    ],
)
def test_what_is_not_possible_is_told_before_anything_is_made(
    changed: dict[str, object], message: str, tiny: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        main(str(tiny), **{**TINY, **changed})
    assert not tiny.exists()


def test_a_failure_is_told_even_where_the_time_is_up_for_the_rest(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = {"white_cells": 1, "fundus": TIME_IS_UP}
    monkeypatch.setattr(gpu_comparison, "_benchmark", lambda dataset, folder, options, end: codes[folder.name])
    for order in (["white_cells", "fundus"], ["fundus", "white_cells"]):
        assert main(str(tiny), **{**TINY, "tasks": order}) == 1
    codes["white_cells"] = 0
    assert main(str(tiny), **{**TINY, "tasks": ["white_cells", "fundus"]}) == TIME_IS_UP


def test_a_killed_benchmark_is_not_taken_for_a_finished_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_comparison.sys, "executable", str(tmp_path / "killed"))
    (tmp_path / "killed").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "killed").chmod(0o755)
    assert gpu_comparison._benchmark(tmp_path, tmp_path, {}, time.monotonic() + 60) == 1
