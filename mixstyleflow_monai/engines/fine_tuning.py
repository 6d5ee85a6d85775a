"""Fine-tuning of a bundle's own network on a plain list of images and labels.

Labelling servers such as MONAI Label start a bundle's training with a list of ``{"image": path, "label": path}`` in the
place of ``train#dataset#data`` and ``validate#dataset#data``. They know nothing of ``dataset.json``, of phases and of
manifests. What the configuration needs beyond the list is taken here from the manifest of the bundle's network: task,
source domain (all new images count as of that domain) and ancestors.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import nn

from mixstyleflow_monai.artifacts import read_manifest, sha256_file
from mixstyleflow_monai.data import DatasetDescription, SliceDataset, Task, check_headers, load_dataset
from mixstyleflow_monai.data.dataset_description import Case
from mixstyleflow_monai.data.label_values import whole_labels
from mixstyleflow_monai.data.loading import image_loader
from mixstyleflow_monai.engines.lineage import check_training_data, copy_network, training_facts
from mixstyleflow_monai.processes import gather_objects, is_first, world_size

logger = logging.getLogger(__name__)
Item = Mapping[str, Any]


class DatasetFile:
    """A ``dataset.json`` that is read when it is first asked for, so that a plain list can stand in its place.

    Args:
        dataset_dir: folder with ``dataset.json``, or that file.
    """

    def __init__(self, dataset_dir: str | os.PathLike[str]) -> None:
        self.dataset_dir = dataset_dir

    @cached_property
    def description(self) -> DatasetDescription:
        """The checked content; see `load_dataset` for the errors."""
        return load_dataset(self.dataset_dir)

    def datalist(self, split: str) -> list[dict[str, str]]:
        """Return the cases of a split as a MONAI datalist."""
        return self.description.datalist(split)


def is_plain_list(data: Sequence[Item]) -> bool:
    """True for a list that was not made from ``dataset.json``: its items name no case."""
    return not data or any("case_id" not in item for item in data)


def keep_previous(model_path: str | os.PathLike[str]) -> str:
    """Copy a network and its manifest to a dated name in the same folder, and return the copy's path.

    The name has the time at which the network was published and the start of its hash, for example
    ``model_20260131T120000Z_0123abcd.pt``. The training starts from the copy, so that the original can be replaced
    while the manifest of the new network still names what it was made from.

    Of several processes the first one copies while the others wait, and all get what it got, its error too.

    Raises:
        FileNotFoundError: the network or its manifest is missing.
        ValueError: the file is not the one that its manifest describes, or no segmentation network.
    """
    if world_size() == 1:
        return _keep_previous(model_path)
    kept: str | Exception = ""
    if is_first():
        try:
            kept = _keep_previous(model_path)
        except (OSError, ValueError) as error:
            kept = error
    kept = gather_objects(kept)[0]
    if isinstance(kept, Exception):
        raise kept
    return kept


def _keep_previous(model_path: str | os.PathLike[str]) -> str:
    manifest = read_manifest(model_path, kind="segmentation_network")
    stamp = datetime.fromisoformat(manifest["created"]).strftime("%Y%m%dT%H%M%SZ")
    path = Path(model_path)
    return copy_network(path, path.with_name(f"{path.stem}_{stamp}_{manifest['sha256'][:8]}{path.suffix}"))


def training_data(
    file: DatasetFile,
    train: Sequence[Item],
    validation: Sequence[Item],
    task: Task,
    network_path: str | os.PathLike[str],
) -> DatasetDescription:
    """Return the checked description of what a training will see.

    Args:
        file: the data set of the configuration.
        train: what ``train#dataset#data`` has come to be: the file's training cases or a plain list.
        validation: the same of ``validate#dataset#data``; may be empty beside a plain list.
        task: of the network that training starts from.
        network_path: that network.

    Raises:
        ValueError: the data are not of the task, or training would leak; see `check_training_data` and `describe_list`.
    """
    if is_plain_list(train):
        if getattr(validation, "missing", None):
            raise FileNotFoundError(
                f"{validation.missing} Validation on a data set of the bundle's own (val_split below 0) needs one; "  # type: ignore[attr-defined]
                "give a val_split from 0 to 1 to keep some of the labelled images for it."
            )
        source = read_manifest(network_path, kind="segmentation_network")["source_domain"]
        return describe_list(train, validation, task, source)
    return check_training_data(network_path, task.check_dataset(file.description))


def describe_list(train: Sequence[Item], validation: Sequence[Item], task: Task, source: str) -> DatasetDescription:
    """Describe a plain list of images and labels as a data set of one domain.

    Args:
        train: items with the paths ``image`` and ``label``.
        validation: the same, may be empty.
        task: what the network takes and gives.
        source: name of the domain.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: nothing to train on, a file that the network cannot take, or label values that it does not know.
    """
    if not train:
        raise ValueError(
            "the list of labelled images to train on is empty. Label and save at least one image; with few of them "
            "lower val_split, the share that is kept for validation."
        )
    parts = {"train": train, "validation": validation}
    paths = [os.path.abspath(item[key]) for items in parts.values() for item in items for key in ("image", "label")]
    for path in paths:
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{path}: no such file, but it is in the list of images and labels to train on.")
    folder = Path(os.path.commonpath([os.path.dirname(path) for path in paths]))
    cases = tuple(_case(item, split, source, folder) for split, items in parts.items() for item in items)
    for case in cases:
        check_label_values(case.label, task)
    description = DatasetDescription(
        path=folder,
        name="list of images and labels",
        spatial_dims=task.spatial_dims,
        channels=task.in_channels,
        regions=task.regions,
        source_domain=source,
        cases=cases,
        processing={},
        sha256=hashlib.sha256(json.dumps([[case.split, case.sha256] for case in cases]).encode()).hexdigest(),
    )
    return check_headers(description)


def _case(item: Item, split: str, source: str, folder: Path) -> Case:
    paths = {key: Path(os.path.abspath(item[key])) for key in ("image", "label")}
    name = paths["image"].relative_to(folder).as_posix()
    hashes = {key: sha256_file(path) for key, path in paths.items()}
    return Case(str(item.get("case_id", name)), source, name, split, paths["image"], paths["label"], hashes, None)


def check_label_values(path: str | os.PathLike[str], task: Task) -> None:
    """Refuse a label map with values that the network has no region for; they would be trained on as background.

    Raises:
        ValueError: names the values found and those that are known.
    """
    label = whole_labels(np.asarray(image_loader("label")({"label": os.fspath(path)})["label"]))
    known = {0, *(value for values in task.regions.values() for value in values)}
    unknown = [f"{value:g}" for value in np.unique(label).tolist() if value not in known]
    if unknown:
        raise ValueError(
            f"{path}: has the label values {', '.join(unknown[:5])}, but the network knows only {sorted(known)} (0 is "
            f"background, regions are {task.regions}). Draw with the labels that the server lists, or train the three "
            "phases on a data set that has these regions."
        )


def inherited_facts(network_path: str | os.PathLike[str], **arguments: Any) -> dict[str, Any]:
    """Return `training_facts` with the images that the network had been trained on before added to the new ones.

    Args:
        network_path: network that training starts from, with its manifest.
        **arguments: of `training_facts`.
    """
    facts = training_facts(**arguments)
    own = facts["training_images_sha256"]
    before = read_manifest(network_path, kind="segmentation_network").get("training_images_sha256", [])
    facts["training_images_sha256"] = sorted([*own, *(set(before) - set(own))])
    return facts


def validation_slices(data: Sequence[Item], training_data: Sequence[Item], **settings: Any) -> SliceDataset:
    """Return the slices to validate on; those of the training where there are no others, to look at and not to select.

    Args:
        data: validation cases, may be empty.
        training_data: training cases.
        **settings: of `SliceDataset`.
    """
    if not data:
        logger.warning(
            "no image is kept for validation: the validation shown is of the training images, and the last weights are "
            "published. Label more images or raise val_split."
        )
    return SliceDataset(data or training_data, **settings)


class StartingWeights:
    """At the start of a fine-tuning, make sure that the network has the weights that its manifest will name.

    A labelling server loads weights itself; another file than ``model.pt`` would become an ancestor nobody records.
    Attach after what loads weights.

    Args:
        network: module that trains.
        path: the weights that it must have.
    """

    def __init__(self, network: nn.Module, path: str | os.PathLike[str]) -> None:
        self.network = network
        self.path = path

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Compare.

        Raises:
            ValueError: other weights were loaded.
        """
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        own = self.network.state_dict()
        if any(not torch.equal(own[key].detach().cpu(), value) for key, value in state.items()):
            raise ValueError(
                f"the weights loaded to fine-tune are not those of {self.path}. Only model.pt can be fine-tuned: to go "
                "on from an earlier model, copy it and its manifest to model.pt and model.manifest.json."
            )
