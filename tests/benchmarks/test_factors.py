"""Tests of the study of one factor at a time; its trainings are those of the benchmark command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import factors, methods
from benchmarks.factors import RECIPE, VARIANTS, main, report
from mixstyleflow_monai.artifacts import write_json
from mixstyleflow_monai.benchmark import benchmark
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir
from tests.benchmark.squares import tiny_dataset


def record(method: str, group: str, seed: int, shifted: float, unseen: float) -> dict[str, Any]:
    """Return a finished cell."""
    return {
        "request": {"source": "home", "method": method, "seed": seed, "train_fraction": 1.0},
        "dataset": "discs",
        "group": group,
        "held_in_shifts": {"plain": 95.0, "mean of shifts": shifted, "mean of pairs": shifted - 2.0},
        "source_mean_dice": 94.0,
        "unseen_mean_dice": unseen,
        "roles": {"home": "source", "away": "unseen"},
        "dice": {"home": {"disc": {"a": 94.0}}, "away": {"disc": {"b": unseen - 1.0, "c": unseen + 1.0}}},
    }


def phantom(task: str, folder: str, seed: int) -> None:
    """Stand in for the generator of a phantom."""
    write_json(Path(folder) / "dataset.json", {"source_domain": "home"})


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Train nothing; return what each group would have trained, by its folder."""
    calls: dict[str, dict[str, Any]] = {}

    def stand_in(dataset: str, folder: str, **settings: Any) -> int:
        calls[Path(folder).name] = settings
        write_json(Path(folder) / "cells" / f"{Path(folder).name}.json", record(RECIPE, "", 0, 0.0, 80.0))
        return 0

    monkeypatch.setattr(factors, "benchmark", stand_in)
    monkeypatch.setattr(factors, "CELLS", tmp_path / "kept")
    monkeypatch.setattr(factors, "shifts_of_run", lambda run, dataset: {"plain": 95.0, "mean of shifts": 90.126})
    monkeypatch.setattr(methods, "make_phantom", phantom)
    return calls


def test_each_variant_changes_one_known_option_of_the_recipe() -> None:
    configs = bundles_dir() / PHASE_BUNDLES[3] / "configs"
    known = json.loads((configs / "train.json").read_text())
    recipe = known | json.loads((configs / "methods" / f"{RECIPE}.json").read_text())
    for name, variant in VARIANTS.items():
        assert len(variant.phase3) + len(variant.training) == 1, name
        for key, value in variant.phase3.items():
            assert key in known, name
            assert recipe[key] != value, name


