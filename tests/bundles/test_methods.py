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
OWN_OPTIONS = {"probability", "views", "hard_segmentation_weight", "consistency_weight"} | {
    "style_levels",
    "stylized_output",
    "weight_law",
}
SETTINGS_OF_THE_DEFAULT = {"flow_and_image_styles", "paper_styles"}
"""Overlays with the default's stylizer."""


def overlay(method: str) -> dict[str, Any]:
    """Content of a method's overlay."""
    content: dict[str, Any] = json.loads((BUNDLE / "configs" / "methods" / f"{method}.json").read_text())
    return content


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_method_trains_evaluates_and_segments(
    method: str, chain: Any, train_phase: Callable[..., Path], run_bundle: Callable[..., None]
) -> None:
    # The image's own styles are not among those that phase 2 fits by default.
    reads_them = method.removeprefix("gaussian_") in {"flow_and_image_styles", "flow_and_image_styles_or_big_aug"}
    of_image = {"phase2_dir": str(train_phase(2, chain, ("image_styles",)))} if reads_them else {}
    folder = train_phase(3, chain, (f"methods/{method}",), **of_image)
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
    own = {"method", "made_from", "stylizer", "perturbation", "normalization", "hard_pass"}
    assert set(content) <= own | OWN_OPTIONS
    assert ("normalization" in content) == ("hard_pass" in content) == (method == "san_saw")
    if method in SETTINGS_OF_THE_DEFAULT:
        assert set(content) <= {"method"} | OWN_OPTIONS
        return
    # Without flows nothing may be asked of phase 2, and with them the manifest must name them.
    text = json.dumps({name: value for name, value in content.items() if name != "made_from"})
    reads_flows = "load_style_flows" in text or "load_gaussian_styles" in text  # for their temperatures
    assert ("style_flows" in content["made_from"]) == reads_flows
    assert content["made_from"]["initial_network"] == "@phase1_model"


def test_control_without_flows_has_every_setting_of_the_flows() -> None:
    """What differs between the two is where a style comes from, by default and with every overlay of phase 2."""
    configs = {phase: BUNDLE.parent / PHASE_BUNDLES[phase] / "configs" for phase in (2, 3)}
    train = {phase: json.loads((folder / "train.json").read_text()) for phase, folder in configs.items()}
    chains = [overlay(f"{kind}_styles_and_big_aug")["stylizer"]["stylizers"] for kind in ("flow", "permuted")]
    assert chains[0][1:] == chains[1][1:]
    pairs = [(train[3]["stylizer"], overlay("permuted_styles")["stylizer"]), (chains[0][0], chains[1][0])]
    of_run = json.loads((configs[3] / "image_styles.json").read_text())
    assert overlay("flow_and_image_styles") == {"method": "flow_and_image_styles", **of_run}
    recipe, of_recipe = overlay("flow_and_image_styles"), overlay("permuted_flow_and_image_styles")
    assert of_recipe == {**overlay("permuted_styles"), **recipe, "method": "permuted_flow_and_image_styles"}
    gaussian = {**overlay("gaussian_styles"), **recipe, "method": "gaussian_flow_and_image_styles"}
    assert overlay("gaussian_flow_and_image_styles") == gaussian
    halves = [overlay(f"{kind}_or_big_aug")["stylizer"] for kind in (recipe["method"], of_recipe["method"])]
    assert {**halves[0], "stylizers": ()} == {**halves[1], "stylizers": ()}
    assert halves[0]["stylizers"][1:] == halves[1]["stylizers"][1:] == chains[0][1:]
    pairs.append((halves[0]["stylizers"][0], halves[1]["stylizers"][0]))
    for flows, control in pairs:
        assert {k: v for k, v in control.items() if k not in ("batch_norm", "image_channels")} == {
            **{k: v for k, v in flows.items() if k not in ("_disabled_", "bank", "temperatures")},
            "_target_": "mixstyleflow_monai.styles.PermutedStyleMix",
        }
        assert (control["levels"], control["batch_norm"]) == ("@style_levels", "@style_batch_norm")
    for path in [configs[2] / "train.json", *configs[2].rglob("*.json")]:
        beside = configs[3] / path.relative_to(configs[2])
        of_flows = {**train[2], **json.loads(path.read_text())}
        of_control = {**train[3], **(json.loads(beside.read_text()) if beside.is_file() else {})}
        assert of_control["style_levels"] == of_flows["levels"], path
        assert of_control["style_batch_norm"] == of_flows["style_batch_norm"], path


def test_control_without_flows_is_trained_with_the_levels_and_batch_norm_that_are_asked(
    chain: Any, train_phase: Callable[..., Path]
) -> None:
    folder = train_phase(3, chain, ("image_styles", "methods/permuted_styles"), style_batch_norm="running")
    settings = read_manifest(folder / "models" / "model.pt")["settings"]["stylizer_settings"]
    assert "levels=[2, 3, 4, 5], batch_norm='running'," in settings


def test_readme_lists_every_method() -> None:
    text = (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8")
    table = text.split("#### **Compared methods**")[1].split("####")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == {"mixstyleflow", *METHODS}
