"""Tracking on a real ``mlflow server`` on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import torch

from mixstyleflow_monai import pipeline
from mixstyleflow_monai.data import Task
from mixstyleflow_monai.engines import DualDecoderTrainer, load_network
from mixstyleflow_monai.networks import DualDecoderNet
from tests.small_dataset import make_dataset
from tests.tracking.test_bundles import PHASE1, artifacts, runs
from tests.tracking.test_store import free_port

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def server(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A server with an SQLite database, which `MLFLOW_TRACKING_URI` names; killed at the end with its workers."""
    shutil.copy(empty_database, tmp_path / "server.db")
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    places = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", f"{tmp_path}/kept"]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
            *places,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=tmp_path,
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    try:
        for _ in range(240):
            try:
                if requests.get(f"{uri}/health", timeout=1).ok:
                    break
            except requests.RequestException:
                assert process.poll() is None, "the server ended at once"
                time.sleep(0.25)
        else:
            pytest.fail("the server did not answer within a minute")
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a server and its workers."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_run_is_tracked_on_a_server_and_survives_its_death(
    server: subprocess.Popen[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset, uri = make_dataset(tmp_path / "discs"), os.environ["MLFLOW_TRACKING_URI"]
    options: dict[str, Any] = {**PHASE1, "phases": 1, "tracking": "mlflow"}
    pipeline.run(str(dataset), str(tmp_path / "with spaces"), **options)
    found = runs(uri)
    assert {name: run.info.status for name, run in found.items()} == {
        "with spaces, seed 0": "FINISHED",
        "with spaces, seed 0, phase1": "FINISHED",
    }
    child = found["with spaces, seed 0, phase1"]
    assert {"dice/far/disc", "val_mean_dice"} <= set(child.data.metrics)
    assert "panels/epoch_0001.png" in artifacts(uri, child)
    assert not list((tmp_path / "with spaces").rglob("mlruns.db"))

    published = tmp_path / "with spaces" / "phase1" / "models" / "model.pt"
    eager = load_network(DualDecoderNet(**Task.from_model(published).network_settings()), published).eval()
    loaded = mlflow.pytorch.load_model(f"runs:/{child.info.run_id}/model")
    images = torch.rand((2, 1, 48, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), eager(images), rtol=0, atol=1e-4)

    # Now it dies in the first step of a training.
    original = DualDecoderTrainer._iteration

    def deadly(self: Any, engine: Any, batch: Any) -> Any:
        kill(server)
        return original(self, engine, batch)

    monkeypatch.setattr(DualDecoderTrainer, "_iteration", deadly)
    pipeline.run(str(dataset), str(tmp_path / "second"), **options)
    assert (tmp_path / "second" / "evaluation.json").is_file()
    # The bundle's logging.conf writes to the standard output, and takes the log from pytest.
    printed = capsys.readouterr().out
    assert "The work goes on" in printed
    assert "phase1 is not tracked: MLflow server" in printed
