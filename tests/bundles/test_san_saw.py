"""SAN-SAW through the bundle: the one method whose layers are part of the trained network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mixstyleflow_monai.artifacts import read_manifest
from mixstyleflow_monai.data import Task
from mixstyleflow_monai.packing.weights import find_weights

OVERLAY = ("methods/san_saw",)


@pytest.fixture
def trained(chain: Any, train_phase: Callable[..., Path]) -> Path:
    """Output folder of a training of two steps, from phase 1's network; cup and disc."""
    return train_phase(3, chain, OVERLAY)


def test_configurations_rebuild_the_layers_from_the_manifest(
    trained: Path, chain: Any, run_bundle: Callable[..., None]
) -> None:
    manifest = read_manifest(trained / "models" / "model.pt")
    assert manifest["task"]["normalization"] == "san_saw"
    assert "normalization" not in read_manifest(chain.phase1 / "models" / "model.pt")["task"]
    settings = "SemanticLosses(target_weight=0.1, whitening_weight=0.1, classifier_weight=0.1)"
    assert manifest["settings"]["normalization_losses"] == settings
    state = torch.load(trained / "models" / "model.pt", weights_only=True)
    # Background, disc without cup, and cup.
    assert state["normalization.0.classifier.weight"].shape == (3, 32, 1, 1)
    assert Task.from_model(trained / "models" / "model.pt").classes == 3

    run_bundle(3, "evaluate", dataset_dir=str(chain.dataset), output_dir=str(trained))
    run_bundle(3, "inference", input=str(chain.dataset / "site_b_0.png"), output_dir=str(trained))
    assert json.loads((trained / "evaluation.json").read_text())["method"] == "san_saw"
    assert list((trained / "predictions").rglob("site_b_0*"))
    # What packing takes, and with it every export.
    assert find_weights(3, trained).network.normalization is not None


def test_interrupted_training_goes_on_with_the_layers(
    chain: Any, train_phase: Callable[..., Path], user_error: Callable[..., str], tmp_path: Path
) -> None:
    options = {"selection": "last", "epoch_length": 1}
    whole = train_phase(3, chain, OVERLAY, output_dir=str(tmp_path / "whole"), max_epochs=2, **options)
    for epochs in (1, 2):
        parts = train_phase(3, chain, OVERLAY, output_dir=str(tmp_path / "parts"), max_epochs=epochs, **options)
    first, second = (torch.load(folder / "models" / "model.pt", weights_only=True) for folder in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = {"output_dir": str(parts), "max_epochs": 3, "hard_pass#whitening_weight": 0.0, **options}
    assert "normalization_losses" in user_error(lambda: train_phase(3, chain, OVERLAY, **other))


def test_layers_without_the_losses_go_on_after_an_interruption(
    chain: Any, train_phase: Callable[..., Path], tmp_path: Path
) -> None:
    options = {"normalization": "san_saw", "output_dir": str(tmp_path / "flows")}
    for epochs in (1, 2):
        folder = train_phase(3, chain, max_epochs=epochs, **options)
    manifest = read_manifest(folder / "models" / "model.pt")
    assert manifest["task"]["normalization"] == "san_saw"
    assert manifest["settings"]["normalization_losses"] is None


def test_losses_without_the_layers_are_refused_before_training(
    chain: Any, train_phase: Callable[..., Path], user_error: Callable[..., str]
) -> None:
    message = user_error(lambda: train_phase(3, chain, OVERLAY, normalization="null"))
    assert "Give --normalization san_saw" in message
