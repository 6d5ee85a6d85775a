"""The paper's settings on small data of both kinds, volumes of sites and colour images: steps counted, one trained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mixstyleflow_monai.artifacts import read_manifest
from mixstyleflow_monai.benchmark import PRESETS, benchmark
from tests.bundles.conftest import make_dataset

# The source has three training cases, of volumes with three slices each; with ten slices a step that is one an epoch.
STEPS = {"paper-prostate": (600, 1600), "paper-fundus": (600, 100)}


@pytest.mark.parametrize("name", PRESETS)
def test_steps_are_the_papers_epochs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make_dataset(tmp_path / "sites", 3 if name == "paper-prostate" else 2)
    options: dict[str, Any] = {"preset": name, "seeds": (0, 1), "dry_run": True, "seconds_per_step": 0.1}
    options |= {"sources": "site_a"} if name == "paper-fundus" else {}
    assert benchmark(str(dataset), str(tmp_path / "out"), **options) == 0
    text = capsys.readouterr().out
    first, third = STEPS[name]
    assert f"source site_a: {first} steps of Phase I, {third} of each method" in text
    cells = len(PRESETS[name].methods) * 2
    assert f"in all {2 * first} steps of Phase I and {cells * third} of methods" in text
    hours = (0.5 * 2 * first + cells * third) * 0.1 / 3600
    assert re.search(rf"about {hours:.1f} hours at 0\.1 s a step", text)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_step_of_every_phase_trains_in_the_papers_settings(name: str, tmp_path: Path) -> None:
    volumes = name == "paper-prostate"
    dataset = make_dataset(tmp_path / "sites", 3 if volumes else 2)
    short = {"max_epochs": 1, "epoch_length": 1, "image_size": [32, 32], "batch_size": 4, "phase2:batch_size": 2}
    out = tmp_path / "out"
    options: dict[str, Any] = {**short, "preset": name, "methods": "paper_styles", "tracking": "none", "seeds": 0}
    options |= {} if volumes else {"sources": "site_a"}
    assert benchmark(str(dataset), str(out), **options) == 0
    table = pd.read_csv(out / "benchmark.csv")
    assert list(table["method"]) == ["Phase I", "paper_styles"]
    scores = table["source, shifted"].astype(float)
    assert scores.between(0, 100).all(), "of the source, for images of either kind"
    folder = out / "site_a" / "seed0"
    settings = read_manifest(folder / "paper_styles" / "models" / "model.pt")["settings"]
    assert (settings["stylized_output"], settings["probability"], settings["weight_law"]) == ("decoded", 1.0, "uniform")
    task = read_manifest(folder / "phase1" / "models" / "model.pt")["task"]
    assert task["image_size"] == [32, 32]
    if volumes:
        assert task["pixel_spacing"] is None, "whole slices, as the paper has them; the default resamples"
