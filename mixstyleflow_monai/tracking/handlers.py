"""Ignite handlers that track the training and the evaluation of a phase.

They take the place of MONAI's `MLFlowHandler`, which goes on with any unfinished run of the same name, leaves runs
RUNNING after an error, sends each value by itself, and stops a training when the server does.
"""

from __future__ import annotations

import functools
import json
import math
import os
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from mixstyleflow_monai.artifacts import manifest_path, read_manifest
from mixstyleflow_monai.tracking.contents import (
    evaluation_values,
    executed_config,
    log_network,
    training_parameters,
    upload_panels,
    upload_results,
)
from mixstyleflow_monai.tracking.run import TrackedRun, status_after
from mixstyleflow_monai.tracking.store import Store

CLOCK_SECONDS = 2.0
"""By how much the clock of a file system may be behind."""


class PhaseTracker:
    """What both handlers do: open the run when the engine starts, and end it however the engine ends.

    Args:
        tracking_uri: see `Store`.
        experiment_name: experiment, by default the data set's name.
        run_name: of a new run.
        output_dir: folder of the phase; remembers its run.
        executed_config: the configuration value ``save_execute_config``.
    """

    def __init__(
        self,
        *,
        tracking_uri: str,
        experiment_name: str,
        run_name: str,
        output_dir: str | os.PathLike[str],
        executed_config: object = None,
    ) -> None:
        self.store = Store(tracking_uri)
        self.store.experiment_id(experiment_name)  # told before training if it was deleted
        self.experiment_name = experiment_name
        self.run_name = run_name
        self.output_dir = Path(output_dir)
        self.executed_config = executed_config
        self.run: TrackedRun | None = None
        self.since = 0.0

    def attach(self, engine: Engine) -> None:
        """Attach to an engine, after all handlers that change its state or write files."""
        end_on_error(engine, self._fail)

    def _open(self, *, anew: bool = False) -> TrackedRun:
        self.run = TrackedRun.open(self.store, self.experiment_name, self.run_name, self.output_dir, anew=anew)
        path = executed_config(self.output_dir, self.executed_config)
        self.run.files([] if path is None else [path], "configs")
        return self.run

    def _fail(self, error: BaseException) -> None:
        if self.run is not None and self.run.is_open:
            upload_results(self.run, self.output_dir, self.since)
            self.run.finish(status_after(error))


