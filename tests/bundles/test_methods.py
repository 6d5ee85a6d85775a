"""The compared methods: each is an overlay of phase 3, and each can be trained, evaluated and used."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from mixstyleflow_monai.artifacts import read_manifest
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / PHASE_BUNDLES[3]
METHODS = sorted(path.stem for path in (BUNDLE / "configs" / "methods").glob("*.json"))
# What a method may change: its hard examples and their losses, never how long or on what is trained.
OWN_OPTIONS = {"probability", "views", "hard_segmentation_weight", "consistency_weight"}


def overlay(method: str) -> dict[str, Any]:
    """Content of a method's overlay."""
    content: dict[str, Any] = json.loads((BUNDLE / "configs" / "methods" / f"{method}.json").read_text())
    return content


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_method_trains_evaluates_and_segments(
    method: str, chain: Any, train_phase: Callable[..., Path], run_bundle: Callable[..., None]
) -> None:
    folder = train_phase(3, chain, (f"methods/{method}",))
    manifest = read_manifest(folder / "models" / "model.pt")
    assert manifest["method"] == method
    options = {name: value for name, value in overlay(method).items() if name in OWN_OPTIONS}
    assert {name: manifest["settings"][name] for name in options} == options
    before = torch.load(chain.phase1 / "models" / "model.pt", weights_only=True)
    after = torch.load(folder / "models" / "model.pt", weights_only=True)
    assert all(bool(value.isfinite().all()) for value in after.values())
    assert not all(torch.equal(after[name], before[name]) for name in before)

    run_bundle(3, "evaluate", dataset_dir=str(chain.dataset), output_dir=str(folder))
    record = json.loads((folder / "evaluation.json").read_text())
    assert record["method"] == method
    assert pd.read_csv(folder / "evaluation.csv")["dice"].notna().all()
    image = chain.dataset / "site_b_0.png"
    run_bundle(3, "inference", input=str(image), output_dir=str(folder))
    assert list((folder / "predictions").rglob("site_b_0*"))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dsu", "max_style", "flow_styles_and_big_aug"])
def test_interrupted_training_of_a_method_ends_with_the_same_weights(
    method: str, chain: Any, train_phase: Callable[..., Path], tmp_path: Path
) -> None:
    overlays, options = (f"methods/{method}",), {"selection": "last", "probability": 1.0}
    whole = train_phase(3, chain, overlays, output_dir=str(tmp_path / "whole"), max_epochs=2, **options)
    for epochs in (1, 2):
        parts = train_phase(3, chain, overlays, output_dir=str(tmp_path / "parts"), max_epochs=epochs, **options)
    first, second = (torch.load(folder / "models" / "model.pt", weights_only=True) for folder in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_is_not_resumed_with_other_settings_of_its_stylizer(
    chain: Any, train_phase: Callable[..., Path], user_error: Callable[..., str], tmp_path: Path
) -> None:
    folder = {"output_dir": str(tmp_path / "dsu")}
    train_phase(3, chain, ("methods/dsu",), **folder)
    more = {"max_epochs": 2, "perturbation#factor": 0.5}
    message = user_error(lambda: train_phase(3, chain, ("methods/dsu",), **folder, **more))
    assert "perturbation_settings" in message
    assert "of another training" in message


@pytest.mark.parametrize("method", METHODS)
def test_overlay_changes_nothing_but_hard_examples(method: str) -> None:
    content = overlay(method)
    assert content["method"] == method
    assert set(content) <= {"method", "made_from", "stylizer", "perturbation"} | OWN_OPTIONS
    # Without flows nothing may be asked of phase 2, and with them the manifest must name them.
    text = json.dumps({name: value for name, value in content.items() if name != "made_from"})
    assert ("style_flows" in content["made_from"]) == ("load_style_flows" in text)
    assert content["made_from"]["initial_network"] == "@phase1_model"


def test_readme_lists_every_method() -> None:
    text = (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8")
    table = text.split("#### **Compared methods**")[1].split("####")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == {"mixstyleflow", *METHODS}
