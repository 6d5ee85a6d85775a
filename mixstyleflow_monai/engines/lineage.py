"""What a phase records of its making, and what it checks of what it is given."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mixstyleflow_monai
from mixstyleflow_monai.artifacts import (
    atomic_path,
    check_lineage,
    differences,
    manifest_path,
    read_manifest,
    sha256_file,
    write_json,
)
from mixstyleflow_monai.data import DatasetDescription, Task, check_headers
from mixstyleflow_monai.data.dataset_description import EVERY_SPLIT, SPLITS
from mixstyleflow_monai.engines.handlers import latest_checkpoint
from mixstyleflow_monai.engines.resuming import read_checkpoint
from mixstyleflow_monai.flows import StyleFlowBank

ADDED_SETTINGS = {
    "weight_average": 0.0,
    "selection_stylizer_settings": None,
    "normalization_losses": None,
    "joint_statistics": False,
    "blur_sigma": 4.0,
    "style_levels": [2, 3, 4],
}
"""Settings that came later, with the value that a checkpoint without them was trained with."""
_OTHER_PHASE = "the checkpoint to resume is of phase {}, and this is phase {}. Give each phase its own --output_dir."
HASH_OF = "SHA-256 of {}"
"""Entry of a checkpoint's identity for an artifact that its training started from."""


def training_facts(
    bundle: str,
    phase: int,
    description: DatasetDescription,
    task: Task,
    seed: int,
    settings: Mapping[str, Any],
    method: str | None = None,
) -> dict[str, Any]:
    """Return the manifest entries that say how an artifact was trained.

    Args:
        bundle: name of the bundle.
        phase: 1, 2 or 3.
        description: data set.
        task: input and output of the network.
        seed: of the run.
        settings: numbers and names of the configuration that shaped the training.
        method: name of the generalization method, for Phase III.
    """
    return {
        "bundle": bundle,
        "bundle_version": mixstyleflow_monai.__version__,
        "phase": phase,
        **({"method": method} if method else {}),
        "seed": seed,
        "source_domain": description.source_domain,
        "dataset": {"name": description.name, "sha256": description.sha256},
        "cases": {
            split: [case.id for case in description.select(split, description.source_domain)]
            for split in ("train", "validation")
        },
        "training_images_sha256": sorted(
            case.sha256["image"]
            for split in ("train", "validation")
            for case in description.select(split, description.source_domain)
            if "image" in case.sha256
        ),
        "task": task.to_json(),
        "settings": dict(settings),
    }


def check_training_data(
    model_path: str | os.PathLike[str], description: DatasetDescription, split: str = SPLITS[-1]
) -> DatasetDescription:
    """Return the data set if a model's training saw none of its test images, and all headers are in order.

    Args:
        model_path: network with a manifest.
        description: the data set.
        split: that is evaluated. With "all", and without a source domain, the data set may be one of other sites
            alone: it must not have the domain of the training, nor an image file that training has seen.

    Raises:
        ValueError: the model was trained on another source domain, or on images that are test cases here. Their scores
            would be those of images that the network has seen.
    """
    description.select(split)
    manifest = read_manifest(model_path)
    source = manifest["source_domain"]
    seen = set(manifest.get("training_images_sha256", []))
    if split == EVERY_SPLIT or not description.source_domain:
        # Images that were written anew, by another crop for example, are other files: their domain tells them.
        if source in description.domains or not seen:
            what = f"has the domain {source!r}," if seen else f"cannot be told from what {model_path} saw,"
            raise ValueError(
                f"{description.path}: {what} on which the network was trained. --split all and data sets without a "
                "source domain are for other sites: rename a domain that is another site or has other patients, or "
                "evaluate on the test cases of the data set that was trained on."
            )
        trained_on = [case.id for case in description.cases if case.sha256.get("image") in seen]
        if trained_on:
            raise ValueError(
                f"{description.path}: {len(trained_on)} cases, among them {trained_on[:3]}, were trained on or "
                f"validated with by {model_path}. --split all and data sets without a source domain are for other "
                "sites: make one without these."
            )
        return check_headers(description)
    if source != description.source_domain:
        raise ValueError(
            f"{model_path}: trained on source domain {source!r}, but {description.path} has the source domain "
            f"{description.source_domain!r}, so images it was trained on would count as unseen. Train phase 1 on this "
            f"data set, or make one with `python -m data_prep resplit {description.path.parent} --source {source}`. To "
            "evaluate on all cases of other sites, give --split all."
        )
    leaked = [case.id for case in description.select("test") if case.sha256.get("image") in seen]
    if leaked:
        raise ValueError(
            f"{description.path}: {len(leaked)} test cases, among them {leaked[:3]}, were trained on or validated with "
            f"by {model_path}. The split is another one than at training; use that data set, or train phase 1 on this."
        )
    _check_training_ids(model_path, manifest, description)
    return check_headers(description)


def _check_training_ids(
    model_path: str | os.PathLike[str], manifest: Mapping[str, Any], description: DatasetDescription
) -> None:
    """Raise if source test cases have the ids of training cases: imported anew, with another crop, the files differ."""
    # A manifest in a packed bundle counts its cases only.
    trained = {case for cases in manifest.get("cases", {}).values() if isinstance(cases, list) for case in cases}
    known = [case.id for case in description.select("test", description.source_domain) if case.id in trained]
    if known:
        raise ValueError(
            f"{description.path}: {len(known)} source test cases, among them {known[:3]}, have the ids of cases that "
            f"{model_path} was trained on or validated with, though their files differ. If they are the same images, "
            "written anew, use the data set of the training, or train phase 1 on this; if not, give them other ids."
        )


