"""Tests of a benchmark's plan: its cells, its hashes, its refusals."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixstyleflow_monai.benchmark import Cell, Plan, known_methods, make_plan
from mixstyleflow_monai.benchmark.plan import PRESETS, SHARED_SETTINGS
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir
from mixstyleflow_monai.data import DatasetDescription
from tests.benchmark.squares import tiny_description


@pytest.fixture
def description(tmp_path: Path) -> DatasetDescription:
    """Three domains; the plan looks at nothing but names and the hash."""
    return replace(tiny_description(tmp_path), sha256="0" * 64)


def plan_of(description: DatasetDescription, root: Path | None = None, **changes: Any) -> Plan:
    settings: dict[str, Any] = {"methods": ["no_stylizer", "mixstyleflow"], "seeds": [0, 1], **changes}
    return make_plan(root or bundles_dir(), description, **settings)


def test_every_source_method_and_seed_is_a_cell_and_phase_one_comes_first(description: DatasetDescription) -> None:
    plan = plan_of(description, sources="all")
    assert len(plan.cells) == 3 * 3 * 2
    assert plan.methods == ["phase1", "no_stylizer", "mixstyleflow"]
    assert plan.sources == description.domains
    assert plan_of(description).sources == [description.source_domain]


def test_hash_depends_on_what_the_result_depends_on(description: DatasetDescription) -> None:
    cell = Cell(description.source_domain, "mixstyleflow", 0)
    phases = {1: {}, 2: {}, 3: {"probability": 1.0}}
    plans = [
        plan_of(description),
        plan_of(description, overlays=["demo"]),
        plan_of(description, train_fraction=0.5),
        plan_of(description, overrides=phases),
    ]
    hashes = [plan.cell_hash(cell) for plan in plans]
    hashes += [
        plans[0].cell_hash(Cell(cell.source, "no_stylizer", 0)),
        plans[0].cell_hash(Cell(cell.source, cell.method, 1)),
    ]
    assert len(set(hashes)) == len(hashes)
    assert plan_of(description, methods=["mixstyleflow"], seeds=[0]).cell_hash(cell) == hashes[0]


def test_settings_of_phase_two_do_not_touch_methods_without_flows(description: DatasetDescription) -> None:
    plain, changed = plan_of(description), plan_of(description, overrides={1: {}, 2: {"max_epochs": 3}, 3: {}})
    for method, same in (("no_stylizer", True), ("phase1", True), ("mixstyleflow", False)):
        cell = Cell(description.source_domain, method, 0)
        assert (plain.cell_hash(cell) == changed.cell_hash(cell)) is same


@pytest.mark.parametrize("method", known_methods(bundles_dir()))
def test_no_shipped_method_changes_what_all_share(method: str, description: DatasetDescription) -> None:
    plan = plan_of(description, methods=[method])
    assert {path.name for path in plan.files(3, method)} >= {"train.json"}
    for name in SHARED_SETTINGS & set(plan.settings(3)):
        assert plan.settings(3, method)[name] == plan.settings(3)[name]


def test_method_that_trains_longer_is_refused(description: DatasetDescription, tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    shutil.copytree(bundles_dir(), root, ignore=shutil.ignore_patterns("models", "checkpoints"))
    path = root / PHASE_BUNDLES[3] / "configs" / "methods" / "long.json"
    path.write_text(json.dumps({"method": "long", "max_epochs": 9}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"long\.json: a method may not set max_epochs"):
        plan_of(description, root, methods=["long"])


@pytest.mark.parametrize("key", ["train#trainer#max_epochs", "optimizer", "reconstruction_weight", "amp"])
def test_method_on_another_footing_is_refused(key: str, description: DatasetDescription, tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    shutil.copytree(bundles_dir(), root, ignore=shutil.ignore_patterns("models", "checkpoints"))
    path = root / PHASE_BUNDLES[3] / "configs" / "methods" / "own.json"
    path.write_text(json.dumps({"method": "own", key: 9}), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"own\.json: a method may not set {key}"):
        plan_of(description, root, methods=["own"])


@pytest.mark.parametrize("method", ["mix_style", "big_aug", "max_style"])
@pytest.mark.parametrize("overlay", ["image_styles", "presets/paper"])
def test_overlay_of_flow_styles_does_not_change_other_methods(
    overlay: str, method: str, description: DatasetDescription
) -> None:
    with pytest.raises(ValueError, match=rf"--overlay {overlay}: sets probability to 1\.0 .* and {method} would"):
        plan_of(description, methods=[method], overlays=[overlay])
    ours = ["no_stylizer", "mixstyleflow", "permuted_styles", "rand_conv", "flow_and_image_styles_or_big_aug"]
    plan_of(description, methods=ours, overlays=[overlay])
    plan_of(description, methods=[method], overlays=["demo", "presets/official"])


def test_seeds_count_once_and_tracking_decides_no_result(description: DatasetDescription) -> None:
    plain = plan_of(description, seeds=[0, 1, 0])
    assert plain.seeds == [0, 1]
    assert len(plain.cells) == len(set(plain.cells)) == 6
    tracked = plan_of(description, overrides={phase: {"tracking_uri": "http://host"} for phase in (1, 2, 3)})
    assert [plain.cell_hash(cell) for cell in plain.cells] == [tracked.cell_hash(cell) for cell in plain.cells]


def test_train_json_is_known_by_its_hash(description: DatasetDescription, tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    shutil.copytree(bundles_dir(), root, ignore=shutil.ignore_patterns("models", "checkpoints"))
    plan = plan_of(description, root)
    cells = {method: Cell(description.source_domain, method, 0) for method in plan.methods}
    before = {method: plan.train_configs(cell) for method, cell in cells.items()}
    assert {method: sorted(of) for method, of in before.items()} == {
        "phase1": ["1"],
        "no_stylizer": ["1", "3"],
        "mixstyleflow": ["1", "2", "3"],
    }
    path = root / PHASE_BUNDLES[2] / "configs" / "train.json"
    path.write_text(path.read_text().replace('"$engines.check_computation', '"$1 and engines.check_computation'))
    assert {method: plan.train_configs(cell) for method, cell in cells.items()} == before  # a check makes no result
    path.write_text(path.read_text().replace('"noise_std": 0.05', '"noise_std": 0.1'))
    changed = {method for method, cell in cells.items() if plan.train_configs(cell) != before[method]}
    assert changed == {"mixstyleflow"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["mixstylflow"]}, r"no method 'mixstylflow', allowed: .*did you mean 'mixstyleflow'"),
        ({"sources": ["site_z"]}, r"--sources: .* has no domain 'site_z', allowed: all, site_a"),
        ({"seeds": [0, -1]}, r"--seeds: found -1"),
        ({"seeds": []}, r"at least one of each"),
        ({"train_fraction": 0.0}, r"--train_fraction 0.0"),
        ({"train_fraction": 2}, r"--train_fraction 2"),
    ],
)
def test_wrong_names_and_numbers_are_told(
    description: DatasetDescription, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan_of(description, **changes)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_has_the_papers_steps_and_methods_that_exist(name: str, description: DatasetDescription) -> None:
    preset = PRESETS[name]
    overrides: dict[int, dict[str, Any]] = {1: {}, 2: {}, 3: {}}
    for key, value in preset.overrides.items():
        overrides[int(key[5])][key.split(":")[1]] = value
    plan = plan_of(description, methods=preset.methods, overlays=preset.overlays, overrides=overrides)
    phases = [plan.settings(phase) for phase in (1, 2, 3)]
    assert [settings["max_epochs"] for settings in phases] == [600, 100, 1600 if name == "paper-prostate" else 100]
    assert phases[2]["learning_rate"] == (1e-4 if name == "paper-prostate" else 1e-3)
    paper = plan.settings(3, "paper_styles")
    assert (paper["stylized_output"], paper["probability"], paper["weight_law"]) == ("decoded", 1.0, "uniform")
    assert "paper_styles" in plan.methods
    assert "mixstyleflow" not in plan.methods
    for rival in ("mix_style", "dsu", "efd_mix", "tri_d", "max_style"):
        assert plan.settings(3, rival)["probability"] == 0.5
    assert phases[0]["image_size"] == ([384, 384] if name == "paper-prostate" else [512, 512])