class TrainingTracker(PhaseTracker):
    """Track a training: parameters, curves, panels, and in the end what it published.

    Curves: ``train_loss`` and ``lr_group_0`` an iteration; every part of the loss, every metric of the trainer
    (reconstruction PSNR and so on) and of the validation (``val_mean_dice``) an epoch. They are sent once an epoch.

    Args:
        facts: what `mixstyleflow_monai.engines.training_facts` returned.
        validator: evaluator whose metrics are curves too.
        model_path: published segmentation network to log as a model, or None.
        **options: of `PhaseTracker`.
    """

    def __init__(
        self,
        *,
        facts: Mapping[str, Any],
        validator: Engine | None = None,
        model_path: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.facts = facts
        self.validator = validator
        self.model_path = model_path
        self.losses: dict[str, list[float]] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer as its last handler."""
        super().attach(engine)
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)
        engine.add_event_handler(Events.COMPLETED, self._completed)
        if self.validator is not None:
            self.validator.add_event_handler(Events.COMPLETED, self._validated)

    def _started(self, engine: Any) -> None:
        # A finished run is of another training, unless this one resumes it for more epochs.
        run = self._open(anew=engine.state.epoch == 0)
        if engine.state.epoch == 0 or not run.is_new:
            # What lies in the folder from before the run is of a training before, unless this one began untracked.
            self.since = run.started - CLOCK_SECONDS
        lengths = {name: getattr(engine.state, name) for name in ("max_epochs", "epoch_length")}
        run.parameters({**training_parameters(self.facts), **lengths})

    def _iteration(self, engine: Any) -> None:
        assert self.run is not None
        step = engine.state.iteration
        output = engine.state.output[0]
        losses = {name: float(value) for name, value in output.items() if name.startswith("loss")}
        self.run.value("train_loss", losses.pop("loss"), step)
        for number, group in enumerate(engine.optimizer.param_groups):
            self.run.value(f"lr_group_{number}", group["lr"], step)
        for name, value in losses.items():
            self.losses.setdefault(name, []).append(value)

    def _validated(self, engine: Any) -> None:
        if self.run is not None:
            self.run.values(engine.state.metrics, engine.state.epoch)

    def _epoch(self, engine: Any) -> None:
        assert self.run is not None
        # Steps that were skipped for a loss that is not finite count in none.
        finite = {name: [value for value in values if math.isfinite(value)] for name, values in self.losses.items()}
        means = {name: statistics.fmean(values) for name, values in finite.items() if values}
        self.losses = {}
        self.run.values({**means, **engine.state.metrics}, engine.state.epoch)
        self.run.flush()
        upload_panels(self.run, self.output_dir, self.since)

    def _completed(self, engine: Any) -> None:
        assert self.run is not None
        self.run.values(engine.state.metrics, engine.state.epoch)
        upload_results(self.run, self.output_dir, self.since)
        if self.model_path is not None:
            log_network(self.run, self.model_path)
        self.run.finish()


class EvaluationTracker(PhaseTracker):
    """Track an evaluation, in the run of the training where the same folder remembers one.

    Numbers are those of ``evaluation.json``, domain by domain; without one the evaluator's metrics, as
    ``evaluation/NAME``.

    Args:
        model_path: what is evaluated; its manifest gives the parameters of a new run.
        **options: of `PhaseTracker`.
    """

    def __init__(self, *, model_path: str | os.PathLike[str], **options: Any) -> None:
        super().__init__(**options)
        self.model_path = model_path

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator as its last handler."""
        super().attach(engine)
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.COMPLETED, self._completed)

    def _started(self, engine: Any) -> None:
        run = self._open()
        if run.is_new:
            run.parameters(training_parameters(read_manifest(self.model_path)))

    def _completed(self, engine: Any) -> None:
        assert self.run is not None
        upload_results(self.run, self.output_dir)
        # The evaluator's own names would be another point on the training's curves.
        own = {f"evaluation/{name}": value for name, value in engine.state.metrics.items()}
        self.run.values(evaluation_values(read_evaluation(self.output_dir)) or own, engine.state.epoch)
        self.run.finish()


def read_evaluation(folder: Path) -> dict[str, Any]:
    """Return a folder's ``evaluation.json``; empty if it has no such file."""
    path = folder / "evaluation.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def adopt(run: TrackedRun, folder: Path, artifact: Path) -> None:
    """Tell a run of a training that ended without it: parameters, numbers and files, but no curves."""
    manifest = read_manifest(artifact) if manifest_path(artifact).is_file() else {}
    if manifest:
        run.parameters(training_parameters(manifest))
    record = read_evaluation(folder)
    if record.get("model_sha256", manifest.get("sha256")) == manifest.get("sha256"):
        run.values(evaluation_values(record), 1)
        upload_results(run, folder)
    else:  # the evaluation is of a training before this one
        upload_results(run, folder, tables=("style_report.json",))
    run.finish()


def end_on_error(engine: Any, action: Callable[[BaseException], None]) -> None:
    """Call ``action`` with what ends ``engine.run``, a keyboard interrupt included, and let it pass.

    Not by Ignite's EXCEPTION_RAISED: MONAI's `StatsHandler` raises there, and later handlers are not reached.
    """
    run = engine.run

    @functools.wraps(run)
    def guarded(*arguments: Any, **options: Any) -> Any:
        try:
            return run(*arguments, **options)
        except BaseException as error:
            action(error)
            raise

    engine.run = guarded
