"""Every configuration file that the bundles ship runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixstyleflow_monai.artifacts import read_manifest
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.styles.flow_mix import PRESETS

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
STAND_ALONE = ("train", "evaluate", "inference")
# What a configuration leaves, by phase.
LEFT = {
    "train": {1: "models/model.pt", 2: "models/style_flows.pt", 3: "models/model.pt"},
    "evaluate": {1: "evaluation.json", 2: "evaluation.json", 3: "evaluation.csv"},
    "inference": {1: "predictions", 2: "styles", 3: "predictions"},
}


def config_names(phase: int) -> list[str]:
    """Every JSON file of a bundle's configs but the metadata, without its suffix."""
    folder = BUNDLES / PHASE_BUNDLES[phase] / "configs"
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in sorted(folder.rglob("*.json"))]
    return [name for name in names if name != "metadata"]


def content(phase: int, name: str) -> dict[str, Any]:
    """A configuration as it is in the file."""
    loaded: dict[str, Any] = json.loads((BUNDLES / PHASE_BUNDLES[phase] / "configs" / f"{name}.json").read_text())
    return loaded


# Those of several processes have tests of their own, in test_multi_gpu.py.
SEVERAL_PROCESSES = ("multi_gpu_train", "multi_gpu_evaluate")
ALL_NAMES = {name for phase in PHASE_BUNDLES for name in config_names(phase)}
OVERLAYS = sorted(ALL_NAMES - {*STAND_ALONE, *SEVERAL_PROCESSES})


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_every_bundle_has_the_configurations_that_the_model_zoo_expects(phase: int) -> None:
    assert set(STAND_ALONE) <= set(config_names(phase))


@pytest.mark.parametrize("kind", ["chain", "volume_chain"])
@pytest.mark.parametrize("phase", PHASE_BUNDLES)
@pytest.mark.parametrize("config", ["evaluate", "inference"])
def test_configuration_runs_after_training(
    config: str, phase: int, kind: str, request: pytest.FixtureRequest, run_bundle: Callable[..., None], tmp_path: Path
) -> None:
    chain = request.getfixturevalue(kind)
    models = str(chain.output(phase) / "models")
    paths = {"model_dir": models} if phase == 2 else {"ckpt_path": f"{models}/model.pt"}
    run_bundle(phase, config, dataset_dir=str(chain.dataset), output_dir=str(tmp_path), **paths)
    assert (tmp_path / LEFT[config][phase]).exists()


@pytest.mark.parametrize("kind", ["chain", "volume_chain"])
@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_training_leaves_its_artifact_with_a_manifest(phase: int, kind: str, request: pytest.FixtureRequest) -> None:
    manifest = read_manifest(request.getfixturevalue(kind).output(phase) / LEFT["train"][phase])
    assert manifest["phase"] == phase
    assert manifest["source_domain"] == "site_a"
    assert manifest["cases"]["train"] == ["site_a_0", "site_a_1", "site_a_2"]


def test_evaluation_of_flows_names_the_flows_and_holds_the_report(
    volume_chain: Any, run_bundle: Callable[..., None], tmp_path: Path
) -> None:
    models = volume_chain.output(2) / "models"
    run_bundle(2, "evaluate", dataset_dir=str(volume_chain.dataset), output_dir=str(tmp_path), model_dir=str(models))
    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert record["model_sha256"] == read_manifest(models / "style_flows.pt")["sha256"]
    assert record["phase"] == 2
    assert record["styles"] == json.loads((tmp_path / "style_report.json").read_text())


# Methods are phase 3 alone and have tests of their own, in test_methods.py.
@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if not name.startswith("methods/")])
def test_overlay_runs_through_the_phases_and_its_settings_are_recorded(
    overlay: str, volumes: Path, train_all: Callable[..., Any], small: dict[int, dict[str, Any]], tmp_path: Path
) -> None:
    phases = [phase for phase in PHASE_BUNDLES if overlay in config_names(phase)]
    chain = train_all(volumes, tmp_path, {phase: (overlay,) for phase in phases})
    for phase in phases:
        manifest = read_manifest(chain.output(phase) / LEFT["train"][phase])
        recorded = {**manifest["task"], **manifest["settings"], "method": manifest.get("method")}
        given = {key: value for key, value in content(phase, overlay).items() if key in recorded}
        expected = {key: value for key, value in given.items() if key not in small[phase]}
        assert {key: recorded[key] for key in expected} == expected


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_changes_only_what_exists(overlay: str) -> None:
    """MONAI takes an unknown id without a message, and then it has no effect."""
    for phase in PHASE_BUNDLES:
        if overlay in config_names(phase):
            assert set(content(phase, overlay)) <= set(content(phase, "train"))


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_preset_of_phase_three_is_that_of_the_stylizer(preset: str) -> None:
    option_of = {"output": "stylized_output"}
    settings = {**content(3, "train"), **content(3, f"presets/{preset}")}
    expected = {option_of.get(key, key): value for key, value in PRESETS[preset].items()}
    assert {key: settings[key] for key in expected} == expected


def test_defaults_of_phase_three_are_those_of_the_stylizer() -> None:
    settings = content(3, "train")
    assert (settings["probability"], settings["alpha"]) == (0.5, 0.1)
    assert (settings["style_per"], settings["weight_per"], settings["weight_law"]) == ("image", "image", "beta")
    assert settings["stylized_output"] == "detail"


def test_official_preset_does_what_the_published_code_does() -> None:
    phase1, phase2, phase3 = (content(phase, "presets/official") for phase in PHASE_BUNDLES)
    assert (phase1["activation"], phase1["loss"], phase3["loss"]) == ("softmax", "cross_entropy", "cross_entropy")
    assert (phase2["spread"], phase2["clamp"], phase2["clamp_means"]) == ("var", 25.0, True)
    assert (phase2["clip_to_envelope"], phase2["max_epochs"]) == (False, 600)
    assert (phase3["style_per"], phase3["stylized_output"]) == ("batch", "decoded")
    assert (phase3["freeze_hard_affine"], phase3["warm_start"]) == (True, False)


@pytest.mark.parametrize("option", ["image_size", "learning_rate", "max_epochs"])
def test_fundus_overlays_change_what_differs_between_the_tasks(option: str) -> None:
    expected = {"image_size": [512, 512], "learning_rate": 0.001, "max_epochs": 100}
    assert content(1 if option == "image_size" else 3, "fundus")[option] == expected[option]
