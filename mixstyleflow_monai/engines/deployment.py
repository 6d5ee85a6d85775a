"""Checks that a deployed network carries with it, wherever its configuration is opened.

Servers load weights themselves, often without strictness: MONAI Label logs a warning when they do not fit, and goes on
with a network that is random in part. So the network and the preprocessing of a bundle check what they are given.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.transforms import Compose, EnsureChannelFirstd, InvertibleTransform, MapTransform, Transform
from torch import Tensor, nn

from mixstyleflow_monai import bundle_errors
from mixstyleflow_monai.artifacts import manifest_path, read_manifest
from mixstyleflow_monai.data import Task
from mixstyleflow_monai.data.transforms import InPlaneGeometryd
from mixstyleflow_monai.networks import DualDecoderNet

IMAGE = "image"
LABEL_TASK = ("monailabel", "interfaces", "utils", "app.py")

# MONAI Label trains in a process of its own and shows the last lines that it prints.
if Path(sys.argv[0]).parts[-4:] == LABEL_TASK:
    sys.excepthook = bundle_errors.show


def strict_network(**settings: Any) -> DualDecoderNet:
    """Return a `DualDecoderNet` that refuses weights of another network even where it is told not to be strict.

    Args:
        **settings: of `DualDecoderNet`.
    """
    network = DualDecoderNet(**settings)
    network.register_load_state_dict_pre_hook(refuse_other_weights)
    return network


def refuse_other_weights(network: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Compare a state dict with a network's own before it is loaded; a hook with torch's arguments.

    Raises:
        ValueError: names are missing or unknown, or shapes differ; names the first of each.
    """
    own = network.state_dict()
    given = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    missing = sorted(set(own) - set(given))
    unknown = sorted(set(given) - set(own))
    shapes = [
        f"{key}: file {tuple(given[key].shape)}, network {tuple(own[key].shape)}"
        for key in own
        if isinstance(given.get(key), Tensor) and given[key].shape != own[key].shape
    ]
    if missing or unknown or shapes:
        raise ValueError(
            f"weights of another network: {len(missing)} missing {missing[:2]}, {len(unknown)} unknown {unknown[:2]}, "
            f"{len(shapes)} of another shape {shapes[:2]}. The network is made for the channels and regions in the "
            "manifest beside model.pt; give weights of the same task, together with their manifest."
        )


class CheckModeld(Transform):
    """Check, before an image is read, that the weights are those that their manifest describes.

    Runs once a version of the file. A request that names another file of the same folder, as MONAI Label allows with
    ``model_filename``, has that file checked.

    Args:
        path: ``model.pt``.
        task: what the rest of the configuration was made for.
    """

    def __init__(self, path: str | os.PathLike[str], task: Task) -> None:
        self.path = Path(path)
        self.task = task
        self.checked: dict[Path, tuple[int, int]] = {}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data unchanged.

        Raises:
            FileNotFoundError: no weights, or none with a manifest.
            ValueError: the file is another one than its manifest describes, no segmentation network, or one of
                another task.
        """
        name: Any = data.get("model_filename") or self.path.name
        path = self.path.with_name(name if isinstance(name, str) else name[0])
        version = _version(path)
        if version is None or self.checked.get(path) != version:
            check_model(path, self.task)
            if version is not None:
                self.checked[path] = version
        return dict(data)


def _version(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def check_model(path: str | os.PathLike[str], task: Task | None = None) -> Task:
    """Return the task of a network's file after checking it against its manifest.

    Raises:
        FileNotFoundError: the file or its manifest is missing.
        ValueError: the file is another one than its manifest describes, no segmentation network, or of another task
            than the one given.
    """
    read_manifest(path, kind="segmentation_network")
    found = Task.from_model(path)
    if task is not None and found != task:
        own, other = found.to_json(), task.to_json()
        names = [name for name in {**own, **other} if own.get(name) != other.get(name)]
        raise ValueError(
            f"{manifest_path(path)}: this network was trained for "
            f"{', '.join(f'{name} {own.get(name)}' for name in names)}, but the bundle is open for "
            f"{', '.join(f'{name} {other.get(name)}' for name in names)}. Give weights of the same task, or open the "
            "bundle again (restart the server)."
        )
    return found


class CheckChannelsd(MapTransform):
    """Refuse an image that the network cannot take, such as a 4-D file, which holds several volumes.

    Args:
        keys: what to check, channel first.
        channels: of the network's input.
    """

    def __init__(self, keys: str, channels: int) -> None:
        super().__init__(keys)
        self.channels = channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data unchanged.

        Raises:
            ValueError: neither (C, H, W) nor (C, H, W, D), or another C.
        """
        for key in self.key_iterator(dict(data)):
            image = data[key]
            if image.ndim not in (3, 4) or len(image) != self.channels:
                name = getattr(image, "meta", {}).get("filename_or_obj", key)
                raise ValueError(
                    f"{name}: {len(image)} channels of shape {tuple(image.shape[1:])}, but the network takes "
                    f"{self.channels}, of a 2-D image or a 3-D volume. A 4-D file holds several volumes: give one."
                )
        return dict(data)


class ImageAlone(InvertibleTransform):
    """Apply a transform to the image and show it nothing else of the data; its inverse likewise.

    Since https://github.com/Project-MONAI/MONAI/pull/8269 MONAI's ``Spacingd`` takes every entry whose name begins with
    ``image_`` for metadata of a NIfTI image, and fails on the ``image_path`` that MONAI Label puts there.

    Args:
        transform: invertible, with the key ``image``.
    """

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Apply the transform."""
        return {**data, **self.transform({IMAGE: data[IMAGE]})}

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Apply its inverse."""
        return {**data, **self.transform.inverse({IMAGE: data[IMAGE]})}


def inference_preprocessing(task: Task, model_path: str | os.PathLike[str]) -> Compose:
    """Return a task's transforms of an image, with the checks of weights and image before them.

    Raises:
        FileNotFoundError: there are no weights. Exports without ``model.pt`` and its manifest are not enough: nothing
            would tell the regions and the input size that they were trained for.
        ValueError: see `check_model`.
    """
    check_model(model_path, task)
    steps: list[Any] = [CheckModeld(model_path, task)]
    for step in task.inference_preprocessing().transforms:
        steps.append(ImageAlone(step) if isinstance(step, InPlaneGeometryd) else step)
        if isinstance(step, EnsureChannelFirstd):
            steps.append(CheckChannelsd(IMAGE, task.in_channels))
    return Compose(steps)
