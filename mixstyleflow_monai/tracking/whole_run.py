"""The parent run of ``python -m mixstyleflow_monai run``, with a child a phase."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from mixstyleflow_monai.tracking.contents import evaluation_values, software_parameters
from mixstyleflow_monai.tracking.handlers import adopt
from mixstyleflow_monai.tracking.run import TrackedRun, remembered, status_after
from mixstyleflow_monai.tracking.store import Store, embedded_store

logger = logging.getLogger(__name__)


class WholeRun:
    """A context manager: the run that all phases of one output folder belong to.

    Args:
        output_dir: folder of the whole run.
        experiment: name of the experiment.
        name: of the run, and the beginning of its children's names.
        parameters: what was asked for.
        tracking_uri: default: the database of the output folder.

    Raises:
        ValueError: the store cannot be used; see `Store`.
    """

    def __init__(
        self,
        output_dir: Path,
        experiment: str,
        name: str,
        parameters: Mapping[str, Any],
        tracking_uri: str | None = None,
    ) -> None:
        self.output_dir = output_dir
        self.experiment = experiment
        self.name = name
        self.parameters = parameters
        self.tracking_uri = tracking_uri or embedded_store(output_dir)
        self.store = Store(self.tracking_uri)
        self.store.experiment_id(experiment)
        self.run: TrackedRun | None = None

    def __enter__(self) -> WholeRun:
        """Open the run, the folder's own if it remembers one."""
        self.run = TrackedRun.open(self.store, self.experiment, self.name, self.output_dir)
        self.run.parameters({**self.parameters, **software_parameters()})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the run as FINISHED, FAILED or KILLED."""
        assert self.run is not None
        self.run.finish("FINISHED" if error is None else status_after(error))

    @contextmanager
    def phase(self, folder: Path) -> Iterator[dict[str, Any]]:
        """Yield the options with which `monai.bundle.run` tracks a phase in a child run.

        The folder remembers the child, and so the phase's own handlers go on in it. Where the store does not answer
        any more the options are empty, and the phase is not tracked.
        """
        child = self._child(folder)
        if child is None:
            yield {}
            return
        try:
            yield {
                "tracking": "mlflow",
                "tracking_uri": self.tracking_uri,
                "experiment_name": self.experiment,
                "run_name": child.name,
            }
        except BaseException as error:
            child.finish(status_after(error))
            raise

    def finished_phase(self, folder: Path, artifact: Path) -> None:
        """Complete the child of a phase that was done before, if it was not tracked to its end then."""
        child = self._child(folder, unless_finished=True)
        if child is not None:
            adopt(child, folder, artifact)

    def results(self, records: Mapping[str, Mapping[str, Any]], files: Sequence[Path]) -> None:
        """Log the evaluations side by side: ``phase3/unseen_mean_dice`` and so on, and the joint tables."""
        assert self.run is not None
        for name, record in records.items():
            self.run.values({f"{name}/{key}": value for key, value in evaluation_values(record).items()}, 1)
        self.run.files(files, "tables")

    def _child(self, folder: Path, *, unless_finished: bool = False) -> TrackedRun | None:
        assert self.run is not None
        try:
            self.store.check_reachable()
            if unless_finished:
                found = remembered(self.store, self.experiment, folder)
                if found is not None and found["status"] == "FINISHED":
                    return None
            return TrackedRun.open(
                self.store,
                self.experiment,
                f"{self.run.name}, {folder.name}",
                folder,
                parent_id=self.run.run_id,
            )
        except Exception as error:
            logger.warning("%s is not tracked: %s", folder.name, error)
            return None
