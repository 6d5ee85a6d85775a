"""Tests of the store: where it is, and what is refused."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mixstyleflow_monai.tracking import Store, check_store, embedded_store, is_requested
from mixstyleflow_monai.tracking.store import PATIENCE, brief_retries


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("name", ["plain", "sp ace", "ä ☃", "50%", "a%20b", "a#b", "a?b", "it's"])
def test_embedded_store_is_in_the_output_folder_whatever_its_name(name: str, tmp_path: Path) -> None:
    store = Store.__new__(Store)
    store.uri = embedded_store(tmp_path / name)
    assert store.database == tmp_path / name / "mlruns.db"


@pytest.mark.parametrize(("value", "expected"), [(True, False), (False, False), (None, True), ("runs/c.json", True)])
def test_tracking_is_on_where_monai_replaced_the_switch(value: object, expected: bool) -> None:
    assert is_requested(value) is expected


def test_nothing_is_made_while_tracking_is_off(tmp_path: Path) -> None:
    check_store(embedded_store(tmp_path / "out"), True)
    assert list(tmp_path.iterdir()) == []


def test_server_that_does_not_answer_is_one_message_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    with pytest.raises(ValueError, match=rf"MLflow server http://127.0.0.1:{port}: no answer .*leave --tracking") as e:
        check_store("sqlite:///runs.db", None)
    assert "secret" not in str(e.value)


def test_password_in_an_option_is_refused_since_options_are_saved() -> None:
    with pytest.raises(ValueError, match=r"tracking_uri of host: holds a user name .*MLFLOW_TRACKING_PASSWORD") as e:
        Store("http://me:secret@host:5000")
    assert "secret" not in str(e.value)


def test_environment_variable_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ValueError, match="MLflow server http://127"):
        Store(embedded_store(tmp_path))


@pytest.mark.parametrize("uri", ["file:///tmp/runs", "runs/mlruns"])
def test_folders_are_refused_as_stores(uri: str) -> None:
    with pytest.raises(ValueError, match=r"tracking_uri='.*': MLflow keeps runs in a database or on a server"):
        Store(uri)


def test_file_that_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlruns.db").write_text("this is a text, and long enough to be told from an empty database\n" * 20)
    with pytest.raises(ValueError, match=r"mlruns.db: cannot be written .*not a database"):
        Store(embedded_store(tmp_path))


def test_deleted_experiment_is_refused_with_the_command_that_restores_it(store: Store) -> None:
    number = store.experiment_id("discs")
    assert store.experiment_id("discs") == number
    store.client.delete_experiment(number)
    with pytest.raises(ValueError, match=rf"experiment 'discs' .* deleted.*restore --experiment-id {number}"):
        store.experiment_id("discs")


def test_short_patience_leaves_the_users_own_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    retries, timeout = PATIENCE
    monkeypatch.setenv(retries, "9")
    monkeypatch.delenv(timeout, raising=False)
    with brief_retries():
        assert (os.environ[retries], os.environ[timeout]) == ("9", PATIENCE[timeout])
    assert os.environ[retries] == "9"
    assert timeout not in os.environ
