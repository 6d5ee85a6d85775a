"""Validation on source images under shifts set by hand: methods are chosen by it where there is no other site.

Networks that do as well on plain validation images may differ by 20 Dice points on another site's. On images whose
contrast, light, sharpness, noise or colour is changed they differ as well, and nothing of another site is needed. How
far the two agree is measured in ``docs/method_study.md``; where another site differs in something else, they do not.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.transforms import MapTransform
from torch import Tensor, nn
from torch.nn import functional as F

from mixstyleflow_monai.artifacts import write_json
from mixstyleflow_monai.data import SliceDataset, Task
from mixstyleflow_monai.data.transforms import ScaleSlicesToUnitRanged, StandardizeSlicesd
from mixstyleflow_monai.engines.style_preview import batch_dice
from mixstyleflow_monai.processes import alone, is_first

logger = logging.getLogger(__name__)

Shift = Callable[[Tensor], Tensor]
"""Images (B, c, H, W) in [0, 1] to the same; not clipped."""
GREY_VALUES = ("gamma 0.5", "gamma 2", "darker", "brighter", "flat contrast", "steep contrast")
"""Shifts that map each value to another, all alike."""
PLAIN, MEAN, MEAN_OF_PAIRS = "plain", "mean of shifts", "mean of pairs"
FILE = "shifted_validation.json"
BATCH_SIZE = 8
"""Slices at a time, as many as an evaluation takes of a volume."""


class ShiftedValidation:
    """Write ``shifted_validation.json``: Dice on source validation slices, plain and shifted.

    The shifts are photometric, of fixed strength and the same for every network: contrast curves, brightness, light
    that falls off, blur, noise, resolution and, for colour images, casts, saturation and hue. Where one of them alone
    costs networks next to nothing, two at a time still tell them apart: each change of the grey values, followed by
    each of the others. Where every slice is scaled by its own range, or z-scored, it is so again after a shift, as
    images of a site with that shift would be.

    Attach to the evaluator of a trained network; it works when that has ended. Of several processes the first one does.

    Args:
        network: to be validated.
        data: MONAI datalist of validation cases.
        source_domain: that the network was trained on; cases of others are left out.
        trained_on: ids of the training's cases, which validate nothing.
        task: of the network.
        output_dir: folder to write to.
        facts: further entries of the record.
        device: where to validate.
        batch_size: slices at a time.
        enabled: False does nothing.

    Raises:
        ValueError: no validation cases, or some that were trained on.
    """

    def __init__(
        self,
        network: nn.Module,
        data: Sequence[Mapping[str, Any]],
        source_domain: str,
        task: Task,
        output_dir: str | os.PathLike[str],
        *,
        trained_on: Sequence[str] = (),
        facts: Mapping[str, Any] | None = None,
        device: str | torch.device = "cpu",
        batch_size: int = BATCH_SIZE,
        enabled: bool = True,
    ) -> None:
        self.network = network
        self.data = [case for case in data if case["domain"] == source_domain] if enabled else []
        if enabled and not self.data:
            raise ValueError(
                f"shifted_validation=true: the data set has no validation case of {source_domain!r}, the domain that "
                "the network was trained on. Give the data set of its training, or --shifted_validation false."
            )
        seen = sorted({str(case["case_id"]) for case in self.data} & set(trained_on))
        if seen:
            raise ValueError(
                f"shifted_validation=true: {len(seen)} validation cases, among them {seen[:3]}, were training cases of "
                "the network. Give the data set of its training, or --shifted_validation false."
            )
        self.task = task
        self.path = Path(output_dir) / FILE
        self.facts = dict(facts or {})
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.enabled = enabled

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        if self.enabled:
            engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Validate and write."""
        if not is_first():
            return
        with alone():
            images, target = validation_slices(self.data, self.task)
            self.network.eval()
            found = shifted_dice(
                self.network, self.task, images, target, device=self.device, batch_size=self.batch_size
            )
        write_json(self.path, {**self.facts, "slices": len(images), **found})
        logger.info("wrote %s", self.path)


def validation_slices(data: Sequence[Mapping[str, Any]], task: Task) -> tuple[Tensor, Tensor]:
    """Return labelled slices (N, c, H, W) and their labels (N, K, H, W) as the network gets them."""
    dataset = SliceDataset(data, task.training_preprocessing(), slices="labelled", progress=False)
    items = [dataset[k] for k in range(len(dataset))]
    return torch.stack([item["image"] for item in items]), torch.stack([item["label"] for item in items])


