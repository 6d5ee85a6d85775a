"""Named rules by which the bundles choose what they publish."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.artifacts import read_manifest
from mixstyleflow_monai.benchmark import make_plan
from mixstyleflow_monai.benchmark.plan import SHARED_SETTINGS
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir
from mixstyleflow_monai.engines import StylizedValidation, stylized_validation
from mixstyleflow_monai.engines.stylized_validation import METRIC
from tests.benchmark.squares import tiny_description

BIG_AUG = {"_target_": "mixstyleflow_monai.styles.BigAug", "probability": 1.0}
Call = Callable[..., Any]


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The stylised images of every training, in order."""
    found: list[Tensor] = []
    original = stylized_validation.stylized_items

    def spy(*arguments: Any, **options: Any) -> Any:
        items = original(*arguments, **options)
        found.append(torch.stack([item["image"] for item in items]))
        return items

    monkeypatch.setattr(stylized_validation, "stylized_items", spy)
    return found


def test_all_methods_and_seeds_are_selected_on_the_same_images(
    chain: Any, train_phase: Call, painted: list[Tensor], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def trained(name: str, *overlays: str, **options: Any) -> dict[str, Any]:
        folder = train_phase(3, chain, overlays, output_dir=str(tmp_path / name), **options)
        return read_manifest(folder / "models" / "model.pt")

    with caplog.at_level(logging.INFO):
        baseline = trained("baseline", "best_stylized", "methods/no_stylizer")
    assert METRIC in caplog.text
    flows = trained("flows", "best_stylized", seed=3, probability=0.1)
    assert len(painted) == 2
    assert torch.equal(*painted)
    for manifest in (baseline, flows):
        assert manifest["checkpoint"]["selection"] == "best stylised source validation"
        assert 0.0 <= manifest["checkpoint"]["best_metric"] <= 1.0
        assert manifest["settings"]["selection"] == "best_stylized"
        assert "FlowStyleMix" in manifest["settings"]["selection_stylizer_settings"]
    # Flows that chose are ancestors, even where none of them was trained with.
    expected = read_manifest(chain.phase2 / "models" / "style_flows.pt")["sha256"]
    assert set(baseline["made_from"]) == {"initial_network", "selection_flows"}
    assert baseline["made_from"]["selection_flows"]["sha256"] == expected


def test_the_best_stylised_epoch_is_published_also_after_a_resume(
    chain: Any, train_phase: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.9, 0.1])

    def scored(self: StylizedValidation, engine: Any) -> None:
        engine.state.metrics[METRIC] = next(scores)

    monkeypatch.setattr(StylizedValidation, "__call__", scored)
    options = {"selection": "best_stylized"}
    folder = train_phase(3, chain, **options)
    first = torch.load(folder / "models" / "model.pt", weights_only=True)
    train_phase(3, chain, max_epochs=2, **options)
    second = torch.load(folder / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(first[name], second[name]) for name in first)
    chosen = read_manifest(folder / "models" / "model.pt")["checkpoint"]
    assert chosen == {"selection": "best stylised source validation", "best_metric": 0.9, "best_epoch": 1}


@pytest.mark.slow
def test_selecting_on_stylised_images_does_not_change_what_is_trained(
    chain: Any, train_phase: Call, tmp_path: Path
) -> None:
    states = []
    for selection in ("last", "best_stylized"):
        folder = train_phase(3, chain, output_dir=str(tmp_path / selection), selection=selection, max_epochs=2)
        states.append(torch.load(folder / "checkpoints" / "checkpoint_epoch=2.pt", weights_only=True)["model"])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("selection", ["best", "last"])
def test_nothing_is_stylised_unless_asked_for(
    selection: str, chain: Any, train_phase: Call, painted: list[Tensor]
) -> None:
    folder = train_phase(3, chain, selection=selection, selection_stylizer=BIG_AUG)
    assert painted == []
    assert read_manifest(folder / "models" / "model.pt")["settings"]["selection_stylizer_settings"] is None


def test_phase_one_can_select_with_a_stylizer_of_images(chain: Any, train_phase: Call, painted: list[Tensor]) -> None:
    folder = train_phase(1, chain, selection="best_stylized", selection_stylizer=BIG_AUG)
    assert len(painted) == 1
    settings = read_manifest(folder / "models" / "model.pt")["settings"]
    assert settings["selection_stylizer_settings"].startswith("BigAug(")


@pytest.mark.parametrize(
    ("phase", "overlays", "expected"),
    [
        (1, (), ["which is null", "BigAug", "--selection best or last"]),
        (3, ("methods/no_stylizer",), ["which is null", "overlay best_stylized.json", "--selection best or last"]),
        (3, ("methods/dsu",), ["which is null", "overlay best_stylized.json"]),
        (3, ("methods/max_style",), ["MaxStyle makes its images from the loss", "overlay best_stylized.json"]),
    ],
)
def test_method_without_styles_to_select_with_is_one_clear_error(
    phase: int,
    overlays: tuple[str, ...],
    expected: list[str],
    chain: Any,
    train_phase: Call,
    user_error: Call,
    tmp_path: Path,
) -> None:
    text = user_error(lambda: train_phase(phase, chain, overlays, selection="best_stylized"))
    assert [part for part in ("selection='best_stylized'", "selection_stylizer", *expected) if part not in text] == []
    assert not list(tmp_path.rglob("*.pt"))


def test_phase_two_has_no_stylised_images(chain: Any, train_phase: Call, user_error: Call) -> None:
    text = user_error(lambda: train_phase(2, chain, selection="best_stylized"))
    assert "selection='best_stylized': nothing is validated on stylised images here" in text


def test_missing_flows_to_select_with_are_one_clear_error(
    chain: Any, train_phase: Call, user_error: Call, tmp_path: Path
) -> None:
    overlays = ("best_stylized", "methods/no_stylizer")
    text = user_error(lambda: train_phase(3, chain, overlays, phase2_dir=str(tmp_path / "nowhere")))
    assert "nowhere/models/style_flows.pt: no such file" in text
    assert not list(tmp_path.rglob("*.pt"))


def test_benchmark_trains_the_flows_that_select_for_methods_without_flows(tmp_path: Path) -> None:
    description = replace(tiny_description(tmp_path), sha256="0" * 64)
    plans = [
        make_plan(bundles_dir(), description, methods=["no_stylizer"], seeds=[0], overlays=overlays)
        for overlays in ((), ("best_stylized",))
    ]
    assert [plan.needs_flows("no_stylizer") for plan in plans] == [False, True]
    assert [plan.needs_flows("phase1") for plan in plans] == [False, False]
    content = json.loads((bundles_dir() / PHASE_BUNDLES[3] / "configs" / "best_stylized.json").read_text())
    assert set(content) <= SHARED_SETTINGS
    assert "weight_average" in SHARED_SETTINGS


@pytest.mark.slow
def test_both_scores_are_curves_of_the_tracked_run(
    chain: Any, train_phase: Call, empty_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    train_phase(3, chain, selection="best_stylized", max_epochs=2, tracking="mlflow", tracking_uri=store)
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("ellipses_2d").experiment_id])
    for name in ("val_mean_dice", METRIC):
        assert [point.step for point in client.get_metric_history(run.info.run_id, name)] == [1, 2]
    assert run.data.params["selection"] == "best_stylized"