def test_what_a_method_may_not_change_is_a_training_of_its_own(
    planned: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    factors.run("prostate_phantom", None, tmp_path, ["low_frequency", "average", "joint"], [0, 1])
    assert list(planned) == ["recipe", "average", "joint"]
    assert list(planned["recipe"]["methods"]) == ["no_stylizer", "mixstyleflow", RECIPE, "low_frequency"]
    assert list(planned["average"]["methods"]) == ["no_stylizer", RECIPE]
    assert (planned["average"]["phase3:weight_average"], planned["average"]["amp"]) == (0.98, True)
    assert list(planned["joint"]["methods"]) == [RECIPE]
    kept = json.loads((tmp_path / "kept" / "average.json").read_text())
    assert (kept["group"], kept["held_in_shifts"]["mean of shifts"]) == ("average", 90.13)
    overlay = tmp_path / "factors/prostate_phantom/bundles" / PHASE_BUNDLES[3] / "configs/methods/low_frequency.json"
    content = json.loads(overlay.read_text())
    assert (content["method"], content["stylized_output"], content["probability"]) == (
        "low_frequency",
        "low_frequency",
        1.0,
    )


def test_finished_phases_are_taken_where_they_are_the_same(planned: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    for name, seed in (
        ("phase1", 0),
        ("phase2", 0),
        ("no_stylizer", 0),
        ("dsu", 0),
        ("phase1", 1),
        ("phase2", 1),
        ("mixstyleflow", 0),
    ):
        folder = tmp_path / "prostate_phantom" / "home" / f"seed{seed}" / name
        write_json(folder / "models" / "model.manifest.json", {})
        if (name, seed) == ("phase2", 0):  # the other one's flows are not trained yet
            write_json(folder / "models" / "style_flows.manifest.json", {})
        if name != "mixstyleflow":  # one that nothing is known about
            write_json(folder / "request.json", {})
    factors.run("prostate_phantom", None, tmp_path, ["average", "joint", "long_phase1"], [0, 1])
    seeds = {group: tmp_path / "factors" / "prostate_phantom" / group / "home" / "seed0" for group in planned}
    taken = {group: sorted(p.name for p in folder.glob("*")) for group, folder in seeds.items()}
    assert taken == {
        "recipe": ["no_stylizer", "phase1", "phase2"],
        "average": ["phase1", "phase2"],
        "joint": ["phase1"],
        "long_phase1": [],
    }
    assert [p.name for p in (seeds["average"].parent / "seed1").glob("*")] == ["phase1"]


def test_the_plans_of_all_variants_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = tiny_dataset(tmp_path / "squares")
    monkeypatch.setattr(factors, "benchmark", lambda *a, **k: benchmark(*a, dry_run=True, **k))
    monkeypatch.setattr(factors, "dataset_of", lambda *a: dataset)
    assert factors.run("prostate_phantom", None, tmp_path, list(VARIANTS), [0]) == 0


def test_tables_need_finished_cells_alone(tmp_path: Path) -> None:
    records = [
        record(RECIPE, "recipe", 0, 90.0, 80.0),
        record(RECIPE, "recipe", 1, 92.0, 84.0),
        record("low_frequency", "recipe", 0, 91.0, 81.0),
        record("no_stylizer", "average", 0, 85.0, 70.0),
        record(RECIPE, "average", 0, 91.5, 82.0),
    ]
    for number, content in enumerate(records):
        write_json(tmp_path / f"{number}.json", content)
    rows = [line for line in report(tmp_path).splitlines() if line.startswith("| ")]
    assert rows[1:] == [
        "| recipe |  | 0-1 | 91.0 ± 1.4 | 89.0 ± 1.4 | 94.0 ± 0.0 | 82.0 ± 2.8 | - |",
        "| hard image | low frequencies of the change | 0 | +1.0 | +1.0 | +0.0 | +1.0 [+1.0, +1.0] | - |",
        "| weights | average, 0.98 | 0 | +1.5 | +1.5 | +0.0 | +2.0 [+2.0, +2.0] | +12.0 [+12.0, +12.0] |",
        "| weights | average, 0.98, baseline | 0 | -5.0 | -5.0 | +0.0 | -10.0 [-10.0, -10.0] | - |",
    ], "differences over the seeds that both have"
    again = record(RECIPE, "recipe", 0, 80.0, 70.0)
    again["request"]["overrides"] = {"1": {"percentiles": [1.0, 99.8]}}
    write_json(tmp_path / "more.json", again)
    text = report(tmp_path)
    assert "### discs, between the 1 and 99.8 percentiles, trained on `home`" in text
    assert "| recipe |  | 0-1 | 91.0 ± 1.4" in text, "not pooled"


def test_differences_tell_the_seeds_they_are_of_where_some_have_none(tmp_path: Path) -> None:
    for seed in range(3):
        write_json(tmp_path / f"recipe{seed}.json", record(RECIPE, "recipe", seed, 90.0 + seed, 80.0))
    for seed in (1, 2, 7):
        write_json(tmp_path / f"decoded{seed}.json", record("decoded", "recipe", seed, 92.0 + 2.0 * seed, 80.0))
    without_pairs = record("decoded", "recipe", 0, 91.0, 80.0)
    del without_pairs["held_in_shifts"]["mean of pairs"]
    write_json(tmp_path / "decoded0.json", without_pairs)
    row = next(line for line in report(tmp_path).splitlines() if "decoded" in line)
    cells = [cell.strip() for cell in row.split("|")[3:6]]
    assert cells == ["0-2, 7", "+2.7 ± 1.5 (seeds 0-2)", "+3.5 ± 0.7 (seeds 1-2)"]


def test_cells_of_before_there_were_pairs_are_measured_again(
    planned: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = record(RECIPE, "recipe", 0, 90.0, 80.0)
    del old["held_in_shifts"]["mean of pairs"]
    write_json(tmp_path / "kept" / "recipe.json", old)
    factors.run("prostate_phantom", None, tmp_path, [], [0])
    assert json.loads((tmp_path / "kept" / "recipe.json").read_text()) == old, "nothing left to measure"
    assert "| recipe |  | 0 | 90.0 | - |" in report(tmp_path / "kept")

    network = tmp_path / "factors/prostate_phantom/recipe/home/seed0" / RECIPE / "models" / "model.pt"
    network.parent.mkdir(parents=True)
    network.touch()
    for mean_of_pairs in (88.0, 70.0):
        result = {"mean of shifts": 90.0, "mean of pairs": mean_of_pairs}
        monkeypatch.setattr(factors, "shifts_of_run", lambda run, dataset, found=result: found)
        factors.run("prostate_phantom", None, tmp_path, [], [0])
        kept = json.loads((tmp_path / "kept" / "recipe.json").read_text())
        assert kept["held_in_shifts"]["mean of pairs"] == 88.0, "measured once"


def test_two_records_of_one_variant_are_not_pooled(tmp_path: Path) -> None:
    for number in range(2):
        write_json(tmp_path / f"{number}.json", record("low_frequency", "recipe", 0, 91.0, 81.0))
    with pytest.raises(ValueError, match=r"two records of .*low frequencies of the change"):
        report(tmp_path)


def test_unknown_names_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'temprature': no such variant or task"):
        main(output=str(tmp_path), variants="temprature")
    with pytest.raises(ValueError, match="'prostate_phantom_10': no such variant or task"):
        main(output=str(tmp_path), tasks="prostate_phantom_10")
    assert not list(tmp_path.iterdir())
