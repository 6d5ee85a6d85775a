"""What a run checks of trainings that are finished already, before it takes them for its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mixstyleflow_monai.artifacts import differences, manifest_path, read_manifest, sha256_file

UPSTREAM = {
    "network": ("phase1_dir", "models/model.pt"),
    "initial_network": ("phase1_dir", "models/model.pt"),
    "style_flows": ("phase2_dir", "models/style_flows.pt"),
}
"""What an artifact is made from, by its name in the manifest -> option of the phase's folder, file in that folder."""


def is_done(artifact: Path) -> bool:
    """True if the artifact and its manifest belong together: both are written at the very end of a training."""
    if not artifact.is_file() or not manifest_path(artifact).is_file():
        return False
    try:
        return bool(read_manifest(artifact))
    except ValueError:  # stopped between the two, or damaged since: the training goes on from its checkpoint
        return False


def made_from(artifacts: Iterable[Path], network: Path) -> bool:
    """Tell whether all artifacts that are done descend from a network."""
    first = sha256_file(network)
    return all(first in read_manifest(artifact).get("ancestors", []) for artifact in artifacts if is_done(artifact))


def check_finished(trainings: Mapping[Path, Mapping[str, Any]], dataset_sha256: str) -> None:
    """Check those trainings that are finished: they are of these settings, and of what is there before them.

    Args:
        trainings: what each leaves -> merged top level of its configuration.
        dataset_sha256: of the data set's description.

    Raises:
        ValueError: as `check_done`.
    """
    folders = {artifact.parent.parent for artifact in trainings}
    anew = {folder for folder in folders if not any((folder / "checkpoints").glob("*.pt"))}
    for artifact, settings in trainings.items():
        if is_done(artifact):
            before = {Path(str(settings.get(name))) for name in ("phase1_dir", "phase2_dir")}
            check_done(artifact, settings, dataset_sha256, begun=not before & anew)


def check_done(artifact: Path, settings: Mapping[str, Any], dataset_sha256: str, *, begun: bool = True) -> None:
    """Refuse a finished training that is not the one asked for, or of which another training is the origin by now.

    Args:
        artifact: what the training left, which is there.
        settings: merged top level of the configuration that is asked for; expressions in it are not compared.
        dataset_sha256: of the data set's description.
        begun: whether an earlier phase that is not there has a checkpoint to go on from.

    Raises:
        ValueError: names the folder, and what differs.
    """
    manifest, folder = read_manifest(artifact), artifact.parent.parent
    then, now = recorded(manifest), asked(settings, dataset_sha256)
    both = then.keys() & now.keys()
    different = differences({name: then[name] for name in both}, {name: now[name] for name in both}, 80)
    if different:
        raise ValueError(
            f"{folder}: holds a finished training with other settings ({'; '.join(different)}), which would be taken "
            "for this one. Use the same settings to go on, or another --output_dir."
        )
    for name, entry in manifest["made_from"].items():
        option, file = UPSTREAM.get(name, ("", ""))
        if not option or not isinstance(settings.get(option), str):
            continue
        path = Path(settings[option]) / file
        if not is_done(path):  # damaged, it is made anew from its checkpoint
            if not begun:
                raise ValueError(
                    f"{folder}: was made from {path}, which is not there or damaged and would be trained anew, so that "
                    f"the two would not belong together. Put {path.parent.parent} back, or remove {folder} as well."
                )
        elif sha256_file(path) != entry["sha256"]:
            raise ValueError(
                f"{folder}: was made from another {path} ({entry['sha256'][:12]}...) than is there now, so that "
                f"the two do not belong together. Put that file back, or remove {folder} to make it anew."
            )


def recorded(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a manifest tells of its training, by the names of the configuration."""
    task = manifest.get("task", {})
    # Later phases have the grid of the first, whatever they are told.
    names = ("image_size", "pixel_spacing") if manifest.get("phase") == 1 else ()
    grid = {name: task[name] for name in names if task.get(name) is not None}
    found = {"seed": manifest["seed"], "SHA-256 of the dataset.json": manifest["dataset"]["sha256"]}
    return {**manifest["settings"], **grid, **found}


def asked(settings: Mapping[str, Any], dataset_sha256: str) -> dict[str, Any]:
    """Return the settings that a manifest would record as they are: options, and no expressions of them."""
    recorded_as_is = {name for name, value in settings["facts"]["settings"].items() if value == f"@{name}"}
    names = {*recorded_as_is, "image_size", "pixel_spacing", "seed"}
    chosen = {name: settings[name] for name in names if name in settings}
    plain = {name: value for name, value in chosen.items() if not (isinstance(value, str) and value[:1] in "$@")}
    loaded: dict[str, Any] = json.loads(json.dumps(plain))
    return {**loaded, "SHA-256 of the dataset.json": dataset_sha256}
