"""Stopped and started again, a training ends where it would have ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mixstyleflow_monai.artifacts import read_manifest
from mixstyleflow_monai.engines import BestModel, DualDecoderTrainer

ARTIFACT = {1: "models/model.pt", 2: "models/style_flows.pt", 3: "models/model.pt"}
PHASES = pytest.mark.parametrize("phase", [1, 2, 3])


def weights(folder: Path, phase: int) -> dict[str, torch.Tensor]:
    """The tensors of what a phase published."""
    content = torch.load(folder / ARTIFACT[phase], weights_only=True)
    state: dict[str, torch.Tensor] = content["state_dict"] if phase == 2 else content
    return state


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """True if all tensors are the same, bit by bit."""
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@PHASES
def test_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(
    phase: int, chain: Any, train_phase: Callable[..., Path], tmp_path: Path
) -> None:
    options = {"selection": "last"}
    whole = train_phase(phase, chain, output_dir=str(tmp_path / "whole"), max_epochs=2, **options)
    train_phase(phase, chain, output_dir=str(tmp_path / "parts"), max_epochs=1, **options)
    half = weights(tmp_path / "parts", phase)
    parts = train_phase(phase, chain, output_dir=str(tmp_path / "parts"), max_epochs=2, **options)
    assert same(weights(whole, phase), weights(parts, phase))
    assert not same(half, weights(parts, phase))
    assert read_manifest(parts / ARTIFACT[phase])["checkpoint"]["epoch"] == 2


def test_resumed_training_is_the_same_when_an_epoch_is_a_whole_number_of_passes(
    chain: Any, volumes: Path, train_phase: Callable[..., Path], tmp_path: Path
) -> None:
    """Six labelled slices, two a step, three steps: the order of an epoch ends with the slices."""
    options = {"dataset_dir": str(volumes), "slices": "labelled", "epoch_length": 3, "selection": "last"}
    whole = train_phase(1, chain, output_dir=str(tmp_path / "whole"), max_epochs=2, **options)
    for epochs in (1, 2):
        parts = train_phase(1, chain, output_dir=str(tmp_path / "parts"), max_epochs=epochs, **options)
    assert same(weights(whole, 1), weights(parts, 1))


@pytest.mark.parametrize("phase", [1, 3])
def test_training_with_a_falling_learning_rate_resumes_to_the_same_weights(
    phase: int, chain: Any, train_phase: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = {"selection": "last", "lr_schedule": "cosine", "max_epochs": 2}
    whole = train_phase(phase, chain, output_dir=str(tmp_path / "whole"), **options)
    original = DualDecoderTrainer.set_epoch

    def interrupted(self: DualDecoderTrainer, epoch: int) -> None:
        if epoch == 2:
            raise KeyboardInterrupt
        original(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(DualDecoderTrainer, "set_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_phase(phase, chain, output_dir=str(tmp_path / "parts"), **options)
    parts = train_phase(phase, chain, output_dir=str(tmp_path / "parts"), **options)
    assert same(weights(whole, phase), weights(parts, phase))
    constant = train_phase(
        phase, chain, output_dir=str(tmp_path / "constant"), **{**options, "lr_schedule": "constant"}
    )
    assert not same(weights(whole, phase), weights(constant, phase))


def test_training_whose_learning_rate_fell_to_zero_cannot_be_prolonged(
    chain: Any, train_phase: Callable[..., Path], user_error: Callable[..., str]
) -> None:
    train_phase(1, chain, lr_schedule="cosine")
    text = user_error(lambda: train_phase(1, chain, lr_schedule="cosine", max_epochs=3))
    assert "max_epochs: was 1, now 3" in text


@PHASES
def test_finished_training_run_again_publishes_the_same(
    phase: int, chain: Any, train_phase: Callable[..., Path], tmp_path: Path
) -> None:
    folder = train_phase(phase, chain)
    before = weights(folder, phase), read_manifest(folder / ARTIFACT[phase])["checkpoint"]
    train_phase(phase, chain)
    assert same(before[0], weights(folder, phase))
    assert read_manifest(folder / ARTIFACT[phase])["checkpoint"] == before[1]


def test_best_model_survives_a_resume_with_a_worse_validation(
    chain: Any, train_phase: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.9, 0.1])

    def validated(self: BestModel, engine: Any) -> None:
        engine.state.metrics[engine.state.key_metric_name] = next(scores)
        original(self, engine)

    original = BestModel.__call__
    monkeypatch.setattr(BestModel, "__call__", validated)
    folder = train_phase(1, chain)
    best = weights(folder, 1)
    train_phase(1, chain, max_epochs=2)
    assert same(best, weights(folder, 1))
    chosen = read_manifest(folder / ARTIFACT[1])["checkpoint"]
    assert chosen == {"selection": "best source validation", "best_metric": 0.9, "best_epoch": 1}


@pytest.mark.parametrize(("option", "value"), [("learning_rate", 0.01), ("seed", 5), ("noise_std", 0.0)])
def test_checkpoint_of_other_settings_is_refused(
    option: str, value: float, chain: Any, train_phase: Callable[..., Path], user_error: Callable[..., str]
) -> None:
    folder = train_phase(1, chain)
    before = weights(folder, 1)
    text = user_error(lambda: train_phase(1, chain, max_epochs=2, **{option: value}))
    assert f"{option}: was" in text
    assert "--resume false" in text
    assert same(before, weights(folder, 1))


def test_checkpoint_of_another_data_set_is_refused(
    chain: Any, volumes: Path, train_phase: Callable[..., Path], user_error: Callable[..., str]
) -> None:
    train_phase(1, chain)
    text = user_error(lambda: train_phase(1, chain, dataset_dir=str(volumes)))
    assert "dataset: was" in text


@pytest.mark.parametrize("phase", [2, 3])
def test_checkpoint_made_from_another_network_is_refused(
    phase: int, chain: Any, train_phase: Callable[..., Path], user_error: Callable[..., str], tmp_path: Path
) -> None:
    other = train_phase(1, chain, output_dir=str(tmp_path / "other"), seed=9)
    options = {"overlays": ("methods/no_stylizer",)} if phase == 3 else {}
    folder = train_phase(phase, chain, **options)
    before = {path: path.read_bytes() for path in (folder / "models").iterdir()}
    text = user_error(lambda: train_phase(phase, chain, phase1_dir=str(other), **options))
    assert "SHA-256 of " in text
    assert "--resume false" in text
    assert {path: path.read_bytes() for path in (folder / "models").iterdir()} == before


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("other", [1, 3])
def test_phase_2_leaves_the_network_of_another_phase_alone(
    other: int,
    resume: bool,
    chain: Any,
    train_phase: Callable[..., Path],
    user_error: Callable[..., str],
    tmp_path: Path,
) -> None:
    overlays = ("methods/no_stylizer",) if other == 3 else ()
    folder = train_phase(other, chain, overlays, output_dir=str(tmp_path / "other"), seed=9)
    before = {path: path.read_bytes() for path in (folder / "models").iterdir()}
    text = user_error(lambda: train_phase(2, chain, output_dir=str(folder), resume=resume))
    assert f"is of phase {other}, and this is phase 2" in text
    assert {path: path.read_bytes() for path in (folder / "models").iterdir()} == before


def test_refused_settings_of_phase_2_leave_its_statistics_alone(
    chain: Any, train_phase: Callable[..., Path], user_error: Callable[..., str]
) -> None:
    folder = train_phase(2, chain)
    before = {path: path.read_bytes() for path in (folder / "models").iterdir()}
    text = user_error(lambda: train_phase(2, chain, noise_std=0.1))
    assert "noise_std: was 0.05, now 0.1" in text
    assert {path: path.read_bytes() for path in (folder / "models").iterdir()} == before


def test_new_start_leaves_no_checkpoint_of_the_old_one(chain: Any, train_phase: Callable[..., Path]) -> None:
    folder = train_phase(1, chain, max_epochs=2)
    train_phase(1, chain, max_epochs=1, resume=False, seed=1)
    assert [path.name for path in folder.glob("checkpoints/checkpoint*")] == ["checkpoint_epoch=1.pt"]
    train_phase(1, chain, max_epochs=2, seed=1)


def test_best_model_of_an_earlier_training_is_not_published(chain: Any, train_phase: Callable[..., Path]) -> None:
    folder = train_phase(1, chain)
    old = weights(folder, 1)
    train_phase(1, chain, resume=False, seed=1, val_interval=5)
    assert read_manifest(folder / ARTIFACT[1])["checkpoint"] == {"selection": "last", "epoch": 1}
    assert not same(old, weights(folder, 1))


@PHASES
def test_interrupted_write_leaves_neither_artifact_nor_partial_file(
    phase: int, chain: Any, train_phase: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / f"phase{phase}"
    original = torch.save

    def interrupted(content: Any, target: Any, *args: Any, **kwargs: Any) -> None:
        original(content, target, *args, **kwargs)
        if str(getattr(target, "name", target)).endswith(Path(ARTIFACT[phase]).name):
            target.truncate(100)
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_phase(phase, chain)
    assert not (folder / ARTIFACT[phase]).exists()
    assert [path.name for path in folder.rglob(".partial-*")] == []
    monkeypatch.undo()
    train_phase(phase, chain)
    assert read_manifest(folder / ARTIFACT[phase])["phase"] == phase


def test_statistics_are_gathered_once_for_the_same_settings(chain: Any, train_phase: Callable[..., Path]) -> None:
    folder = train_phase(2, chain)
    statistics = folder / "models" / "style_statistics.manifest.json"
    first = json.loads(statistics.read_text()), statistics.stat().st_mtime_ns
    train_phase(2, chain, max_epochs=3)
    assert (json.loads(statistics.read_text()), statistics.stat().st_mtime_ns) == first
    train_phase(2, chain, resume=False, statistics_passes=2)
    assert json.loads(statistics.read_text())["settings"]["passes"] == 2
