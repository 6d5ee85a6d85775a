"""Tests of one run: remembered, resumed, never merged with another, never in the way of a training."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixstyleflow_monai.tracking import Store, TrackedRun, embedded_store
from mixstyleflow_monai.tracking.run import metric_name, status_after

Open = Callable[..., TrackedRun]


def history(store: Store, run: TrackedRun, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in store.client.get_metric_history(run.run_id, name)]


def test_same_folder_goes_on_with_its_run(open_run: Open, store: Store) -> None:
    first = open_run()
    first.finish("FAILED")
    assert store.client.get_run(first.run_id).info.status == "FAILED"
    again = open_run()
    assert (again.run_id, again.is_new) == (first.run_id, False)
    assert store.client.get_run(first.run_id).info.status == "RUNNING"


def test_other_folders_have_other_runs_and_other_names(open_run: Open, store: Store, tmp_path: Path) -> None:
    runs = [open_run("same name", tmp_path / part) for part in ("a", "b", "c")]
    assert [run.name for run in runs] == ["same name", "same name (2)", "same name (3)"]
    assert len({run.run_id for run in runs}) == 3
    # All three are unfinished, and each folder still has its own.
    assert open_run("same name", tmp_path / "b").run_id == runs[1].run_id


def test_new_training_leaves_a_finished_run_alone_but_goes_on_with_a_failed_one(open_run: Open) -> None:
    first = open_run()
    first.finish("KILLED")
    assert open_run(anew=True).run_id == first.run_id
    open_run().finish()
    assert open_run(anew=False).run_id == first.run_id
    open_run().finish()
    second = open_run(anew=True)
    assert (second.is_new, second.name) == (True, "first (2)")


@pytest.mark.parametrize("loss", ["database", "run", "record"])
def test_run_that_is_lost_is_made_anew(
    loss: str, open_run: Open, store: Store, folder: Path, empty_database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = open_run()
    first.finish("FAILED")
    if loss == "database":
        # In another place, because MLflow keeps the deleted file open; the record goes along.
        moved = folder.parent / "moved"
        moved.mkdir()
        shutil.copy(empty_database, moved / "mlruns.db")
        shutil.copy(folder / "mlruns.json", moved)
        second = TrackedRun.open(Store(embedded_store(moved)), "discs", "first", moved)
    elif loss == "run":
        store.client.delete_run(first.run_id)
        second = open_run()
    else:
        (folder / "mlruns.json").write_text("{broken")
        second = open_run()
    assert second.is_new
    assert second.run_id != first.run_id
    assert ("cannot be read" if loss == "record" else "a new run is made") in caplog.text


def test_folder_that_was_moved_keeps_its_run(open_run: Open, folder: Path) -> None:
    first = open_run()
    moved = shutil.copytree(folder, folder.parent / "elsewhere")
    assert TrackedRun.open(Store(embedded_store(moved)), "discs", "first", moved).run_id == first.run_id


def test_each_data_set_has_its_own_run_in_a_folder(store: Store, folder: Path) -> None:
    runs = {name: TrackedRun.open(store, name, "evaluation", folder).run_id for name in ("a", "b")}
    assert len(set(runs.values())) == 2
    assert TrackedRun.open(store, "a", "evaluation", folder).run_id == runs["a"]


def test_numbers_arrive_once_and_what_is_no_number_is_left_out(open_run: Open, store: Store) -> None:
    run = open_run()
    for step in range(1, 1203):  # more than one request may hold
        run.value("loss", 1 / step, step)
    run.values({"nothing": None, "endless": math.inf, "undefined": math.nan, "text": "x", "loss": 1 / 1202}, 1202)
    run.flush()
    run.flush()
    assert history(store, run, "loss") == [(step, 1 / step) for step in range(1, 1203)]
    assert set(store.client.get_run(run.run_id).data.metrics) == {"loss"}


def test_parameters_are_kept_and_a_changed_one_becomes_a_tag(open_run: Open, store: Store) -> None:
    run = open_run()
    run.parameters({"seed": 3, "levels": [2, 3], **{f"p{k}": k for k in range(150)}})
    run.parameters({"seed": 3, "levels": [2]})
    data = store.client.get_run(run.run_id).data
    assert (data.params["seed"], data.params["levels"], data.params["p149"]) == ("3", "[2, 3]", "149")
    assert {name: text for name, text in data.tags.items() if name.startswith("resumed.")} == {"resumed.levels": "[2]"}


def test_files_land_in_the_output_folder_whatever_its_name(open_run: Open, folder: Path) -> None:
    (folder / "table ü.csv").write_text("x")
    run = open_run()
    run.files([folder / "table ü.csv", folder / "absent.csv"], "tables")
    found = [path.relative_to(folder / "mlruns").parts[1:] for path in (folder / "mlruns").rglob("*.csv")]
    assert found == [("artifacts", "tables", "table ü.csv")]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_failing_store_costs_a_warning_and_values_are_sent_when_it_is_back(
    open_run: Open, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_run()
    with monkeypatch.context() as patch:

        def broken(*_: Any, **__: Any) -> None:
            raise OSError("connection refused")

        for name in ("log_batch", "log_artifact", "set_terminated"):
            patch.setattr(store.client, name, broken)
        for step in range(1, 4):
            run.value("loss", step, step)
            run.flush()
        run.files([Path(__file__)])
    assert [record.levelno for record in caplog.records if "connection refused" in record.message] == [logging.WARNING]
    run.finish()
    assert history(store, run, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert store.client.get_run(run.run_id).info.status == "FINISHED"


def test_run_that_cannot_be_ended_says_what_is_missing(
    open_run: Open, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_run()
    run.value("loss", 1.0, 1)
    with monkeypatch.context() as patch:
        for name in ("log_batch", "set_terminated"):
            patch.setattr(store.client, name, lambda *_, **__: (_ for _ in ()).throw(OSError("gone")))
        run.finish()
    assert "is incomplete (1 values not sent)" in caplog.text


@pytest.mark.parametrize("text", ["dice/Üni/cup", "a:b", "..", "a//b", "x/../y", "50 %", "a" * 400, " lead", "(1)"])
def test_any_name_becomes_one_that_mlflow_takes(text: str, open_run: Open, store: Store) -> None:
    run = open_run()
    run.value(text, 1.0, 1)
    run.finish()
    assert list(store.client.get_run(run.run_id).data.metrics) == [metric_name(text)]
    assert metric_name("dice/Üni/cup") == "dice/Üni/cup"


def test_only_an_interrupt_counts_as_killed() -> None:
    assert [status_after(error) for error in (KeyboardInterrupt(), RuntimeError())] == ["KILLED", "FAILED"]


def test_record_holds_no_password(store: Store, folder: Path) -> None:
    store.name, store.uri = "http://host:5000", "http://me:secret@host:5000"
    TrackedRun.open(store, "discs", "first", folder)
    text = (folder / "mlruns.json").read_text()
    assert "secret" not in text
    assert json.loads(text)["runs"][0]["store"] == "http://host:5000"
