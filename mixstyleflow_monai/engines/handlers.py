"""Ignite handlers that MONAI does not have: seeding by epoch, the best model, publishing, a progress bar."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers.checkpoint import BaseSaveHandler
from ignite.handlers.tqdm_logger import ProgressBar
from monai.handlers import CheckpointLoader, CheckpointSaver
from torch import nn

from mixstyleflow_monai.artifacts import read_tensors, save_tensors, write_manifest
from mixstyleflow_monai.processes import is_first

logger = logging.getLogger(__name__)
CHECKPOINT_PATTERN = re.compile(r"checkpoint_epoch=(\d+)\.pt")

SELECTIONS = {
    "best": "best source validation",
    "best_stylized": "best stylised source validation",
    "last": "last",
}
"""Rules by which weights are chosen, and how a manifest names them. None of them looks at other domains."""


class EpochSeeding:
    """Call ``engine.set_epoch(epoch)`` before every epoch, so that a resumed run repeats what it would have drawn."""

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer that has ``set_epoch``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Seed the engine's epoch."""
        engine.set_epoch(engine.state.epoch)


class LossProgressBar:
    """Ignite's progress bar over the steps of an epoch, with the running loss.

    Args:
        description: text before the bar.
        show_loss: whether the engine's output has a loss.
    """

    def __init__(self, description: str, show_loss: bool = True) -> None:
        self.show_loss = show_loss
        self.bar = ProgressBar(desc=description, persist=False, mininterval=1.0)

    def attach(self, engine: Engine) -> None:
        """Attach to any engine; of several processes the first one shows its bar."""
        if not is_first():
            return
        transform = (lambda output: {"loss": float(output[0]["loss"])}) if self.show_loss else None
        self.bar.attach(engine, output_transform=transform)


class ResumableCheckpoint(CheckpointSaver):
    """MONAI's `CheckpointSaver` of the last epoch, with the engine's own state (epoch, iteration) included.

    A configuration cannot name the trainer inside the trainer's handlers, so it is added on attaching. A checkpoint is
    written to a temporary name and renamed, and the one before it is removed only then: MONAI's saver, stopped while it
    writes, leaves a broken file as the only one.
    """

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, after `ResumeCheckpoint`."""
        self.save_dict["trainer"] = engine
        for checkpoint in (self._interval_checkpoint, self._final_checkpoint):
            if checkpoint is not None:
                checkpoint.save_handler = _WholeFiles(self.save_dir)  # type: ignore[assignment]
        engine.add_event_handler(Events.STARTED, self._remove_abandoned)
        super().attach(engine)

    def _remove_abandoned(self, engine: Any) -> None:
        """Remove checkpoints ahead of this training: after a new start the next resume would take them for its own.

        That of an earlier process is removed once this one has saved; ignite knows its own files only.
        """
        for epoch, path in _checkpoints(self.save_dir):
            if epoch > engine.state.epoch and is_first():
                path.unlink()
            elif self._interval_checkpoint is not None and self._interval_checkpoint.n_saved == 1:
                self._interval_checkpoint.save_handler.remove(path.name)


class _WholeFiles(BaseSaveHandler):
    """Ignite's way to save, with files that are there as a whole or not at all.

    Ignite asks to remove the oldest file before it saves the newest; the removal waits until that is done.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.removable: list[str] = []

    def __call__(self, checkpoint: Any, filename: str, metadata: Any = None) -> None:
        """Save, then remove."""
        if not is_first():
            return
        save_tensors(self.folder / filename, checkpoint)
        for name in self.removable:
            if name != filename:
                (self.folder / name).unlink(missing_ok=True)
        self.removable.clear()

    def remove(self, filename: str) -> None:
        """Remove a file with the next save."""
        self.removable.append(filename)


class ResumeCheckpoint(CheckpointLoader):
    """MONAI's `CheckpointLoader` of what `ResumableCheckpoint` saved."""

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        self.load_dict["trainer"] = engine
        super().attach(engine)


