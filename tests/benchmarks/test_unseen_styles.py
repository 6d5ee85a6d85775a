"""Tests of the comparison with flows that know the unseen domains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import unseen_styles
from benchmarks.methods import RECIPE
from benchmarks.unseen_styles import CELLS, UNSEEN, main, prepare, report
from mixstyleflow_monai.artifacts import read_manifest, write_json
from mixstyleflow_monai.benchmark.plan import BASELINE, Cell
from mixstyleflow_monai.data import load_dataset
from mixstyleflow_monai.engines import style_statistics_file
from mixstyleflow_monai.engines.style_statistics import load_statistics


def record(method: str, seed: int, unseen: float, phase1: str = "a") -> dict[str, Any]:
    """Return a finished cell."""
    return {
        "request": {"source": "home", "method": method, "seed": seed, "train_fraction": 1.0},
        "dataset": "discs",
        "phase1_sha256": phase1,
        "roles": {"home": "source", "away": "unseen"},
        "dice": {"home": {"disc": {"a": 94.0}}, "away": {"disc": {"b": unseen - 1.0, "c": unseen + 1.0}}},
    }


@pytest.fixture
def prepared(finished_run: Path, discs: Path, tmp_path: Path) -> Path:
    """Return the folder of a seed whose Phase II has yet to fit flows to unseen domains."""
    prepare(finished_run, tmp_path / "seed3", load_dataset(discs))
    return tmp_path / "seed3"


def test_flows_are_given_the_styles_of_unseen_domains_alone(prepared: Path, finished_run: Path, discs: Path) -> None:
    path = prepared / "phase2" / "models" / "style_statistics.pt"
    own = finished_run / "phase2" / "models" / "style_statistics.pt"
    description = load_dataset(discs)
    unseen = [case for case in description.datalist("test") if case["domain"] != description.source_domain]
    passes = read_manifest(own)["settings"]["passes"]
    whole_batches = passes * (2 * len(unseen)) // read_manifest(own)["settings"]["batch_size"]
    level = min(load_statistics(own, "train"))
    mean, _ = load_statistics(path, "train")[level]
    assert len(mean) >= whole_batches > 0
    assert not torch.allclose(mean.mean(0), load_statistics(own, "train")[level][0].mean(0), atol=1e-3)
    assert not (prepared / "phase2" / "models" / "style_flows.pt").exists(), "they are yet to be fitted"
    assert (prepared / "phase1" / "models" / "model.pt").read_bytes() == (
        finished_run / "phase1" / "models" / "model.pt"
    ).read_bytes()


def test_phase_two_takes_these_styles_for_its_own(prepared: Path, finished_run: Path) -> None:
    models = prepared / "phase2" / "models"
    settings = read_manifest(finished_run / "phase2" / "models" / "style_statistics.pt")["settings"]
    assert read_manifest(models / "style_statistics.pt")["settings"] == settings
    before = (models / "style_statistics.pt").read_bytes()
    own = {name: settings[name] for name in ("levels", "passes", "noise_std", "seed", "batch_norm")}
    network: Any = None  # which would be asked for if they were to be gathered
    style_statistics_file(
        models / "style_statistics.pt",
        network=network,
        network_path=models / "model.pt",
        loaders={"train": network},
        device="cpu",
        facts={key: value for key, value in settings.items() if key not in own},
        **own,
    )
    assert (models / "style_statistics.pt").read_bytes() == before


def test_table_sets_them_beside_methods_of_the_same_phase_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [
        record(BASELINE, 3, 70.0),
        record(RECIPE, 3, 74.0),
        record(RECIPE, 4, 10.0),  # a seed that was not trained
        record("permuted_flow_and_image_styles", 3, 20.0, phase1="b"),
    ]
    cells = [(Cell("home", r["request"]["method"], r["request"]["seed"]), r) for r in others]
    monkeypatch.setattr(unseen_styles.methods, "finished", lambda: {("discs", 1.0): cells})
    write_json(tmp_path / "cell.json", record(RECIPE, 3, 75.0))
    header, _, row = report(tmp_path).splitlines()
    values = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert values["seeds"] == "3"
    assert (values["baseline"], values["permuted"]) == ("70.0", "-")
    assert (values["recipe"], values[UNSEEN]) == ("74.0", "75.0")
    assert values["to the baseline"].startswith("+5.0")
    assert row.endswith("+1.0 [+1.0, +1.0] |")


def test_committed_cells_are_told_apart_from_those_of_the_source_alone() -> None:
    paths = list(CELLS.glob("*.json"))
    assert paths
    assert {json.loads(path.read_text())["styles_of"] for path in paths} == {"unseen domains"}


def test_what_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no comparison 'prostate_phantom_10', allowed: white_cells"):
        main(output=str(tmp_path), tasks="prostate_phantom_10")
    write_json(tmp_path / "dataset.json", {"source_domain": "home"})
    monkeypatch.setattr(unseen_styles, "dataset_of", lambda name, images, output: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nuclei: no training of seed 3; benchmarks\.methods trains one"):
        main(output=str(tmp_path), tasks="nuclei")