@torch.no_grad()
def shifted_dice(
    network: nn.Module,
    task: Task,
    images: Tensor,
    target: Tensor,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = BATCH_SIZE,
) -> dict[str, float]:
    """Return the mean Dice (0 to 100) on plain images, under each shift, and the means over shifts and over pairs.

    Dice is over slices and regions on the network's grid; a region that is absent in both counts as 100.

    Args:
        network: in eval mode, on ``device``.
        task: of the network.
        images: as the network gets them, (N, c, H, W), on the CPU.
        target: labels (N, K, H, W), as a training gets them.
        device: of the network.
        batch_size: slices that are shifted and go through the network at once.
    """
    colour = task.spatial_dims == 2 and images.shape[1] == 3  # channels of a volume are sequences, not colours

    def dice(name: str) -> float:
        # Made anew for each pass, its noise runs on from batch to batch.
        shift = every_shift(colour)[name]
        parts = zip(images.split(batch_size), target.split(batch_size), strict=True)
        total = math.fsum(
            len(part) * batch_dice(network, _shifted(part, shift, task).to(device), truth.to(device), task.encoding)
            for part, truth in parts
        )
        return total / len(images)

    plain = dice(PLAIN)
    single = {name: dice(name) for name in single_shifts(colour)}
    pairs = {name: dice(name) for name in pairs_of(single_shifts(colour))}
    return {PLAIN: plain, **single, MEAN: _mean(single), MEAN_OF_PAIRS: _mean(pairs)}


def every_shift(colour: bool) -> dict[str, Shift]:
    """Return `PLAIN`, which changes nothing, every shift and every pair, by name."""
    shifts = single_shifts(colour)
    return {PLAIN: _unchanged, **shifts, **pairs_of(shifts)}


def single_shifts(colour: bool) -> dict[str, Shift]:
    """Return the shifts by name, those of colour only where they are wanted."""
    return {**grey_shifts(), **(colour_shifts() if colour else {})}


def grey_shifts() -> dict[str, Shift]:
    """Return the shifts that any image can have, by name; the noise goes on from call to call."""
    noise = torch.Generator().manual_seed(0)
    return {
        "gamma 0.5": lambda x: x.clamp_min(0).pow(0.5),
        "gamma 2": lambda x: x.pow(2.0),
        "darker": lambda x: x - 0.2,
        "brighter": lambda x: x + 0.2,
        "flat contrast": lambda x: 0.5 * x + 0.25,
        "steep contrast": lambda x: 1.6 * (x - 0.5) + 0.5,
        "falling light": lambda x: x * _ramp(x),
        "blur": _blur,
        "noise": lambda x: x + 0.08 * torch.randn(x.shape, generator=noise),
        "low resolution": _low_resolution,
    }


def colour_shifts() -> dict[str, Shift]:
    """Return the shifts of images with three channels, by name."""
    casts = {"red cast": (1.3, 1.0, 0.7), "green cast": (0.8, 1.25, 0.8), "blue cast": (0.7, 1.0, 1.3)}
    shifts: dict[str, Shift] = {
        name: lambda x, gains=gains: x * torch.tensor(gains)[:, None, None]  # type: ignore[misc]
        for name, gains in casts.items()
    }
    shifts["pale"] = lambda x: 0.3 * x + 0.7 * x.mean(1, keepdim=True)
    shifts["hue +60"] = lambda x: _turn_hue(x, 60.0)
    shifts["hue -60"] = lambda x: _turn_hue(x, -60.0)
    return shifts


def pairs_of(shifts: Mapping[str, Shift]) -> dict[str, Shift]:
    """Return every change of grey values (`GREY_VALUES`) followed by every other shift, clipped between them."""

    def both(first: Shift, second: Shift) -> Shift:
        return lambda images: second(first(images).clamp(0.0, 1.0))

    others = [name for name in shifts if name not in GREY_VALUES]
    return {f"{a}, {b}": both(shifts[a], shifts[b]) for a in GREY_VALUES for b in others}


def _mean(dice: Mapping[str, float]) -> float:
    return math.fsum(dice.values()) / len(dice)


def _unchanged(images: Tensor) -> Tensor:
    return images


def _shifted(images: Tensor, shift: Shift, task: Task) -> Tensor:
    """Return images as the network gets them from a site with that shift."""
    if shift is _unchanged:
        return images
    unit = _each_slice(images, ScaleSlicesToUnitRanged("image")) if task.intensity == "z_score" else images
    shown = shift(unit).clamp(0.0, 1.0)
    if task.intensity == "slice_range":
        # What a scanner does to all values alike, a network of such images never sees.
        return _each_slice(shown, ScaleSlicesToUnitRanged("image"))
    return _each_slice(shown, StandardizeSlicesd("image")) if task.intensity == "z_score" else shown


def _each_slice(images: Tensor, transform: MapTransform) -> Tensor:
    return torch.stack([transform({"image": image})["image"] for image in images])


def _ramp(images: Tensor) -> Tensor:
    return torch.linspace(0.4, 1.4, images.shape[-1]).expand(images.shape[-2:])


def _blur(images: Tensor) -> Tensor:
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0])
    kernel = (kernel[:, None] * kernel / 256.0).expand(images.shape[1], 1, 5, 5)
    for _ in range(2):
        images = F.conv2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), kernel, groups=images.shape[1])
    return images


def _low_resolution(images: Tensor) -> Tensor:
    return F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear")


def _turn_hue(images: Tensor, degrees: float) -> Tensor:
    """Rotate colours about the grey axis (Rodrigues' formula)."""
    angle, axis = math.radians(degrees), torch.full((3,), 1.0 / math.sqrt(3.0))
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3.0)
    turn = (
        math.cos(angle) * torch.eye(3) + math.sin(angle) * cross + (1.0 - math.cos(angle)) * axis[:, None] * axis[None]
    )
    return torch.einsum("ij,bjhw->bihw", turn, images)
