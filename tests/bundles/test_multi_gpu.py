"""The bundles in two processes, started by torchrun as their READMEs say."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from mixstyleflow_monai.artifacts import read_manifest
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("rank_script.py")
ARTIFACT = {1: "models/model.pt", 2: "models/style_flows.pt", 3: "models/model.pt"}
RESUMED = {"selection": "last", "seed": 4}
# Twice as long as ever seen on two busy cores.
SECONDS = 240


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in two processes."""
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nnodes=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [*command, "--nproc_per_node=2", *arguments],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )


def files(phase: int, *names: str) -> list[str]:
    return [str(ROOT / "bundles" / PHASE_BUNDLES[phase] / "configs" / f"{name}.json") for name in names]


def jobs_in(folder: Path, volume_chain: Any, small: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """Trainings and evaluations in folders named after them."""
    jobs: list[dict[str, Any]] = []

    def add(name: str, phase: int, *overlays: str, error: str | None = None, **options: Any) -> None:
        settings = {**volume_chain.folders(phase), **small[phase], "output_dir": str(folder / name), **options}
        jobs.append(
            {"files": files(phase, "train", *overlays), "options": settings} | ({"error": error} if error else {})
        )

    options = RESUMED
    add("whole", 1, "multi_gpu_train", max_epochs=2, **options)
    add("parts", 1, "multi_gpu_train", max_epochs=1, **options)
    add("parts", 1, "multi_gpu_train", max_epochs=2, **options)
    add("phase3", 3, "multi_gpu_train")
    # What one process has begun.
    add("alone", 1, "multi_gpu_train", error="settings processes: was 1, now 2", max_epochs=2, **options)
    for phase in (1, 3):
        jobs.append(
            {
                "files": files(phase, "evaluate", "multi_gpu_evaluate"),
                "options": {
                    "dataset_dir": str(volume_chain.dataset),
                    "output_dir": str(folder / f"evaluation{phase}"),
                    "ckpt_path": str(volume_chain.output(phase) / "models" / "model.pt"),
                },
            }
        )
    return jobs


@pytest.fixture(scope="module")
def folder(
    run_bundle: Callable[..., None],
    volume_chain: Any,
    small: dict[int, dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder after all jobs were done in two processes, the training in ``alone`` begun in one."""
    place = tmp_path_factory.mktemp("two_processes")
    run_bundle(1, "train", output_dir=str(place / "alone"), **{**volume_chain.folders(1), **small[1], **RESUMED})
    (place / "jobs.json").write_text(json.dumps(jobs_in(place, volume_chain, small)))
    done = torchrun(str(SCRIPT), str(place / "jobs.json"))
    assert done.returncode == 0, done.stderr[-5000:]
    return place


def weights(path: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return loaded


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_processes_are_joined_before_anything_else_and_the_check_is_kept(phase: int, kind: str) -> None:
    base, overlay = (json.loads(Path(name).read_text()) for name in files(phase, kind, f"multi_gpu_{kind}"))
    begin = "leave_to_first_process()" if phase == 2 else "start_processes(@device)"
    assert overlay["initialize#0"] == f"$engines.{begin} or {base['initialize'][0].removeprefix('$')}"
    assert "check_computation" in base["initialize"][0]


@pytest.mark.slow
def test_training_leaves_what_one_process_leaves(folder: Path, volume_chain: Any) -> None:
    for phase, name in ((1, "whole"), (3, "phase3")):
        found = weights(folder / name / ARTIFACT[phase])
        expected = weights(volume_chain.output(phase) / ARTIFACT[phase])
        assert {key: value.shape for key, value in found.items()} == {k: v.shape for k, v in expected.items()}
        manifest = read_manifest(folder / name / ARTIFACT[phase])
        assert manifest["settings"]["processes"] == 2
        assert (folder / name / "panels" / "epoch_0001.png").is_file()
        assert len(list((folder / name / "checkpoints").glob("checkpoint_epoch=*.pt"))) == 1


@pytest.mark.slow
def test_resumed_training_of_two_processes_ends_with_the_weights_of_an_uninterrupted_one(folder: Path) -> None:
    whole, parts = (weights(folder / name / "models" / "model.pt") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.slow
def test_checkpoint_of_another_number_of_processes_is_refused(folder: Path) -> None:
    """The job itself compares the message."""
    assert read_manifest(folder / "alone" / "models" / "model.pt")["checkpoint"]["epoch"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("phase", [1, 3])
def test_evaluation_is_that_of_one_process(
    phase: int, folder: Path, volume_chain: Any, run_bundle: Callable[..., None], tmp_path: Path
) -> None:
    model = str(volume_chain.output(phase) / "models" / "model.pt")
    run_bundle(phase, "evaluate", dataset_dir=str(volume_chain.dataset), output_dir=str(tmp_path), ckpt_path=model)
    for name in ("evaluation.json", "evaluation.csv"):
        alone, together = ((place / name).read_text() for place in (tmp_path, folder / f"evaluation{phase}"))
        assert together == alone
    assert not pd.read_csv(tmp_path / "evaluation.csv").duplicated(["case_id", "region"]).any()


def documented(phase: int) -> list[list[str]]:
    """Commands with torchrun in a bundle's README."""
    text = (ROOT / "bundles" / PHASE_BUNDLES[phase] / "docs" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("torchrun ")]


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_readme_has_both_commands_with_files_that_exist(phase: int) -> None:
    commands = documented(phase)
    assert len(commands) == 2
    for command, kind in zip(commands, ("train", "evaluate"), strict=True):
        assert command[1:6] == ["--standalone", "--nnodes=1", "--nproc_per_node=2", "-m", "monai.bundle"]
        named = re.findall(r"'([^']+\.json)'", " ".join(command))
        assert [Path(name).stem for name in named] == [kind, f"multi_gpu_{kind}"]
        assert all((ROOT / name).is_file() for name in named)


@pytest.mark.slow
def test_flows_are_trained_by_one_of_the_processes_of_the_documented_command(
    volume_chain: Any, small: dict[int, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    values = {"DATASET": str(volume_chain.dataset), "PHASE1": str(volume_chain.phase1)}
    command = [values.get(part, part) for part in documented(2)[0][4:]]
    more = {**small[2], "output_dir": tmp_path, "phase1_dir": volume_chain.phase1}
    done = torchrun(*command, *(text for key, value in more.items() for text in (f"--{key}", str(value))))
    assert done.returncode == 0, done.stderr[-5000:]
    assert "rank 1: this phase is done by rank 0 alone" in done.stdout
    assert read_manifest(tmp_path / "models" / "style_flows.pt")["phase"] == 2


@pytest.mark.slow
def test_error_in_one_process_ends_both(volume_chain: Any, small: dict[int, dict[str, Any]], tmp_path: Path) -> None:
    failing = tmp_path / "failing.json"
    failing.write_text(json.dumps({"learning_rate": "$0.001 / (1 - processes.rank())"}))
    options = {**volume_chain.folders(1), **small[1], "output_dir": str(tmp_path / "out")}
    jobs = [{"files": [*files(1, "train", "multi_gpu_train"), str(failing)], "options": options}]
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    done = torchrun(str(SCRIPT), str(tmp_path / "jobs.json"))
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr
    assert not (tmp_path / "out" / "models").exists()
