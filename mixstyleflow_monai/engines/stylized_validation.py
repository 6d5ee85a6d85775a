"""Validation on source images in drawn styles: a stand-in for domains that must not choose anything."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.handlers import MeanDice, from_engine
from monai.inferers import Inferer
from torch import Tensor, nn

from mixstyleflow_monai.data import ProcessSampler, SliceDataset, epoch_seed
from mixstyleflow_monai.engines.computation import SegmentationEvaluator
from mixstyleflow_monai.engines.hard_pass import Stylizer, check_range
from mixstyleflow_monai.engines.style_preview import frozen_copy
from mixstyleflow_monai.networks import DualDecoderNet, untracked_batch_norm
from mixstyleflow_monai.processes import alone
from mixstyleflow_monai.styles.images import makes_z_scored_images
from mixstyleflow_monai.styles.level_mix import LevelStyleMix

METRIC = "val_stylized_mean_dice"
STYLE_SEED = 20_250_923
"""Of the styles of validation, whatever the seed of the training. Far from those that trainings are given."""


class StylizedValidation:
    """Measure the mean Dice on stylised validation slices, as ``val_stylized_mean_dice`` beside the plain one.

    The slices are stylised once, before training, with styles of one fixed seed, every level active: the same images at
    each validation, for each seed of the training, and for every method that is given the same stylizer. The painter,
    the network that decodes them, is the one of Phase I and never the one in training, whose image decoder changes:
    with it, scores of two epochs or methods would be of different images, and a decoder that learned to paint pale
    styles would raise them. Dice is MONAI's over slices and regions, as ``val_mean_dice``.

    Attach to an evaluator, before what logs or uses the metric.

    Args:
        network: to be validated.
        dataset: labelled validation slices, not augmented. They are kept in memory, 4 bytes a value.
        stylizer: makes the images; left as it is. None is refused.
        painter_path: weights of the Phase I network, in the architecture of ``network``; None where there are none,
            for stylizers that work on images alone (``needs_latent`` False).
        postprocessing: of the evaluator, to binary masks.
        inferer: of the evaluator.
        device: where to paint and to validate.
        batch_size: images painted and validated at a time. It shapes the styles: statistics of batch norm, and styles
            of other images, are those of a batch.
        seed: of the styles.
        amp: mixed precision of validation, see `mixstyleflow_monai.engines.computation.autocast_type`.

    Raises:
        ValueError: no stylizer, one that cannot paint here, or one for images of another range than the network's.
    """

    def __init__(
        self,
        network: DualDecoderNet,
        dataset: SliceDataset,
        stylizer: Stylizer | None,
        *,
        painter_path: str | Path | None = None,
        postprocessing: Callable[..., Any] | None = None,
        inferer: Inferer | None = None,
        device: str | torch.device = "cpu",
        batch_size: int = 16,
        seed: int = STYLE_SEED,
        amp: bool | str = False,
    ) -> None:
        stylizer = check_stylizer(stylizer, has_painter=painter_path is not None)
        check_range(stylizer, "instance_norm" if makes_z_scored_images(network) else "sigmoid")
        painter = None
        if painter_path is not None and getattr(stylizer, "needs_latent", True):
            painter = frozen_copy(network, painter_path)
        with alone():
            items = stylized_items(dataset, stylizer, painter, batch_size=batch_size, seed=seed, device=device)
        share = [items[k] for k in ProcessSampler(items)]
        self.evaluator = SegmentationEvaluator(
            device=torch.device(device),
            val_data_loader=DataLoader(Dataset(share), batch_size=batch_size, generator=torch.Generator()),
            network=network,
            inferer=inferer,
            postprocessing=postprocessing,
            key_val_metric={METRIC: MeanDice(include_background=True, output_transform=from_engine(["pred", "label"]))},
            amp=amp,
        )

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Validate, and add the metric to the evaluator's own."""
        self.evaluator.run(global_epoch=max(1, engine.state.epoch))
        engine.state.metrics[METRIC] = self.evaluator.state.metrics[METRIC]


def check_stylizer(stylizer: Stylizer | None, *, has_painter: bool = True) -> Stylizer:
    """Return a stylizer that can paint validation slices.

    Args:
        stylizer: value of the option ``selection_stylizer``.
        has_painter: whether there is a network to decode images.

    Raises:
        ValueError: none, something else, one that asks for the loss of a training, or one that needs a painter.
    """
    start = "selection='best_stylized' validates on images of selection_stylizer"
    others = "the flows of phase 2 with the overlay best_stylized.json" if has_painter else "BigAug in an overlay"
    remedy = f"Give another one, such as {others}, or --selection best or last."
    if stylizer is None:
        raise ValueError(
            f"{start}, which is null: there is no stylizer that the training itself uses. Give one, the same for all "
            f"methods that are compared, such as {others}, or --selection best or last."
        )
    if not callable(stylizer):
        raise ValueError(f"{start}, which is {stylizer!r}: expected a component, not a name. {remedy}")
    name = type(stylizer).__name__
    if getattr(stylizer, "needs_objective", False):
        raise ValueError(
            f"{start}, but {name} makes its images from the loss of the network in training: they would be others at "
            f"every validation. {remedy}"
        )
    if not has_painter and getattr(stylizer, "needs_latent", True):
        raise ValueError(
            f"{start}, but {name} lets the network of phase 1 decode images, and only phase 3 has one. {remedy}"
        )
    return stylizer


@torch.no_grad()
def stylized_items(
    dataset: SliceDataset,
    stylizer: Stylizer,
    painter: DualDecoderNet | None = None,
    *,
    batch_size: int = 16,
    seed: int = STYLE_SEED,
    device: str | torch.device = "cpu",
) -> list[dict[str, Tensor]]:
    """Return the items of a data set with stylised images, on the CPU.

    Batches are of consecutive slices, as even as possible and at most ``batch_size`` long; each has a seed of its own.
    So the images do not depend on how many processes share them. `LevelStyleMix` stylizers have every level active.

    Args:
        dataset: items with ``image`` (c, H, W) and ``label``.
        stylizer: of the images; a copy of it draws, so that its random state stays as it was.
        painter: network that decodes, in eval mode; None for stylizers that work on images alone.
        batch_size: largest number of images at a time.
        seed: of the styles.
        device: where to paint.
    """
    stylizer = copy.deepcopy(stylizer)
    if isinstance(stylizer, nn.Module):
        for part in stylizer.train().modules():
            if isinstance(part, LevelStyleMix):
                part.probability = 1.0
    batches = torch.arange(len(dataset)).tensor_split(max(1, math.ceil(len(dataset) / batch_size)))
    items: list[dict[str, Tensor]] = []
    for number, batch in enumerate(batches, start=1):
        plain = [dataset[k] for k in batch.tolist()]
        images = torch.stack([item["image"] for item in plain]).to(device)
        if hasattr(stylizer, "reseed"):
            stylizer.reseed(epoch_seed(seed, number))
        latent = images
        if painter is not None:
            with untracked_batch_norm(painter):
                latent = painter.encode(images)
        painted = stylizer(painter, images, latent).cpu()
        items += [{**item, "image": image} for item, image in zip(plain, painted, strict=True)]
    return items
