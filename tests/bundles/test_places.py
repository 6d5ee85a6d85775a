"""Where the bundles look for what they need and write what they make."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import pytest

from mixstyleflow_monai.artifacts import read_manifest
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def copied_bundles(chain: Any, tmp_path: Path) -> Path:
    """The three bundles in a folder of their own, with what phases 1 and 2 left in them."""
    bundles = tmp_path / "bundles"
    for phase, name in PHASE_BUNDLES.items():
        shutil.copytree(ROOT / "bundles" / name / "configs", bundles / name / "configs")
        if phase < 3:
            shutil.copytree(chain.output(phase) / "models", bundles / name / "models")
    return bundles


@pytest.mark.parametrize("phase", [2, 3])
def test_artifacts_are_found_in_the_bundle_beside(
    phase: int, copied_bundles: Path, chain: Any, small: dict[int, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the habit of the Model Zoo: started inside the bundle's folder, without any path but the data set's."""
    bundle = copied_bundles / PHASE_BUNDLES[phase]
    artifact = bundle / "models" / ("style_flows.pt" if phase == 2 else "model.pt")
    artifact.unlink(missing_ok=True)
    monkeypatch.chdir(bundle)
    monai.bundle.run(
        config_file="configs/train.json", logging_file=False, dataset_dir=str(chain.dataset), **small[phase]
    )
    assert read_manifest(artifact)["phase"] == phase


@pytest.mark.slow
def test_bundle_runs_from_another_working_directory(
    copied_bundles: Path, chain: Any, small: dict[int, dict[str, Any]], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    config = copied_bundles / PHASE_BUNDLES[3] / "configs" / "train.json"
    options = [part for name, value in small[3].items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(config)]
    finished = subprocess.run(
        [*command, "--dataset_dir", str(chain.dataset), *options],
        cwd=elsewhere,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert read_manifest(copied_bundles / PHASE_BUNDLES[3] / "models" / "model.pt")["method"] == "mixstyleflow"
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_output_folder_may_have_spaces_and_other_letters(
    phase: int, chain: Any, train_phase: Callable[..., Path], run_bundle: Callable[..., None], tmp_path: Path
) -> None:
    folder = train_phase(phase, chain, output_dir=str(tmp_path / "Größe 96 – Übung" / "phase"))
    artifact = folder / "models" / ("style_flows.pt" if phase == 2 else "model.pt")
    assert read_manifest(artifact)["phase"] == phase
    run_bundle(phase, "inference", dataset_dir=str(chain.dataset), output_dir=str(folder))
    assert any((folder / ("styles" if phase == 2 else "predictions")).iterdir())


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_nothing_is_written_outside_the_output_folder(
    phase: int, chain: Any, train_phase: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def files() -> set[Path]:
        folders = [ROOT / "bundles", chain.dataset, chain.phase1, chain.phase2, work]
        return {path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts}

    before = files()
    train_phase(phase, chain)
    assert files() == before
