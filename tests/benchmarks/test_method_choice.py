"""Tests of what source images say of the compared methods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import method_choice
from benchmarks.method_choice import RULES, main, report, score
from mixstyleflow_monai.artifacts import write_json

UNSEEN = {"no_stylizer": 60.0, "dsu": 65.0, "flow_and_image_styles": 80.0, "big_aug": 82.0, "phase1": 55.0}


def record(method: str, seed: int, unseen: float, source: str = "home") -> dict[str, Any]:
    """Return what is read of a finished cell."""
    request = {"source": source, "method": method, "seed": seed, "train_fraction": 1.0}
    dice = {"home": {"disc": {"a": 90.0}}, "away": {"disc": {"b": unseen - 1.0, "c": unseen + 1.0}}}
    roles = {"home": "source", "away": "unseen"}
    return {"request": request, "dataset": "discs", "unseen_mean_dice": unseen, "dice": dice, "roles": roles}


def test_table_tells_the_order_and_what_is_lost_by_the_choice(tmp_path: Path) -> None:
    scores = {}
    pairs = {"no_stylizer": 50.0, "dsu": 55.0, "flow_and_image_styles": 75.0, "big_aug": 70.0}
    for seed in (0, 1):
        for method, value in pairs.items():
            name = f"{method}-{seed}.json"
            write_json(tmp_path / name, record(method, seed, UNSEEN[method] + seed))
            # Plain validation says the contrary of the unseen domains.
            scores[name] = {"plain": 100.0 - UNSEEN[method], "mean of shifts": 1.0 + UNSEEN[method]}
            scores[name]["mean of pairs"] = value
    write_json(tmp_path / "scores" / "scores.json", scores)
    header, _, row = report(tmp_path, tmp_path / "scores" / "scores.json").strip().splitlines()
    cells = dict(zip(header.strip("|").split("|"), row.strip("|").split("|"), strict=True))
    assert {name.strip(): value.strip() for name, value in cells.items()} == {
        "data": "discs",
        "source": "home",
        "seeds": "0-1",
        "methods": "4",
        "order, plain": "-1.00",
        "order, shifts": "+1.00",
        "order, pairs": "+0.80",
        "unseen, chosen by plain": "60.5 ± 0.7",
        "unseen, chosen by pairs": "80.5 ± 0.7",
        "unseen, best": "82.5 ± 0.7",
        "unseen, recipe": "80.5 ± 0.7",
        "unseen, baseline": "60.5 ± 0.7",
        "by pairs, to the baseline": "+20.0 [+20.0, +20.0], t [+20.0, +20.0]",
        "by pairs, to the recipe": "+0.0 [+0.0, +0.0], t [+0.0, +0.0]",
        "by pairs, to BigAug": "-2.0 [-2.0, -2.0], t [-2.0, -2.0]",
        "chosen by pairs": "flow_and_image_styles",
    }


def test_a_seed_that_is_scored_in_part_is_left_out_and_methods_are_those_of_all_seeds(tmp_path: Path) -> None:
    scores = {}
    for seed, methods in enumerate((UNSEEN, [*UNSEEN][:3], ["dsu"])):
        for method in methods:
            name = f"{method}-{seed}.json"
            write_json(tmp_path / name, record(method, seed, UNSEEN[method]))
            scores[name] = dict.fromkeys(RULES.values(), UNSEEN[method])
    write_json(tmp_path / "scores" / "scores.json", {**scores, "gone.json": {}})
    row = report(tmp_path, tmp_path / "scores" / "scores.json").splitlines()[2]
    assert [cell.strip() for cell in row.split("|")[3:8]] == ["0-1", "3", "+1.00", "+1.00", "+1.00"]
    assert report(tmp_path, tmp_path / "none.json") == "No finished scores.\n"


def test_networks_that_are_those_of_a_record_are_scored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells, output = tmp_path / "kept", tmp_path / "out"
    folders = {}
    for method, unseen in UNSEEN.items():
        name = f"{method}.json"
        write_json(cells / name, record(method, 0, unseen))
        write_json(output / "discs" / "cells" / name, {})
        folders[method] = output / "discs" / "home" / "seed0" / method
        other = 1.0 if method == "dsu" else 0.0  # trained again since
        write_json(folders[method] / "evaluation.json", {"unseen_mean_dice": unseen + other})
        if method != "big_aug":  # its weights are gone
            (folders[method] / "models").mkdir()
            (folders[method] / "models" / "model.pt").touch()
    seen: list[Path] = []

    def stand_in(run: Path, dataset: Path) -> dict[str, float]:
        seen.append(run)
        return dict.fromkeys(RULES.values(), 70.12345)

    write_json(tmp_path / "dataset" / "dataset.json", {"source_domain": "home"})
    monkeypatch.setattr(method_choice, "CELLS", cells)
    monkeypatch.setattr(method_choice, "SCORES", tmp_path / "scores.json")
    monkeypatch.setattr(method_choice, "shifts_of_run", stand_in)
    monkeypatch.setattr(method_choice, "dataset_of", lambda *_: tmp_path / "dataset")
    score("discs", None, output, [1])
    assert seen == []
    for _ in range(2):
        score("discs", None, output)
    assert seen == [folders["flow_and_image_styles"], folders["no_stylizer"]], "nobody would choose Phase I"
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found == {name: dict.fromkeys(RULES.values(), 70.123) for name in found}


def test_committed_scores_give_a_table_and_are_of_committed_cells() -> None:
    assert "| prostate phantom |" in report()
    missing = [
        name for name in json.loads(method_choice.SCORES.read_text()) if not (method_choice.CELLS / name).is_file()
    ]
    assert not missing


def test_unknown_comparisons_are_refused() -> None:
    with pytest.raises(ValueError, match="no comparison 'prostates', allowed: white_cells"):
        main(tasks="prostates")
