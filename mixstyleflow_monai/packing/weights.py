"""The weights to pack: where they are, and whether they are what the bundle is for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mixstyleflow_monai.artifacts import manifest_path, read_manifest
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.data import Task
from mixstyleflow_monai.engines import load_network, load_style_flows
from mixstyleflow_monai.networks import DualDecoderNet

ARTIFACT = {1: "model.pt", 2: "style_flows.pt", 3: "model.pt"}
"""Phase -> what its training leaves in ``models``."""

KIND = {1: "segmentation_network", 2: "style_flows", 3: "segmentation_network"}
"""Phase -> kind in the manifest."""


@dataclass(frozen=True)
class Weights:
    """Weights of one phase that were checked.

    Attributes:
        phase: 1, 2 or 3.
        files: what belongs into the bundle's ``models``, manifests included.
        manifest: of the phase's artifact.
        task: of the network.
        network: in eval mode on the CPU; in Phase II the Phase I network that the flows describe.
        evaluation: content of ``evaluation.json`` of these weights, empty where there is none.
    """

    phase: int
    files: tuple[Path, ...]
    manifest: dict[str, Any]
    task: Task
    network: DualDecoderNet
    evaluation: dict[str, Any]


def find_weights(phase: int, weights: str | os.PathLike[str], *, stale_evaluation: bool = False) -> Weights:
    """Return the weights of a phase, checked.

    Args:
        phase: 1, 2 or 3.
        weights: the artifact (``model.pt``, ``style_flows.pt``), the ``models`` folder, or the output folder of the
            training, which may hold ``evaluation.json``.
        stale_evaluation: whether an evaluation of other weights is passed over.

    Raises:
        FileNotFoundError: no weights there, or no manifest beside them.
        ValueError: another phase's weights, a file that its manifest does not describe, weights of another network than
            the manifest's, an evaluation of other weights unless ``stale_evaluation``.
    """
    artifact = _artifact(phase, Path(weights))
    manifest = read_manifest(artifact, kind=KIND[phase])
    if manifest.get("phase") != phase:
        raise ValueError(
            f"{artifact}: weights of phase {manifest.get('phase')}, but {PHASE_BUNDLES[phase]} holds those of phase "
            f"{phase}. Give the weights of that phase, or pack the bundle of the other."
        )
    model = artifact.with_name("model.pt")
    read_manifest(model, kind="segmentation_network")
    _check_bare(model)
    task = Task.from_model(model)
    network = load_network(DualDecoderNet(**task.network_settings()), model)
    files = [model]
    if phase == 2:
        load_style_flows(artifact, model)
        files += [path for path in (artifact, artifact.with_name("style_statistics.pt")) if path.is_file()]
    assert isinstance(network, DualDecoderNet)
    return Weights(
        phase=phase,
        files=tuple(path for file in files for path in (file, manifest_path(file))),
        manifest=manifest,
        task=task,
        network=network.eval(),
        evaluation=_evaluation(artifact, manifest, stale_evaluation),
    )


def _artifact(phase: int, given: Path) -> Path:
    name = ARTIFACT[phase]
    candidates = [given / "models" / name, given / name] if given.is_dir() else [given]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = " or ".join(str(candidate) for candidate in candidates)
    raise FileNotFoundError(
        f"weights: no file {looked}. Train phase {phase}, or give its {name} or its output folder as --weights."
    )


def _check_bare(path: Path) -> None:
    """Refuse what is no plain state dict of CPU tensors: checkpoints, and weights that ask for a GPU."""
    places: set[str] = set()

    def note(storage: Any, location: str) -> Any:
        places.add(location)
        return storage

    try:
        state = torch.load(path, map_location=note, weights_only=True)
    except Exception as error:
        raise ValueError(f"{path}: cannot be read as PyTorch weights ({error}). Restore the file.") from error
    bare = isinstance(state, Mapping) and all(isinstance(value, torch.Tensor) for value in state.values())
    if not bare or places - {"cpu"}:
        found = f"tensors on {', '.join(sorted(places - {'cpu'}))}" if bare else "something else"
        raise ValueError(
            f"{path}: expected a bare state dict of CPU tensors, found {found}. Give the model.pt that training "
            "publishes in models/, not a checkpoint."
        )


def _evaluation(artifact: Path, manifest: Mapping[str, Any], stale: bool) -> dict[str, Any]:
    """Return the evaluation that lies in the output folder of the weights; empty if there is none."""
    folder = artifact.parent.parent if artifact.parent.name == "models" else artifact.parent
    path = folder / "evaluation.json"
    if not path.is_file():
        return {}
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if record.get("model_sha256") != manifest["sha256"]:
        if stale:
            return {}
        raise ValueError(
            f"{path}: evaluates the weights {str(record.get('model_sha256'))[:12]}..., but {artifact.name} is "
            f"{manifest['sha256'][:12]}.... Run evaluate.json on these weights, or remove the file to pack without "
            "metrics."
        )
    return record
