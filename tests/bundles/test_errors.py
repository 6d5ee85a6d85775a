"""A user's mistake is one clear error, before any training starts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir
from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.option_numbers import RULES

Call = Callable[..., Any]


def assert_nothing_was_trained(folder: Path) -> None:
    """No checkpoint, no flows, no picture; phase 2 may have copied the network that it was given."""
    trained = [path.name for path in folder.rglob("*") if path.is_file() and path.parent.name != "models"]
    assert trained == []
    assert not (folder / "models" / "style_flows.pt").exists()
    assert not (folder / "models" / "style_statistics.pt").exists()


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_training_checks_all_its_numbers_before_it_builds_anything(phase: int) -> None:
    train = json.loads((bundles_dir() / PHASE_BUNDLES[phase] / "configs" / "train.json").read_text(encoding="utf-8"))
    names = dict.fromkeys(name for name, rule in RULES if phase in rule.phases and name in train)
    checked = ", ".join(f"{name}=@{name}" for name in names)
    assert train["initialize"][1] == f"$engines.check_numbers({phase}, dict({checked}))"


@pytest.mark.parametrize(
    ("phase", "options", "expected"),
    [
        (1, {"image_size": [100, 96]}, ["image_size=[100, 96]", "multiples of 16", "Use [112, 96]"]),
        (1, {"batch_size": 5}, ["batch_size=5", "even number"]),
        (1, {"batch_size": 0}, ["batch_size=0", "even number"]),
        (1, {"max_epochs": "abc"}, ["max_epochs='abc' (phase 1)", "a whole number of at least 1"]),
        (1, {"noise_std": "abc"}, ["noise_std='abc'", "a number of at least 0"]),
        (2, {"gradient_clip": 0}, ["gradient_clip=0", "above 0"]),
        (3, {"val_interval": "abc"}, ["val_interval='abc' (phase 3)"]),
        (3, {"epoch_length": 0}, ["epoch_length=0", "or null"]),
        (1, {"activation": "tanh"}, ["'tanh'", "'sigmoid'", "'softmax'"]),
        (1, {"loss": "dice"}, ["loss='dice'", "bce_dice", "cross_entropy"]),
        (1, {"activation": "softmax"}, ["loss='bce_dice'", "activation='softmax'", "Change one"]),
        (1, {"augmentation": "brain"}, ["augmentation='brain'", "fundus", "prostate"]),
        (1, {"slices": "some"}, ["slices='some'", "labelled"]),
        (1, {"selection": "first"}, ["selection='first'", "'best'", "'last'"]),
        (1, {"percentiles": [98, 2]}, ["percentiles=[98.0, 2.0]"]),
        (1, {"intensity": "unit"}, ["intensity='unit'", "slice_range", "data_range"]),
        (2, {"spread": "sd"}, ["'sd'", "log_std"]),
        (2, {"clamp": -1.0}, ["clamp is -1.0"]),
        (2, {"temperatures": {"2": 1.0}}, ["temperatures", "[3, 4]"]),
        (2, {"statistics_batch_size": 3}, ["batch_size=3", "even number"]),
        (3, {"probability": 1.5}, ["probability=1.5", "[0, 1]"]),
        (3, {"alpha": 0.0}, ["alpha=0.0"]),
        (3, {"style_per": "pixel"}, ["style_per='pixel'", "batch"]),
        (3, {"weight_law": "normal"}, ["weight_law='normal'", "uniform"]),
        (3, {"stylized_output": "sharp"}, ["output='sharp'", "decoded"]),
        (3, {"temperatures": {"1": 2.0}}, ["temperatures", "[2, 3, 4]"]),
        (3, {"loss": "cross_entropy"}, ["loss='cross_entropy'", "activation='sigmoid'"]),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_option_out_of_range_is_refused_with_the_value_and_what_is_allowed(
    phase: int,
    options: dict[str, Any],
    expected: list[str],
    chain: Any,
    train_phase: Call,
    user_error: Call,
    tmp_path: Path,
) -> None:
    text = user_error(lambda: train_phase(phase, chain, **options))
    assert [part for part in expected if part not in text] == [], text
    assert_nothing_was_trained(tmp_path)


@pytest.mark.parametrize("phase", [2, 3])
def test_missing_model_of_phase_one_is_one_clear_error(
    phase: int, chain: Any, train_phase: Call, user_error: Call, tmp_path: Path
) -> None:
    text = user_error(lambda: train_phase(phase, chain, phase1_dir=str(tmp_path / "nowhere")))
    assert "nowhere/models/model" in text
    assert "no such file" in text
    assert "Train the phase" in text or "Run the phase" in text
    assert_nothing_was_trained(tmp_path)


def test_missing_flows_are_one_clear_error(chain: Any, train_phase: Call, user_error: Call, tmp_path: Path) -> None:
    text = user_error(lambda: train_phase(3, chain, phase2_dir=str(tmp_path / "nowhere")))
    assert "nowhere/models/style_flows.pt: no such file" in text
    assert_nothing_was_trained(tmp_path)


def test_missing_data_set_is_one_clear_error(chain: Any, train_phase: Call, user_error: Call, tmp_path: Path) -> None:
    text = user_error(lambda: train_phase(1, chain, dataset_dir=str(tmp_path / "nowhere")))
    assert "nowhere/dataset.json: no such file" in text
    assert "python -m data_prep" in text


def test_flows_of_another_network_are_refused_with_both_hashes(
    chain: Any, train_phase: Call, user_error: Call, tmp_path: Path
) -> None:
    other = train_phase(1, chain, output_dir=str(tmp_path / "other"), seed=7)
    hashes = [
        json.loads((folder / "models" / "model.manifest.json").read_text())["sha256"]
        for folder in (chain.phase1, other)
    ]
    text = user_error(lambda: train_phase(3, chain, phase1_dir=str(other)))
    assert [digest[:12] for digest in hashes if digest[:12] not in text] == []
    assert_nothing_was_trained(tmp_path / "phase3")


def test_flows_are_accepted_for_a_network_that_descends_from_theirs(chain: Any, train_phase: Call) -> None:
    """Phase III may go on from its own result: the manifest names the network it came from."""
    folder = train_phase(3, chain, phase1_dir=str(chain.phase3))
    manifest = json.loads((folder / "models" / "model.manifest.json").read_text())
    assert json.loads((chain.phase1 / "models" / "model.manifest.json").read_text())["sha256"] in manifest["ancestors"]


@pytest.mark.parametrize("phase", [2, 3])
def test_damaged_model_is_refused(phase: int, chain: Any, train_phase: Call, user_error: Call, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(chain.phase1 / "models", damaged / "models")
    model = damaged / "models" / "model.pt"
    model.write_bytes(model.read_bytes()[:-1000] + bytes(1000))
    text = user_error(lambda: train_phase(phase, chain, phase1_dir=str(damaged)))
    assert "model.pt: SHA-256" in text
    assert "replaced or damaged" in text
    assert_nothing_was_trained(tmp_path / f"phase{phase}")


@pytest.mark.parametrize("config", ["evaluate", "inference"])
def test_damaged_model_is_not_deployed(
    config: str, chain: Any, run_bundle: Call, user_error: Call, tmp_path: Path
) -> None:
    shutil.copytree(chain.phase3 / "models", tmp_path / "models")
    model = tmp_path / "models" / "model.pt"
    model.write_bytes(model.read_bytes() + b"x")
    text = user_error(lambda: run_bundle(3, config, dataset_dir=str(chain.dataset), output_dir=str(tmp_path)))
    assert "replaced or damaged" in text


@pytest.mark.parametrize("config", ["train", "evaluate"])
@pytest.mark.parametrize("phase", [2, 3])
def test_data_set_of_another_task_is_refused(
    phase: int, config: str, chain: Any, volumes: Path, run_bundle: Call, small: Any, user_error: Call, tmp_path: Path
) -> None:
    shutil.copytree(chain.output(phase) / "models", tmp_path / "models")
    options = {**chain.folders(phase), **small[phase]} if config == "train" else {}
    options |= {"dataset_dir": str(volumes), "output_dir": str(tmp_path)}
    text = user_error(lambda: run_bundle(phase, config, **options))
    assert "channels is 1, but the model was trained with 3" in text
    assert not (tmp_path / "checkpoints").exists() or not any((tmp_path / "checkpoints").iterdir())


def test_data_set_with_other_regions_is_refused(
    chain: Any, images: Path, train_phase: Call, user_error: Call, tmp_path: Path
) -> None:
    other = tmp_path / "dataset"
    shutil.copytree(images, other)
    content = json.loads((other / "dataset.json").read_text())
    content["regions"] = {"disc": [1, 2]}
    (other / "dataset.json").write_text(json.dumps(content))
    text = user_error(lambda: train_phase(3, chain, dataset_dir=str(other)))
    assert "regions is {'disc': [1, 2]}, but the model was trained with {'disc': [1, 2], 'cup': [2]}" in text


def test_baseline_needs_no_flows(chain: Any, train_phase: Call, tmp_path: Path) -> None:
    folder = train_phase(3, chain, ("methods/no_stylizer",), phase2_dir=str(tmp_path / "nowhere"))
    manifest = json.loads((folder / "models" / "model.manifest.json").read_text())
    assert manifest["method"] == "no_stylizer"
    assert list(manifest["made_from"]) == ["initial_network"]


@pytest.mark.parametrize("phase", [1, 2, 3])
def test_training_with_non_finite_losses_stops_after_the_given_number_of_steps(
    phase: int, chain: Any, train_phase: Call, user_error: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.nn.functional, "mse_loss", lambda a, b: (a - b).mean() * float("nan"))
    original = StyleFlowBank.log_prob

    def broken(self: StyleFlowBank, *arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = original(self, *arguments)
        return first * float("nan"), second

    monkeypatch.setattr(StyleFlowBank, "log_prob", broken)
    text = user_error(lambda: train_phase(phase, chain, max_skipped_steps=2, max_epochs=3), ValueError)
    assert "2 steps in a row had non-finite gradients" in text
    assert not (tmp_path / f"phase{phase}" / "models" / ("style_flows.pt" if phase == 2 else "model.pt")).exists()
