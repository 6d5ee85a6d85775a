"""One MLflow run: opened or found again, filled without ever stopping a training, and ended."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixstyleflow_monai.artifacts import git_commit, write_json
from mixstyleflow_monai.tracking.store import Store, brief_retries

if TYPE_CHECKING:
    from mlflow.entities import Metric

logger = logging.getLogger(__name__)
RECORD = "mlruns.json"
BATCH, PARAMETERS = 1000, 100  # what MLflow takes in one request
KEPT_VALUES = 100_000
PAUSE_SECONDS = 30.0


class TrackedRun:
    """A run of a store. Once it is open a failing store costs a warning, and never the training.

    Values are sent in batches by `flush`; those that could not be sent are kept and sent later, the last 100,000.

    Args:
        store: where it is.
        run_id: of a run that exists.
        name: for messages.
        is_new: whether it was made just now.
        started: when it was made, in seconds from 1970.
    """

    def __init__(self, store: Store, run_id: str, name: str, *, is_new: bool = False, started: float = 0.0) -> None:
        self.store = store
        self.run_id = run_id
        self.name = name
        self.is_new = is_new
        self.started = started
        self.is_open = True
        self.failed_at: float | None = None
        self._values: deque[Metric] = deque(maxlen=KEPT_VALUES)
        self._last: dict[str, tuple[int, float]] = {}
        self._sent: set[tuple[str, int]] = set()

    @classmethod
    def open(
        cls,
        store: Store,
        experiment: str,
        name: str,
        folder: str | os.PathLike[str],
        *,
        parent_id: str | None = None,
        anew: bool = False,
    ) -> TrackedRun:
        """Go on with the run that an output folder remembers, or make one and remember it.

        The ids are in ``mlruns.json``. A name is never looked for: runs of the same name in other folders are others.

        Args:
            store: where to look.
            experiment: name of the experiment.
            name: of a new run; with a number behind it if another run has it.
            folder: output folder.
            parent_id: run that a new run is a part of.
            anew: whether a finished run is left alone, because this is the start of another training.
        """
        experiment_id = store.experiment_id(experiment)
        found = remembered(store, experiment, folder)
        if found is not None and not (anew and found["status"] == "FINISHED"):
            with brief_retries():
                store.client.update_run(found["run_id"], status="RUNNING")
                started = (store.client.get_run(found["run_id"]).info.start_time or 0) / 1000
            logger.info("MLflow: going on with run %r (%s)", found["run_name"], found["run_id"])
            return cls(store, found["run_id"], found["run_name"], started=started)
        path = Path(folder) / RECORD
        with brief_retries():
            free = free_name(store, experiment_id, name)
            tags = {
                "mlflow.source.name": "mixstyleflow_monai",
                "mlflow.source.git.commit": (git_commit() or "").rstrip("+"),
                "mlflow.parentRunId": parent_id,
            }
            tags = {name: text for name, text in tags.items() if text}
            run_id = store.client.create_run(experiment_id, run_name=free, tags=tags).info.run_id
        entry = {"experiment": experiment, "run_id": run_id, "run_name": free, "store": store.name}
        write_json(path, {"format": 1, "runs": [*_entries(path), entry]})
        return cls(store, run_id, free, is_new=True, started=time.time())

    def value(self, name: str, value: Any, step: int) -> None:
        """Keep a number for `flush`; what is not a finite number, or was kept for this step already, is left out."""
        from mlflow.entities import Metric

        if value is None or isinstance(value, str | bool) or not hasattr(value, "__float__"):
            return
        number = float(value)
        key = metric_name(name)
        if math.isfinite(number) and self._last.get(key) != (step, number):
            self._last[key] = (step, number)
            self._values.append(Metric(key, number, int(time.time() * 1000), step))

    def values(self, values: Mapping[str, Any], step: int) -> None:
        """Keep several numbers for `flush`."""
        for name, value in values.items():
            self.value(name, value, step)

    def flush(self) -> None:
        """Send what is kept. After a failure the next attempt waits half a minute."""
        if self.failed_at is not None and time.monotonic() - self.failed_at < PAUSE_SECONDS:
            return
        while self._values:
            batch = [self._values[k] for k in range(min(BATCH, len(self._values)))]
            if not self._attempt(self.store.client.log_batch, self.run_id, metrics=batch):
                return
            for _ in batch:
                self._values.popleft()

    def parameters(self, parameters: Mapping[str, Any]) -> None:
        """Log parameters. MLflow's are written once: one that differs on a resume becomes a tag ``resumed.NAME``."""
        from mlflow.entities import Param, RunTag

        texts = {metric_name(name): _text(value) for name, value in parameters.items()}

        def log() -> None:
            client = self.store.client
            known = client.get_run(self.run_id).data.params
            new = [Param(name, text) for name, text in texts.items() if name not in known]
            for start in range(0, len(new), PARAMETERS):
                client.log_batch(self.run_id, params=new[start : start + PARAMETERS])
            changed = [RunTag(f"resumed.{n}", t) for n, t in texts.items() if n in known and known[n] != t]
            if changed:
                client.log_batch(self.run_id, tags=changed[:PARAMETERS])

        self._attempt(log)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        for name, text in tags.items():
            self._attempt(self.store.client.set_tag, self.run_id, name, text)

    def files(self, paths: Iterable[Path], artifact_path: str | None = None) -> None:
        """Upload the files that exist and were not uploaded in their present form."""
        for path in paths:
            if not path.is_file():
                continue
            form = (f"{artifact_path}/{path}", path.stat().st_mtime_ns)
            if form not in self._sent and self._attempt(
                self.store.client.log_artifact, self.run_id, str(path), artifact_path
            ):
                self._sent.add(form)

    def call(self, action: Callable[[TrackedRun], Any]) -> None:
        """Do anything else with the run under the same protection."""
        self._attempt(action, self)

    def finish(self, status: str = "FINISHED") -> None:
        """End the run with what is left to send.

        Args:
            status: "FINISHED", "FAILED" or "KILLED".
        """
        if not self.is_open:
            return
        self.is_open = False
        self.failed_at = None
        self.flush()
        self._attempt(self.store.client.set_terminated, self.run_id, status)
        if self._values or self.failed_at is not None:
            logger.warning(
                "MLflow: run %r in %s is incomplete (%d values not sent). Nothing else is lost: what was trained is in "
                "the output folder.",
                self.name,
                self.store.name,
                len(self._values),
            )

    def _attempt(self, action: Callable[..., Any], *arguments: Any, **options: Any) -> bool:
        try:
            with brief_retries():
                action(*arguments, **options)
        except Exception as error:
            if self.failed_at is None:
                reason = next(iter(str(error).splitlines()), "")[:160]
                logger.warning(
                    "MLflow store %s: %s (%s). The work goes on; tracking is tried again.",
                    self.store.name,
                    type(error).__name__,
                    reason,
                )
            self.failed_at = time.monotonic()
            return False
        self.failed_at = None
        return True