class BestModel:
    """Keep the weights of the best validation so far. Attach to the evaluator.

    The best metric and its weights are part of this handler's state. A resumed run so neither takes its first
    validation for the best one, nor keeps a file that a training ahead of the checkpoint has left.

    Args:
        network: module whose weights are saved.
        path: where, as a bare CPU state dict.
        metric: of the evaluator, the larger the better; None for its key metric.
    """

    def __init__(self, network: nn.Module, path: str | os.PathLike[str], metric: str | None = None) -> None:
        self.network = network
        self.path = Path(path)
        self.metric = metric
        self.best_metric: float | None = None
        self.best_epoch = 0
        self.weights: dict[str, torch.Tensor] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator with a key metric, after what computes any other metric."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Save if the key metric is better than ever."""
        name = self.metric or engine.state.key_metric_name
        value = engine.state.metrics.get(name)
        if value is None or value != value:
            return
        if self.best_metric is None or value > self.best_metric:
            self.best_metric, self.best_epoch = float(value), int(engine.state.epoch)
            self.weights = {key: value.clone() for key, value in cpu_state_dict(self.network).items()}
            if is_first():
                save_tensors(self.path, self.weights)

    @property
    def summary(self) -> dict[str, Any]:
        """The best metric and its epoch."""
        return {"best_metric": self.best_metric, "best_epoch": self.best_epoch}

    def state_dict(self) -> dict[str, Any]:
        """Return the best metric, its epoch and its weights."""
        return {**self.summary, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`, and the file."""
        self.best_metric, self.best_epoch = state["best_metric"], state["best_epoch"]
        self.weights = {key: value.cpu() for key, value in state["weights"].items()}
        if self.weights and is_first():
            save_tensors(self.path, self.weights)


class PublishModel:
    """At the end of training write the artifact that the next phase opens, and its manifest.

    Args:
        path: the artifact, for example ``models/model.pt``.
        kind: see `mixstyleflow_monai.artifacts.write_manifest`.
        best: the evaluator's `BestModel`, whose file is published; the last weights if it has none.
        network: module that trains, or the average of its weights.
        save: how to write it: called with (module, path). Default: a bare CPU state dict.
        made_from: artifacts that this one was made from.
        facts: further manifest entries.
        selection: "best" on source validation, "best_stylized" for a ``best`` with the metric of
            `mixstyleflow_monai.engines.StylizedValidation`, or "last".

    Raises:
        ValueError: another word, or "best_stylized" and a ``best`` that goes by another metric.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        kind: str,
        network: nn.Module,
        best: BestModel | None = None,
        *,
        save: Callable[[Any, Path], None] | None = None,
        made_from: Mapping[str, str | os.PathLike[str]] | None = None,
        facts: Mapping[str, Any] | None = None,
        selection: str = "best",
    ) -> None:
        if selection not in SELECTIONS:
            raise ValueError(
                f"selection={selection!r}: expected 'best' (source validation), 'best_stylized' (the same in drawn "
                "styles) or 'last'."
            )
        if selection == "best_stylized" and (best is None or best.metric is None):
            raise ValueError(
                "selection='best_stylized': nothing is validated on stylised images here. Give 'best' or 'last'."
            )
        self.path = Path(path)
        self.kind = kind
        self.network = network
        self.best = best
        self.save = save or save_state_dict
        self.made_from = made_from
        self.facts = dict(facts or {})
        self.selection = selection

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Write artifact and manifest."""
        chosen: dict[str, Any] = {"selection": "last", "epoch": int(engine.state.epoch)}
        # Without a validation in this training, a file is what an earlier training left.
        if self.selection != "last" and self.best is not None and self.best.best_metric is not None:
            self.network.load_state_dict(self.best.weights)
            chosen = {"selection": SELECTIONS[self.selection], **self.best.summary}
        elif self.selection != "last" and self.best is not None:
            logger.warning(
                "no validation was run in %d epochs, so the last weights are published; lower val_interval to have the "
                "best ones.",
                engine.state.epoch,
            )
        if not is_first():
            return
        self.save(self.network, self.path)
        write_manifest(self.path, self.kind, made_from=self.made_from, facts={**self.facts, "checkpoint": chosen})
        logger.info("wrote %s (%s)", self.path, chosen)


def save_state_dict(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the bare state dict on the CPU, atomically."""
    save_tensors(path, cpu_state_dict(network))


def cpu_state_dict(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return a module's state dict on the CPU; tensors that are there already share their memory with the module."""
    return {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}


def latest_checkpoint(directory: str | os.PathLike[str]) -> str | None:
    """Return the newest ``checkpoint_epoch=N.pt`` of a folder, or None."""
    found = _checkpoints(directory)
    return str(max(found)[1]) if found else None


def _checkpoints(directory: str | os.PathLike[str]) -> list[tuple[int, Path]]:
    """Return epoch and path of every ``checkpoint_epoch=N.pt`` of a folder."""
    return [(int(m[1]), p) for p in Path(directory).glob("*.pt") if (m := CHECKPOINT_PATTERN.fullmatch(p.name))]


def load_network(network: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Load a bare state dict into a network and return it, strictly.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a state dict, or one of another network; names the first differences.
    """
    return load_weights(network, read_weights(path), path)


def read_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the state dict in a file; empty if the file holds something else.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not written by PyTorch, or damaged.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{path}: no such file. Train the phase that makes it, or give its folder (to evaluate or infer, the model "
            "itself with --ckpt_path)."
        )
    state = read_tensors(path, "PyTorch weights", "Restore the file.")
    state = state.get("model", state) if isinstance(state, dict) else {}
    return state if isinstance(state, dict) else {}


def load_weights(network: nn.Module, state: Mapping[str, Any], path: str | os.PathLike[str]) -> nn.Module:
    """Load a state dict into a network and return it, strictly.

    Args:
        network: to load into.
        state: of `read_weights`.
        path: where it was read, for messages.

    Raises:
        ValueError: of another network; names the first differences.
    """
    own = network.state_dict()
    missing = sorted(set(own) - set(state))
    foreign = sorted(set(state) - set(own))
    shapes = [
        f"{key}: file {tuple(state[key].shape)}, network {tuple(own[key].shape)}"
        for key in own
        if key in state and getattr(state[key], "shape", None) != own[key].shape
    ]
    if missing or foreign or shapes:
        raise ValueError(
            f"{path}: weights of another network. Differences, the first of each kind: missing {missing[:2]}, "
            f"unknown {foreign[:2]}, shapes {shapes[:2]}. Channels and regions of the data set must be those of the "
            "training; give the model of this task."
        )
    network.load_state_dict(state)
    return network
