"""Open a bundle that has no data or no weights yet: to read its configuration, to check its properties.

MONAI builds trainer and evaluator when a program asks for the properties of a bundle
(``create_workflow(...).check_properties()``). What is missing then is replaced by a placeholder that can be built
with, holds no image and no trained weight, and knows what is missing. `require`, the first step of each
configuration's ``run``, raises that; used in any other way, a placeholder raises it itself.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

from monai.transforms import Compose
from torch import nn

from mixstyleflow_monai.data import DatasetDescription, Task, inference_datalist, load_dataset
from mixstyleflow_monai.data.dataset_description import dataset_file
from mixstyleflow_monai.engines import load_network, load_style_flows
from mixstyleflow_monai.engines.deployment import CheckModeld, inference_preprocessing
from mixstyleflow_monai.engines.warm_start import load_earlier_network
from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.styles import IMAGE_LEVEL

UNTRAINED_TASK: dict[str, Any] = {
    "in_channels": 1,
    "regions": {"prostate": [1, 2]},
    "image_size": [224, 224],
    "spatial_dims": 3,
    "pixel_spacing": [0.625, 0.625],
    "percentiles": [2, 98],
}
"""What an untrained bundle is described for in its metadata; the same as ``untrained_task`` in inference.json."""


class NoCases(list[Any]):
    """An empty datalist in the place of one that is missing.

    Attributes:
        missing: message of what is missing.
    """

    def __init__(self, missing: str) -> None:
        super().__init__()
        self.missing = missing

    def __bool__(self) -> bool:
        """True: unlike an empty list, this is no mistake in a list that was given."""
        return True


class NoDataset(DatasetDescription):
    """Description in the place of a missing ``dataset.json``.

    Attributes:
        missing: message of what is missing.
    """

    missing: str

    @classmethod
    def instead_of(cls, dataset_dir: str | os.PathLike[str], missing: str) -> NoDataset:
        """Return the description of no case of the untrained task."""
        task = UNTRAINED_TASK
        found = cls(
            path=dataset_file(dataset_dir),
            name="no data set",
            spatial_dims=task["spatial_dims"],
            channels=task["in_channels"],
            regions=task["regions"],
            source_domain="no data set",
            cases=(),
            processing={},
            sha256="",
        )
        object.__setattr__(found, "missing", missing)
        return found

    def datalist(self, split: str | None = None, domain: str | None = None) -> list[dict[str, str]]:
        """Return `NoCases`."""
        return NoCases(self.missing)


def no_dataset(dataset_dir: str | os.PathLike[str]) -> NoDataset | None:
    """Return the placeholder if there is no ``dataset.json``, None if there is one, good or bad."""
    if dataset_file(dataset_dir).exists():
        return None
    try:
        load_dataset(dataset_dir)
    except FileNotFoundError as error:
        return NoDataset.instead_of(dataset_dir, str(error))
    return None


def is_missing(part: Any) -> bool:
    """True for a placeholder, and for what was built with one."""
    return _missing(part) is not None


def _missing(part: Any) -> str | None:
    for owner in (part, getattr(part, "bank", None), getattr(part, "data", None)):
        # MONAI's `Dataset` and torch modules have attributes of their own; a message is text.
        message = getattr(owner, "missing", None)
        if isinstance(message, str):
            return message
    return None


def require(*parts: Any) -> None:
    """Refuse to run with placeholders.

    Raises:
        FileNotFoundError: what the first of them stands for.
    """
    for part in parts:
        message = _missing(part)
        if message is not None:
            raise FileNotFoundError(message)


def task(model_path: str | os.PathLike[str], dataset: Any, normalization: str | None = None) -> Task:
    """Return the task of the model that training starts from; the untrained one if there is no data set either.

    Args:
        model_path: weights, with their manifest.
        dataset: cases to train on.
        normalization: layers that the network in training has besides, see `Task`; None for those of the model.
    """
    found = Task.from_model(model_path, UNTRAINED_TASK if is_missing(dataset) else None)
    # On the command line of a bundle, null is a word.
    return found if normalization in (None, "null") else found.with_normalization(normalization)


def network(network_def: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Return the network with the weights of a file; without that file a placeholder that refuses every image."""
    if os.path.exists(path):
        return load_network(network_def, path)
    placeholder = copy.deepcopy(network_def)
    try:
        load_network(placeholder, path)
    except FileNotFoundError as error:
        _refuse_use(placeholder, str(error))
    return placeholder


def initial_network(network_def: DualDecoderNet, path: str | os.PathLike[str]) -> nn.Module:
    """Return the network that training starts from: `network`, with layers of its own that the file may lack.

    Those of its normalization start untrained then; all other weights are loaded, as strictly as ever.
    """
    return load_earlier_network(network_def, path) if os.path.exists(path) else network(network_def, path)


def style_flows(path: str | os.PathLike[str], network_path: str | os.PathLike[str], device: Any) -> StyleFlowBank:
    """Return the flows of a file, checked against the network; untrained ones that refuse to be used without it."""
    if os.path.exists(path):
        return load_style_flows(path, network_path, device)
    # Of all levels, so that a stylizer of any of them says that the file is missing, and not the level.
    levels = dict.fromkeys(range(IMAGE_LEVEL + 1), 2)
    placeholder = StyleFlowBank(levels, dict.fromkeys(levels, 1.0))
    try:
        load_style_flows(path, network_path, device)
    except FileNotFoundError as error:
        _refuse_use(placeholder, str(error))
    return placeholder


def _refuse_use(module: nn.Module, missing: str) -> None:
    def refuse(*_: Any) -> None:
        raise FileNotFoundError(missing)

    module.missing = missing  # type: ignore[assignment]
    for part in (module, *module.children()):
        part.register_forward_pre_hook(refuse)


def images(
    given: str | Sequence[str] | None, dataset_dir: str | os.PathLike[str], *, source_only: bool = False
) -> list[dict[str, str]]:
    """Return `inference_datalist`; a placeholder if no images are given and there is no data set."""
    absent = no_dataset(dataset_dir) if given is None else None
    return inference_datalist(given, dataset_dir, source_only=source_only) if absent is None else absent.datalist()


def common_folder(datalist: Sequence[Any]) -> str:
    """Return the deepest folder that holds all images, "" without images."""
    from mixstyleflow_monai.data import common_folder as folder

    return folder(datalist) if len(datalist) else ""


def preprocessing(task: Task, model_path: str | os.PathLike[str]) -> Compose:
    """Return `inference_preprocessing`, which checks the model; without one, transforms that refuse every image."""
    if os.path.exists(model_path):
        return inference_preprocessing(task, model_path)
    return Compose([CheckModeld(model_path, task), *task.inference_preprocessing().transforms])
