"""MLflow tracking by MONAI's own switch."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def _no_server_and_no_telemetry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    yield
    while mlflow.active_run() is not None:
        mlflow.end_run()


@pytest.mark.slow
def test_trainings_are_tracked_with_parameters_and_curves_under_telling_names(
    chain: Any, train_phase: Callable[..., Path], empty_store: Path, tmp_path: Path
) -> None:
    store = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    key_metric = {1: "val_mean_dice", 2: "val_log_likelihood", 3: "val_mean_dice"}
    for phase in key_metric:
        folder = train_phase(phase, chain, tracking="mlflow", tracking_uri=store)
        assert [path.name for path in folder.glob("config_*.json")] != []
    client = mlflow.MlflowClient(store)
    experiment = client.get_experiment_by_name("ellipses_2d")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["phase 1, seed 0", "phase 2, seed 0", "phase 3, mixstyleflow, seed 0"]
    for phase, run in enumerate((runs[name] for name in sorted(runs)), start=1):
        assert run.info.status == "FINISHED"
        assert run.data.params["max_epochs"] == ("2" if phase == 2 else "1")
        assert {key_metric[phase], "train_loss"} <= set(run.data.metrics)