def status_after(error: BaseException) -> str:
    """Return the status of a run that an exception ended."""
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"


def metric_name(text: str) -> str:
    """Return a name that MLflow takes for metrics and parameters: other signs become an underscore."""
    parts = [re.sub(r"[^\w.\- ]", "_", part).strip() or "_" for part in text.split("/")]
    return "/".join("_" if set(part) == {"."} else part for part in parts)[:250]


def free_name(store: Store, experiment_id: str, name: str) -> str:
    """Return ``name``, or ``name (2)`` and so on if an active run of the experiment has it."""
    name = name.replace('"', "'")
    taken: set[str] = set()
    token = None
    while True:
        page = store.client.search_runs(
            [experiment_id], f'attributes.run_name LIKE "{name}%"', max_results=1000, page_token=token
        )
        taken.update(str(run.info.run_name) for run in page)
        token = page.token
        if not token:
            break
    number = 2
    free = name
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free


def remembered(store: Store, experiment: str, folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return the run that a folder remembers for an experiment: ``run_id``, ``run_name``, ``status``; or None.

    A run that the store does not have, because its database was deleted or it is another server, is told in a warning.
    """
    path = Path(folder) / RECORD
    known = [entry for entry in _entries(path) if entry.get("experiment") == experiment]
    for entry in reversed(known):
        status = _status(store, str(entry["run_id"]))
        if status is not None:
            return {**entry, "status": status}
    if known:
        logger.warning(
            "MLflow: run %r, which %s remembers, is not in %s; a new run is made. Its curves start here.",
            known[-1]["run_name"],
            path,
            store.name,
        )
    return None


def _entries(path: Path) -> list[dict[str, Any]]:
    """Return the entries of ``mlruns.json``, none if it is absent or damaged."""
    if not path.is_file():
        return []
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
        return [{name: str(entry[name]) for name in ("experiment", "run_id", "run_name", "store")} for entry in runs]
    except (ValueError, KeyError, TypeError):
        logger.warning("%s: cannot be read, so a new MLflow run is made.", path)
        return []


def _status(store: Store, run_id: str) -> str | None:
    """Return the status of a run, None if the store has none of this id, or it was deleted."""
    from mlflow.exceptions import MlflowException

    with brief_retries():
        try:
            info = store.client.get_run(run_id).info
        except MlflowException:
            return None
    return str(info.status) if info.lifecycle_stage == "active" else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