class TrainingIdentity:
    """Which training a checkpoint is of, so that one of other data or settings is not resumed as if it were the same.

    A part of the checkpoints: `load_state_dict` compares instead of loading. Only the version of the
    package may differ, and ``max_epochs``, to train longer, where the learning rate does not follow from it.

    Args:
        facts: what `training_facts` returned.
        made_from: artifacts that the training starts from; their hashes are compared.
    """

    def __init__(self, facts: Mapping[str, Any], made_from: Mapping[str, str | os.PathLike[str]] | None = None) -> None:
        self.facts = facts
        self.made_from = dict(made_from or {})

    def state_dict(self) -> dict[str, str]:
        """Return what must be the same, as JSON text by name."""
        free = {"max_epochs"} if self.facts["settings"].get("lr_schedule", "constant") == "constant" else set()
        settings = {f"settings {name}": value for name, value in self.facts["settings"].items() if name not in free}
        hashes = {HASH_OF.format(name): sha256_file(path) for name, path in self.made_from.items()}
        other = {name: value for name, value in self.facts.items() if name not in ("settings", "bundle_version")}
        return {name: json.dumps(value) for name, value in {**other, **settings, **hashes}.items()}

    def check(self, checkpoint_dir: str | os.PathLike[str], resume: bool) -> None:
        """Compare with what is to be resumed, before anything that it was made from is written anew.

        Raises:
            ValueError: as `load_state_dict`.
        """
        checkpoint = latest_checkpoint(checkpoint_dir) if resume else None
        if checkpoint and (identity := _identity(checkpoint)):
            self.load_state_dict(identity)

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Compare.

        Raises:
            ValueError: the checkpoint is of another training; names the differences.
        """
        own = self.state_dict()
        added = {f"settings {name}": json.dumps(value) for name, value in ADDED_SETTINGS.items()}
        state = {**{name: value for name, value in added.items() if name in own}, **state}
        if own.get("phase") != state.get("phase"):
            raise ValueError(_OTHER_PHASE.format(state.get("phase"), own.get("phase")))
        different = differences(state, own, 80)
        if different:
            raise ValueError(
                f"the checkpoint to resume is of another training ({'; '.join(different)}). Use the same data and "
                "settings to go on, or start anew with --resume false or another --output_dir."
            )


def load_style_flows(
    path: str | os.PathLike[str], network_path: str | os.PathLike[str], device: str = "cpu"
) -> StyleFlowBank:
    """Load flows for a network, and refuse flows that describe another one.

    Args:
        path: ``style_flows.pt`` of Phase II, with its manifest.
        network_path: ``model.pt`` that training starts from, with its manifest.
        device: where to put the flows.
    """
    flows = read_manifest(path, kind="style_flows")
    check_lineage(read_manifest(network_path, kind="segmentation_network"), flows)
    return StyleFlowBank.load(path, map_location="cpu").to(device).eval()


def copy_network(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> str:
    """Copy a network and its manifest, so that a phase carries what it was made from; return the target's path.

    The source's hash is checked against its manifest first. Nothing is done if the target is the same already.

    Raises:
        ValueError: the target is the source, in the folder of Phase I's own training.
    """
    manifest = read_manifest(source, kind="segmentation_network")
    if Path(source).resolve() == Path(target).resolve():
        _refuse_other_phase(Path(target).resolve().parent.parent)
        return str(target)
    if manifest_path(target).exists() and Path(target).exists():
        try:
            if read_manifest(target)["sha256"] == manifest["sha256"]:
                return str(target)
        except ValueError:
            pass  # A damaged copy is replaced below.
    with atomic_path(target) as partial:
        shutil.copyfile(source, partial)
    write_json(manifest_path(target), {**manifest, "file": Path(target).name})
    return str(target)


def check_resumed_network(source: str | os.PathLike[str], checkpoint_dir: str | os.PathLike[str], resume: bool) -> None:
    """Raise before `copy_network` replaces the network of another training: of its result, or what it is resumed from.

    Args:
        source: the network that phase 2 is to begin with.
        checkpoint_dir: of phase 2.
        resume: whether a training that is there is to be resumed.

    Raises:
        ValueError: another phase was trained there, or, with ``resume``, phase 2 began with another network.
    """
    checkpoint = latest_checkpoint(checkpoint_dir)
    identity = _identity(checkpoint) if checkpoint else {}
    if identity.get("phase", "2") != "2":
        raise ValueError(_OTHER_PHASE.format(identity["phase"], "2"))
    began = json.loads(identity.get(HASH_OF.format("network"), "null")) if resume else None
    if began is None:
        return
    given = read_manifest(source, kind="segmentation_network")["sha256"]
    if began != given:
        raise ValueError(
            f"the checkpoint to resume is of another training (SHA-256 of network: was {began[:12]}, now {given[:12]} "
            f"of {source}). Give this network another --output_dir, or start anew with --resume false."
        )


def _identity(checkpoint: str) -> dict[str, str]:
    identity: dict[str, str] = read_checkpoint(checkpoint).get("identity", {})
    return identity


def _refuse_other_phase(folder: Path) -> None:
    """Raise if a folder holds Phase I's checkpoints, which another phase would take for its own."""
    checkpoint = latest_checkpoint(folder / "checkpoints")
    if checkpoint and _identity(checkpoint).get("phase") == "1":
        raise ValueError(
            f"output_dir: phase 1 was trained in {folder}. Give this phase another --output_dir, and that folder with "
            f"--phase1_dir {folder}."
        )
