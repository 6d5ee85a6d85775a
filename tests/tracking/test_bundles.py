"""Tracking as users switch it on: ``--tracking mlflow`` of a bundle and of ``run``."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import pytest
import torch
from monai.utils import set_determinism

from mixstyleflow_monai import pipeline
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir
from mixstyleflow_monai.engines import DualDecoderTrainer
from mixstyleflow_monai.tracking import Store, embedded_store
from tests.small_dataset import SMALL, make_dataset

PHASE1 = {name: value for name, value in SMALL.items() if not name.startswith("statistics")}


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "discs")


@pytest.fixture(autouse=True)
def _state_is_put_back() -> Iterator[None]:
    """A bundle sets seeds and logging for the whole process."""
    root = logging.getLogger()
    handlers, level, state = root.handlers[:], root.level, np.random.get_state()
    with torch.random.fork_rng():
        yield
    root.handlers[:], root.level = handlers, level
    set_determinism(seed=None)
    np.random.set_state(state)


def run_bundle(config: str, dataset_dir: Path, output_dir: Path, **options: Any) -> None:
    path = bundles_dir() / PHASE_BUNDLES[1] / "configs" / f"{config}.json"
    monai.bundle.run(
        config_file=str(path),
        logging_file=False,
        dataset_dir=str(dataset_dir),
        output_dir=str(output_dir),
        tracking="mlflow",
        **options,
    )


def runs(uri: str, experiment: str = "discs") -> dict[str, Any]:
    store = Store(uri)
    found = store.client.search_runs([store.experiment_id(experiment)])
    return {run.info.run_name: run for run in found}


def artifacts(uri: str, run: Any, path: str | None = None) -> set[str]:
    found: set[str] = set()
    for entry in Store(uri).client.list_artifacts(run.info.run_id, path):
        found |= artifacts(uri, run, entry.path) if entry.is_dir else {entry.path}
    return found


@pytest.mark.slow
def test_bundle_that_is_interrupted_resumed_and_evaluated_is_one_run(
    dataset_dir: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = embedded_store(folder)
    with monkeypatch.context() as patch:
        original = DualDecoderTrainer._iteration

        def interrupted(self: Any, engine: Any, batch: Any) -> Any:
            if engine.state.iteration == 4:
                raise KeyboardInterrupt
            return original(self, engine, batch)

        patch.setattr(DualDecoderTrainer, "_iteration", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_bundle("train", dataset_dir, folder, **{**PHASE1, "max_epochs": 2})
    (killed,) = runs(uri).values()
    assert (killed.info.status, killed.info.run_name) == ("KILLED", "phase 1, seed 0")

    run_bundle("train", dataset_dir, folder, **{**PHASE1, "max_epochs": 2})
    run_bundle("evaluate", dataset_dir, folder, show_table=False)
    # MONAI's own handlers, which would make a run of their own, are out of the way.
    (run,) = runs(uri).values()
    assert (run.info.run_id, run.info.status) == (killed.info.run_id, "FINISHED")
    curves = {"train_loss", "loss_segmentation", "val_mean_dice", "lr_group_0", "reconstruction_psnr"}
    assert curves | {"dice/far/disc", "unseen_mean_dice", "source_mean_dice"} <= set(run.data.metrics)
    assert run.data.params["seed"] == "0"
    found = artifacts(uri, run)
    assert {"panels/epoch_0001.png", "panels/epoch_0002.png", "models/model.manifest.json"} <= found
    assert {"tables/evaluation.json", "tables/evaluation.csv"} <= found
    # Two trainings and an evaluation; the first two within one second share a name.
    assert 2 <= len([path for path in found if path.startswith("configs/config_")]) <= 3
    assert len(run.outputs.model_outputs) == 1
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.slow
def test_two_runs_in_one_store_have_a_parent_each_and_resume_their_own(
    dataset_dir: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The model has a test of its own, and takes the longest.
    monkeypatch.setattr("mixstyleflow_monai.tracking.handlers.log_network", lambda *_: None)
    uri = embedded_store(folder)
    options = {**PHASE1, "tracking": "mlflow", "tracking_uri": uri, "phases": 1}

    def start(number: int) -> None:
        pipeline.run(str(dataset_dir), str(tmp_path / str(number) / "mine"), seed=4, **options)

    start(1)
    with monkeypatch.context() as patch:
        patch.setattr(DualDecoderTrainer, "_losses", lambda *_: (_ for _ in ()).throw(RuntimeError("no memory")))
        with pytest.raises(RuntimeError):
            start(2)
    parents = ["mine, seed 4", "mine, seed 4 (2)"]
    names = [*parents, *(f"{name}, phase1" for name in parents)]
    found = runs(uri)
    assert {name: run.info.status for name, run in found.items()} == dict(
        zip(names, ["FINISHED", "FAILED", "FINISHED", "FAILED"], strict=True)
    )
    start(2)
    start(1)
    again = runs(uri)
    assert {name: run.info.run_id for name, run in again.items()} == {n: r.info.run_id for n, r in found.items()}
    assert {run.info.status for run in again.values()} == {"FINISHED"}
    for parent in parents:
        child = again[f"{parent}, phase1"]
        assert child.data.tags["mlflow.parentRunId"] == again[parent].info.run_id
        value = child.data.metrics["unseen_mean_dice"]
        assert again[parent].data.metrics["phase1/unseen_mean_dice"] == value
    assert again[parents[0]].data.params["seed"] == "4"
    assert artifacts(uri, again[parents[0]]) == {
        f"tables/{name}" for name in ("evaluation.json", "evaluation.csv", "report.html")
    }


@pytest.mark.slow
def test_run_that_was_not_tracked_is_told_of_afterwards(
    dataset_dir: Path, tmp_path: Path, empty_database: Path
) -> None:
    output = tmp_path / "mine"
    pipeline.run(str(dataset_dir), str(output), phases=1, **PHASE1)
    shutil.copy(empty_database, output)
    pipeline.run(str(dataset_dir), str(output), phases=1, tracking="mlflow", **PHASE1)
    found = runs(embedded_store(output))
    child = found["mine, seed 0, phase1"]
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert child.data.params["batch_size"] == "4"
    assert "dice/far/disc" in child.data.metrics
    assert "panels/epoch_0001.png" in artifacts(embedded_store(output), child)


def test_deleted_experiment_and_dead_server_are_told_before_training(
    dataset_dir: Path, folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.client.delete_experiment(store.experiment_id("discs"))
    with pytest.raises(ValueError, match=r"experiment 'discs' .* was deleted"):
        pipeline.run(str(dataset_dir), str(folder), phases=1, tracking="mlflow", **PHASE1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"MLflow server http://127.0.0.1:9: no answer"):
        pipeline.run(str(dataset_dir), str(folder), phases=1, tracking="mlflow", **PHASE1)
    assert not (folder / "phase1").exists()
