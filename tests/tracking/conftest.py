"""MLflow stores for tests: no server of the user's, no telemetry, and a database that is copied, because making one
takes seconds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mixstyleflow_monai.tracking import Store, TrackedRun, embedded_store


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs, to be copied."""
    folder = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Store(embedded_store(folder)).client.search_experiments()
    return folder / "mlruns.db"


@pytest.fixture
def folder(tmp_path: Path, empty_database: Path) -> Path:
    """An output folder with a space and another sign in its name, and an empty store."""
    path = tmp_path / "a run, ä"
    path.mkdir()
    shutil.copy(empty_database, path / "mlruns.db")
    return path


@pytest.fixture
def store(folder: Path) -> Store:
    """The store of that folder."""
    return Store(embedded_store(folder))


@pytest.fixture
def open_run(store: Store, folder: Path) -> Callable[..., TrackedRun]:
    """Open a run: name, folder of that name (default: the store's), options of `TrackedRun.open`."""

    def open_(name: str = "first", where: Path | None = None, **options: object) -> TrackedRun:
        return TrackedRun.open(store, "discs", name, where or folder, **options)  # type: ignore[arg-type]

    return open_
