"""Tests of the comparison with flows that know the unseen domains."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import methods, unseen_styles
from benchmarks.methods import RECIPE
from benchmarks.unseen_styles import CELLS, UNSEEN, check_flows, main, prepare, report
from mixstyleflow_monai.artifacts import read_manifest, write_json
from mixstyleflow_monai.benchmark.plan import BASELINE, Cell
from mixstyleflow_monai.data import load_dataset
from mixstyleflow_monai.engines.style_statistics import load_statistics
from mixstyleflow_monai.pipeline import run
from tests.small_dataset import SMALL


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
def derived(discs: Path, tmp_path: Path) -> Path:
    """Return a data set with the same cases in another file, as one derived for another source is."""
    shutil.copytree(discs, tmp_path / "derived")
    description = json.loads((tmp_path / "derived" / "dataset.json").read_text())
    write_json(tmp_path / "derived" / "dataset.json", {**description, "processing": {"made_by": "this test"}})
    return tmp_path / "derived"


@pytest.fixture
def prepared(finished_run: Path, derived: Path, tmp_path: Path) -> Path:
    """Return the folder of a seed whose Phase II has yet to fit flows to unseen domains."""
    shutil.copytree(finished_run / "phase1", tmp_path / "seed3" / "phase1")
    prepare(finished_run, tmp_path / "seed3", load_dataset(derived))
    return tmp_path / "seed3"


def test_flows_are_fitted_to_the_styles_of_unseen_domains_alone(
    prepared: Path, finished_run: Path, derived: Path
) -> None:
    path = prepared / "phase2" / "models" / "style_statistics.pt"
    before = path.read_bytes()
    # Of the settings of which `finished_run` is; what phase 2 does not take for its own it gathers anew.
    run(str(derived), str(prepared), phases=2, seed=3, **SMALL)
    assert path.read_bytes() == before
    check_flows(prepared)
    description = load_dataset(derived)
    assert read_manifest(path)["settings"]["dataset_sha256"] == description.sha256
    of_unseen, of_source = (load_statistics(file, "validation") for file in (path, own_statistics(finished_run)))
    level = min(of_source)
    assert not torch.allclose(of_unseen[level][0].mean(0), of_source[level][0].mean(0), atol=1e-3)

    flows = (prepared / "phase2" / "models" / "style_flows.pt").read_bytes()
    prepare(finished_run, prepared, description)
    assert (prepared / "phase2" / "models" / "style_flows.pt").read_bytes() == flows, "finished is left alone"


def test_flows_of_other_styles_are_told(prepared: Path, finished_run: Path, discs: Path) -> None:
    # As if another data set had been prepared for: phase 2 gathers the source's styles then.
    run(str(discs), str(prepared), phases=2, seed=3, **SMALL)
    with pytest.raises(RuntimeError, match="was not fitted to the unseen domains' styles"):
        check_flows(prepared)


def own_statistics(folder: Path) -> Path:
    """Return the styles of a run's Phase II."""
    return folder / "phase2" / "models" / "style_statistics.pt"


def test_table_sets_them_beside_methods_of_the_same_phase_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [
        record(BASELINE, 3, 70.0),
        record(RECIPE, 3, 74.0),
        record(RECIPE, 4, 10.0),  # a seed that was not trained
        record("permuted_flow_and_image_styles", 3, 20.0, phase1="b"),
    ]
    cells = [(Cell("home", r["request"]["method"], r["request"]["seed"]), r) for r in others]
    read = methods.finished
    monkeypatch.setattr(methods, "finished", lambda *folder: read(*folder) if folder else {("discs", 1.0): cells})
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


def test_what_is_not_there_is_told(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no comparison 'prostate_phantom_10', allowed: white_cells"):
        main(output=str(tmp_path), tasks="prostate_phantom_10")
    monkeypatch.setattr(unseen_styles, "dataset_of", lambda name, images, output: discs)
    with pytest.raises(FileNotFoundError, match=r"nuclei: no training of seed 3; benchmarks\.methods trains one"):
        main(output=str(tmp_path), tasks="nuclei")
