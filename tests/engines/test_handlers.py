"""Tests of the Ignite handlers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from mixstyleflow_monai.artifacts import read_manifest
from mixstyleflow_monai.engines import (
    BestModel,
    PublishModel,
    ResumableCheckpoint,
    ResumeCheckpoint,
    latest_checkpoint,
    load_network,
    save_state_dict,
)


def engine_with(metric: float | None, epoch: int) -> Any:
    metrics = {} if metric is None else {"val": metric}
    return SimpleNamespace(state=SimpleNamespace(key_metric_name="val", metrics=metrics, epoch=epoch))


def saved_weight(path: Path) -> float:
    return float(torch.load(path, weights_only=True)["weight"].flatten()[0])


def set_weight(module: nn.Linear, value: float) -> None:
    nn.init.constant_(module.weight, value)


def test_best_model_keeps_the_best_and_survives_a_resume(tmp_path: Path) -> None:
    network = nn.Linear(1, 1)
    best = BestModel(network, tmp_path / "best.pt")
    for epoch, metric in enumerate([0.5, 0.8, 0.7], start=1):
        set_weight(network, float(epoch))
        best(engine_with(metric, epoch))
    assert saved_weight(tmp_path / "best.pt") == 2.0
    resumed = BestModel(network, tmp_path / "best.pt")
    resumed.load_state_dict(best.state_dict())
    set_weight(network, 4.0)
    resumed(engine_with(0.75, 4))
    assert saved_weight(tmp_path / "best.pt") == 2.0
    resumed(engine_with(0.9, 5))
    assert saved_weight(tmp_path / "best.pt") == 4.0


@pytest.mark.parametrize("metric", [None, float("nan")])
def test_best_model_ignores_a_missing_metric(tmp_path: Path, metric: float | None) -> None:
    BestModel(nn.Linear(1, 1), tmp_path / "best.pt")(engine_with(metric, 1))
    assert not (tmp_path / "best.pt").exists()


@pytest.mark.parametrize(("selection", "expected"), [("best", 1.0), ("last", 2.0)])
def test_publish_writes_the_selected_weights_and_a_manifest(tmp_path: Path, selection: str, expected: float) -> None:
    network = nn.Linear(1, 1)
    best = BestModel(network, tmp_path / "best.pt")
    set_weight(network, 1.0)
    best(engine_with(0.5, 1))
    set_weight(network, 2.0)
    publish = PublishModel(
        tmp_path / "models" / "model.pt",
        "segmentation_network",
        network,
        best,
        facts={"seed": 3},
        selection=selection,
    )
    publish(engine_with(0.4, 2))
    assert saved_weight(tmp_path / "models" / "model.pt") == expected
    manifest = read_manifest(tmp_path / "models" / "model.pt", kind="segmentation_network")
    assert manifest["seed"] == 3
    assert manifest["checkpoint"]["selection"].startswith(selection)


def test_publish_refuses_an_unknown_selection(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="selection='target'"):
        PublishModel(tmp_path / "model.pt", "segmentation_network", nn.Linear(1, 1), selection="target")


def test_latest_checkpoint_is_the_highest_epoch(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for name in ("checkpoint_epoch=9.pt", "checkpoint_epoch=10.pt", "best.pt"):
        (tmp_path / name).touch()
    assert latest_checkpoint(tmp_path) == str(tmp_path / "checkpoint_epoch=10.pt")


def test_checkpoint_before_stays_until_the_next_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Linear(1, 1)
    engine = Engine(lambda engine, batch: None)
    ResumableCheckpoint(str(tmp_path), {"model": network}, save_interval=1, n_saved=1).attach(engine)
    save = torch.save

    def stopped(content: Any, stream: Any) -> None:
        if engine.state.epoch == 3:
            stream.write(b"half")
            raise KeyboardInterrupt
        save(content, stream)

    monkeypatch.setattr(torch, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        engine.run([0], max_epochs=4)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_epoch=2.pt"]
    assert torch.load(tmp_path / "checkpoint_epoch=2.pt", weights_only=True)["trainer"]["iteration"] == 2


def test_checkpoint_of_the_process_before_goes_with_the_next_save(tmp_path: Path) -> None:
    network = nn.Linear(1, 1)
    for epochs in (2, 3):
        engine = Engine(lambda engine, batch: None)
        last = latest_checkpoint(tmp_path)
        if last:
            ResumeCheckpoint(last, {"model": network}).attach(engine)
        ResumableCheckpoint(str(tmp_path), {"model": network}, save_interval=1, n_saved=1).attach(engine)
        engine.run([0], max_epochs=epochs)
        assert [path.name for path in tmp_path.iterdir()] == [f"checkpoint_epoch={epochs}.pt"]


def test_load_network_round_trip(tmp_path: Path) -> None:
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    save_state_dict(source, tmp_path / "model.pt")
    load_network(target, tmp_path / "model.pt")
    torch.testing.assert_close(target.weight, source.weight)


def test_load_network_names_the_differences(tmp_path: Path) -> None:
    save_state_dict(nn.Linear(2, 3), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model.pt: weights of another network.*file \(3, 2\), network \(4, 2\)"):
        load_network(nn.Linear(2, 4), tmp_path / "model.pt")


def test_load_network_names_a_missing_and_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model.pt: no such file"):
        load_network(nn.Linear(2, 3), tmp_path / "model.pt")
    (tmp_path / "model.pt").write_text("not weights")
    with pytest.raises(ValueError, match=r"model.pt: cannot be read as PyTorch weights"):
        load_network(nn.Linear(2, 3), tmp_path / "model.pt")


def test_publishing_warns_where_the_best_was_asked_for_and_nothing_was_validated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = nn.Linear(1, 1)
    PublishModel(tmp_path / "model.pt", "segmentation_network", network, BestModel(network, tmp_path / "best.pt"))(
        engine_with(0.5, 1)
    )
    assert "no validation was run in 1 epochs" in caplog.text
