"""Dice on source validation images under shifts set by hand, to choose among recipes without any unseen domain.

``python -m benchmarks.held_in_shifts RUN --dataset_dir DATASET`` prints, for folders with ``models/model.pt``, the mean
Dice of plain and of shifted source validation slices. The shifts are photometric and of fixed strength: contrast
curves, brightness, illumination across the image, blur, noise, resolution and, for colour images, casts, saturation
and hue. Where one of them alone costs a recipe next to nothing, two at a time still tell recipes apart: each change of
the grey values, followed by each of the others. Where every slice is scaled by its own range, it is scaled so again
after a shift, as images of a site with that shift would be.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import fire
import torch
from torch import Tensor
from torch.nn import functional as F

from mixstyleflow_monai.data import SliceDataset, Task, load_dataset
from mixstyleflow_monai.data.transforms import ScaleSlicesToUnitRanged
from mixstyleflow_monai.engines import load_network
from mixstyleflow_monai.engines.style_preview import batch_dice
from mixstyleflow_monai.networks import DualDecoderNet

Shift = Callable[[Tensor], Tensor]
"""Images (B, c, H, W) in [0, 1] to the same; not clipped."""
GREY_VALUES = ("gamma 0.5", "gamma 2", "darker", "brighter", "flat contrast", "steep contrast")
"""Shifts that map each value to another, all alike."""
MEAN, MEAN_OF_PAIRS = "mean of shifts", "mean of pairs"


def grey_shifts() -> dict[str, Shift]:
    """Return the shifts that any image can have, by name."""
    return {
        "gamma 0.5": lambda x: x.clamp_min(0).pow(0.5),
        "gamma 2": lambda x: x.pow(2.0),
        "darker": lambda x: x - 0.2,
        "brighter": lambda x: x + 0.2,
        "flat contrast": lambda x: 0.5 * x + 0.25,
        "steep contrast": lambda x: 1.6 * (x - 0.5) + 0.5,
        "falling light": lambda x: x * _ramp(x),
        "blur": _blur,
        "noise": lambda x: x + 0.08 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
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


def shifted_dice(network: DualDecoderNet, task: Task, images: Tensor, target: Tensor) -> dict[str, float]:
    """Return the mean Dice (0 to 100) on plain images, under each shift, and the means over shifts and over pairs.

    Raises:
        ValueError: images are z-scored, which the shifts, of values in [0, 1], are not for.
    """
    if task.intensity == "z_score":
        raise ValueError(
            "intensity='z_score': shifts are for images in [0, 1]. Choose by networks of another intensity."
        )
    shifts = {**grey_shifts(), **(colour_shifts() if images.shape[1] == 3 else {})}
    result = {"plain": batch_dice(network, images, target, task.encoding)}

    def dice(shift: Shift) -> float:
        shifted = shift(images).clamp(0.0, 1.0)
        if task.intensity == "slice_range":
            # What a scanner does to all values alike, a network of such images never sees.
            scaled = ScaleSlicesToUnitRanged("image")
            shifted = torch.stack([scaled({"image": image})["image"] for image in shifted])
        return batch_dice(network, shifted, target, task.encoding)

    result |= {name: dice(shift) for name, shift in shifts.items()}
    result[MEAN] = sum(result[name] for name in shifts) / len(shifts)
    pairs = [dice(shift) for shift in pairs_of(shifts).values()]
    return {**result, MEAN_OF_PAIRS: sum(pairs) / len(pairs)}


def main(*runs: str, dataset_dir: str) -> None:
    """Print the Dice of each run as a line of JSON.

    Args:
        runs: folders with ``models/model.pt``.
        dataset_dir: the data set that they were trained on.
    """
    for run in runs:
        print(json.dumps({"run": str(run), **shifts_of_run(Path(run), Path(dataset_dir))}), flush=True)


def shifts_of_run(run: Path, dataset_dir: Path) -> dict[str, float]:
    """Return `shifted_dice` of a trained network on the labelled validation slices of its source domain.

    Args:
        run: folder with ``models/model.pt``.
        dataset_dir: the data set that it was trained on.
    """
    path = run / "models" / "model.pt"
    task = Task.from_model(path)
    network = DualDecoderNet(**task.network_settings())
    load_network(network, path)
    data = SliceDataset(
        load_dataset(str(dataset_dir)).datalist("validation"),
        task.training_preprocessing(),
        slices="labelled",
        progress=False,
    )
    items = [data[k] for k in range(len(data))]
    images = torch.stack([item["image"] for item in items])
    target = torch.stack([item["label"] for item in items])
    return shifted_dice(network.eval(), task, images, target)


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


if __name__ == "__main__":
    fire.Fire(main)
