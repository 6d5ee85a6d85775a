"""Where runs are kept: MONAI's switch, the embedded database of an output folder, or a tracking server."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mixstyleflow_monai.processes import is_first

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Where they are not set by the user. MLflow would otherwise try again for minutes, while a training waits.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
REACHABLE_SECONDS = 5.0
REMEDY = "Start it, mend MLFLOW_TRACKING_URI or --tracking_uri, or leave --tracking away."


def embedded_store(output_dir: str | os.PathLike[str]) -> str:
    """Return the tracking URI of the database of an output folder, ``mlruns.db``; nothing is made.

    Only what has a meaning in a URI is quoted: MLflow makes a stray folder of the name as it stands in the URI, so that
    a space is better left alone than written as %20, as MONAI's `path_to_sqlite_uri` does.
    """
    path = (Path(output_dir) / "mlruns.db").absolute().as_posix()
    return f"sqlite:///{path.replace('%', '%25').replace('?', '%3F')}"


def is_requested(save_execute_config: object) -> bool:
    """Tell whether this process is to track: ``--tracking`` was given, and it is the first of its group.

    Args:
        save_execute_config: the configuration value of that name. A configuration file holds ``true`` or ``false``;
            with ``--tracking`` MONAI puts the path of the executed configuration in its place, or null.
    """
    return not isinstance(save_execute_config, bool) and is_first()


def check_store(tracking_uri: str, save_execute_config: object) -> None:
    """Refuse a store that cannot be used, before anything else is done; does nothing where tracking is off.

    Args:
        tracking_uri: see `Store`.
        save_execute_config: see `is_requested`.

    Raises:
        ValueError: see `Store`.
    """
    if is_requested(save_execute_config):
        Store(tracking_uri)


class Store:
    """An MLflow tracking store that was reachable a moment ago.

    Args:
        tracking_uri: ``sqlite:///...`` or the address of a server; the environment variable ``MLFLOW_TRACKING_URI``
            comes first, as everywhere in MLflow and MONAI.

    Raises:
        ValueError: MLflow is not installed, the URI is of another kind or holds a password, or the store cannot be
            reached or read.
    """

    def __init__(self, tracking_uri: str) -> None:
        given = urlsplit(tracking_uri)
        if "@" in given.netloc:
            # Exported and uploaded with the configuration it would be read by others.
            raise ValueError(
                f"tracking_uri of {given.hostname}: holds a user name or a password, which the saved configuration "
                "would show. Give the address without, and the environment variables MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD."
            )
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking_uri
        # A server's address may hold a password, which belongs neither in messages nor in files.
        parts = urlsplit(self.uri)
        self.name = self.uri.replace(f"{parts.netloc.rpartition('@')[0]}@", "") if "@" in parts.netloc else self.uri
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise ValueError(f"--tracking mlflow needs MLflow ({error}): pip install mlflow") from error
        if "://" not in self.uri or self.uri.startswith("file:"):
            raise ValueError(
                f"tracking_uri={self.uri!r}: MLflow keeps runs in a database or on a server. Give "
                "sqlite:///PATH/NAME.db or http://HOST:PORT, or leave it away for mlruns.db in the output folder."
            )
        self.check_reachable()
        with brief_retries():
            try:
                self.client: MlflowClient = MlflowClient(self.uri)
            except Exception as error:
                raise ValueError(f"MLflow store {self.name}: cannot be opened ({_first_line(error)}).") from error

    @property
    def database(self) -> Path | None:
        """The file of an SQLite store."""
        if not self.uri.startswith("sqlite:///"):
            return None
        return Path(unquote(self.uri.removeprefix("sqlite:///").partition("?")[0])).absolute()

    def check_reachable(self) -> None:
        """Raise a ValueError if the server does not answer or the database cannot be written, in seconds."""
        if self.uri.startswith(("http://", "https://")):
            import requests

            try:
                # Any answer will do: a proxy may know no /health.
                requests.get(self.uri.rstrip("/") + "/health", timeout=REACHABLE_SECONDS)
            except requests.RequestException as error:
                raise ValueError(f"MLflow server {self.name}: no answer ({type(error).__name__}). {REMEDY}") from error
        elif self.database is not None:
            try:
                self.database.parent.mkdir(parents=True, exist_ok=True)
                with closing(sqlite3.connect(self.database)) as connection:
                    connection.execute("PRAGMA schema_version").fetchone()
                if not os.access(self.database, os.W_OK):
                    raise PermissionError("no permission to write")
            except (OSError, sqlite3.Error) as error:
                raise ValueError(f"MLflow database {self.database}: cannot be written ({error}). {REMEDY}") from error

    def experiment_id(self, name: str) -> str:
        """Return the id of an experiment, which is made if there is none.

        Raises:
            ValueError: the experiment was deleted, or the store fails.
        """
        from mlflow.exceptions import MlflowException

        with brief_retries():
            try:
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    try:
                        return str(self.client.create_experiment(name, artifact_location=self._artifact_location()))
                    except MlflowException:  # another process was faster
                        found = self.client.get_experiment_by_name(name)
                        if found is None:
                            raise
            except Exception as error:
                raise ValueError(f"MLflow store {self.name}: {_first_line(error)}") from error
        if found.lifecycle_stage != "active":
            raise ValueError(
                f"MLflow experiment {name!r} in {self.name} was deleted. Bring it back with `mlflow "
                f"experiments restore --experiment-id {found.experiment_id}`, or give another --experiment_name."
            )
        return str(found.experiment_id)

    def _artifact_location(self) -> str | None:
        """Return the folder beside an SQLite database; a server decides for itself.

        MONAI's default quotes the path twice, so that artifacts of a folder with a space go astray.
        """
        return None if self.database is None else (self.database.parent / "mlruns").as_uri()


@contextmanager
def brief_retries() -> Iterator[None]:
    """Let MLflow give up on a dead server in seconds inside this block, unless the user set it otherwise."""
    added = {name: value for name, value in PATIENCE.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _first_line(error: Any) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
