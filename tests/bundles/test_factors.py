"""Options of the study's factors, through the shipped configurations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mixstyleflow_monai.artifacts import read_manifest
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.styles import level_mix

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / PHASE_BUNDLES[3]


def test_joint_flows_are_trained_recorded_and_drawn_from(
    chain: Any, train_phase: Callable[..., Path], user_error: Callable[..., str]
) -> None:
    flows = train_phase(2, chain, joint_statistics=True)
    path = flows / "models" / "style_flows.pt"
    assert read_manifest(path)["settings"]["joint_statistics"] is True
    assert StyleFlowBank.load(path).statistic_names == ("joint",)
    levels = json.loads((flows / "style_report.json").read_text())["levels"]
    assert all("nll_joint_nats_a_dimension" in level for level in levels.values())
    text = user_error(lambda: train_phase(2, chain, joint_statistics=False, max_epochs=3))
    assert "joint_statistics: was true, now false" in text

    trained = train_phase(3, chain, phase2_dir=str(flows), probability=1.0)
    weights = torch.load(trained / "models" / "model.pt", weights_only=True)
    assert all(bool(value.isfinite().all()) for value in weights.values())
    made_from = read_manifest(trained / "models" / "model.pt")["made_from"]
    assert made_from["style_flows"]["sha256"] == read_manifest(path)["sha256"]


def test_gaussians_take_the_batch_norm_of_their_statistics(
    chain: Any, train_phase: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    flows = train_phase(2, chain, style_batch_norm="running")
    used: list[str] = []
    original = level_mix.style_batch_norm
    monkeypatch.setattr(level_mix, "style_batch_norm", lambda net, kind: used.append(kind) or original(net, kind))
    train_phase(3, chain, ("methods/gaussian_styles",), phase2_dir=str(flows), probability=1.0)
    assert set(used) == {"running"}


def test_low_frequency_transfer_reaches_flows_and_their_controls(
    chain: Any, train_phase: Callable[..., Path], user_error: Callable[..., str], tmp_path: Path
) -> None:
    options = {"stylized_output": "low_frequency", "blur_sigma": 2.5, "probability": 1.0}
    for overlays in ((), ("methods/permuted_styles",)):
        folder = train_phase(3, chain, overlays, output_dir=str(tmp_path / str(len(overlays))), **options)
        settings = read_manifest(folder / "models" / "model.pt")["settings"]
        assert settings["blur_sigma"] == 2.5
        assert "output='low_frequency', blur_sigma=2.5" in settings["stylizer_settings"]
    text = user_error(lambda: train_phase(3, chain, output_dir=str(tmp_path / "bad"), blur_sigma=0.0))
    assert "blur_sigma=0.0: expected a finite number above 0" in text


@pytest.mark.parametrize("path", sorted((BUNDLE / "configs" / "methods").glob("*.json")), ids=lambda path: path.stem)
def test_method_that_adds_the_change_of_a_style_takes_the_blur(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ('"blur_sigma": "@blur_sigma"' in text) == ('"output": "@stylized_output"' in text)


def test_z_scored_images_go_through_all_phases(
    images: Path, run_bundle: Callable[..., None], user_error: Callable[..., str], small: Any, tmp_path: Path
) -> None:
    folders = {f"phase{phase}_dir": str(tmp_path / f"phase{phase}") for phase in PHASE_BUNDLES}
    options: dict[int, dict[str, Any]] = {
        1: {**small[1], "intensity": "z_score"},
        2: {**small[2], "phase1_dir": folders["phase1_dir"]},
        3: {**small[3], "phase1_dir": folders["phase1_dir"], "phase2_dir": folders["phase2_dir"], "probability": 1.0},
    }
    for phase, given in options.items():
        output = folders[f"phase{phase}_dir"]
        run_bundle(phase, "train", dataset_dir=str(images), output_dir=output, **given)
        task = read_manifest(Path(output) / "models" / "model.pt")["task"]
        assert (task["intensity"], task["image_activation"]) == ("z_score", "instance_norm")
        assert (Path(output) / "panels" / ("styles.png" if phase == 2 else "epoch_0001.png")).is_file()
    folder = Path(folders["phase3_dir"])
    run_bundle(3, "evaluate", dataset_dir=str(images), output_dir=str(folder))
    assert json.loads((folder / "evaluation.json").read_text())["phase"] == 3
    run_bundle(3, "inference", input=str(images / "site_b_0.png"), output_dir=str(folder))
    assert list((folder / "predictions").rglob("site_b_0*"))
    for method, name in (("max_style", "MaxStyle"), ("flow_styles_and_big_aug", "BigAug")):
        again = {**options[3], "dataset_dir": str(images), "output_dir": str(tmp_path / method)}
        text = user_error(lambda m=method, o=again: run_bundle(3, "train", (f"methods/{m}",), **o))
        assert f"{name} with intensity='z_score'" in text


@pytest.mark.slow
def test_separate_batch_norm_of_the_hard_pass_is_resumed_and_not_published(
    chain: Any, train_phase: Callable[..., Path], tmp_path: Path
) -> None:
    options = {"hard_batch_norm": "separate", "selection": "last", "probability": 1.0}
    whole = train_phase(3, chain, output_dir=str(tmp_path / "whole"), max_epochs=2, **options)
    for epochs in (1, 2):
        parts = train_phase(3, chain, output_dir=str(tmp_path / "parts"), max_epochs=epochs, **options)
    first, second, ordinary = (
        torch.load(folder / "models" / "model.pt", weights_only=True) for folder in (whole, parts, chain.phase3)
    )
    assert first.keys() == ordinary.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    kept = [
        torch.load(folder / "checkpoints" / "checkpoint_epoch=2.pt", weights_only=True)["hard_affine"]
        for folder in (whole, parts)
    ]
    assert kept[0].keys() == kept[1].keys()
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])
    network = torch.load(whole / "checkpoints" / "checkpoint_epoch=2.pt", weights_only=True)["model"]
    assert not torch.equal(kept[0]["weights.0"], network["stem.0.1.weight"])
