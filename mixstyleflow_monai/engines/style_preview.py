"""Look at what the stylizer would show the network: reconstructions and stylised images, with numbers."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from mixstyleflow_monai.data import RegionEncoding, SliceDataset
from mixstyleflow_monai.engines.hard_pass import Stylizer
from mixstyleflow_monai.engines.warm_start import load_earlier_network
from mixstyleflow_monai.losses import peak_signal_to_noise_ratio
from mixstyleflow_monai.networks import DualDecoderNet, untracked_batch_norm
from mixstyleflow_monai.processes import alone, is_first
from mixstyleflow_monai.report.figures import save_panel
from mixstyleflow_monai.report.poor_styles import poor_styles
from mixstyleflow_monai.styles import FlowStyleMix
from mixstyleflow_monai.styles.combined import CombinedStylizer
from mixstyleflow_monai.styles.images import makes_z_scored_images, scale_to_unit_range_of

logger = logging.getLogger(__name__)

METRICS = ("reconstruction_psnr", "plain_dice", "stylised_dice")


def warn_if_poor(numbers: Mapping[str, float], panels: Path) -> None:
    """Say so when stylised images are likely to be other anatomy, and not the same anatomy in another style."""
    for fault, remedy in poor_styles(numbers):
        logger.warning("%s. Look at %s; %s.", fault, panels, remedy)


class StylePreview:
    """Measure and show reconstruction and styles on fixed source slices, every few epochs of a training.

    Adds to ``engine.state.metrics``, so that logs and trackers get them: ``reconstruction_psnr`` in dB on clean images;
    with flows also ``stylised_dice``, the Dice (0 to 100) that a frozen copy of the network the training started from
    reaches on stylised images, and ``plain_dice``, the same on the images themselves. If the first falls far below the
    second, anatomy was lost. Writes ``panels/epoch_0001.png`` and so on. Z-scored images are brought to [0, 1] for the
    PSNR and the panels, see `in_unit_range`.

    Args:
        network: network in training.
        dataset: labelled source slices, not augmented; evenly spaced ones with foreground are chosen.
        encoding: of its labels.
        output_dir: folder for ``panels``.
        stylizer: Phase III's, or None. One that needs the training's loss is not shown.
        judge_path: weights of the Phase I network, the judge; None for a copy of ``network`` as it is now.
        images: number of slices.
        interval: epochs between two previews; the last epoch has one always.
        device: where to run.
    """

    def __init__(
        self,
        network: DualDecoderNet,
        dataset: SliceDataset,
        encoding: RegionEncoding,
        output_dir: str | Path,
        *,
        stylizer: Stylizer | None = None,
        judge_path: str | Path | None = None,
        images: int = 16,
        interval: int = 5,
        device: str | torch.device = "cpu",
    ) -> None:
        self.network = network
        self.encoding = encoding
        self.output_dir = Path(output_dir)
        self.stylizer = stylizer
        self.interval = interval
        self.images, self.target = choose_slices(dataset, images, torch.device(device))
        # Made before training starts: the judge of anatomy must not learn from the hard examples.
        shown = stylizer is not None and not getattr(stylizer, "needs_objective", False)
        self.judge = frozen_copy(network, judge_path) if shown else None

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._forget)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.warn_if_poor)

    @staticmethod
    def _forget(engine: Any) -> None:
        """Remove the numbers of an earlier epoch, which logs and trackers would show again as this one's."""
        for name in METRICS:
            engine.state.metrics.pop(name, None)

    def __call__(self, engine: Any) -> None:
        """Measure at this epoch if it is due."""
        if not is_first() or (engine.state.epoch % self.interval and engine.state.epoch != engine.state.max_epochs):
            return
        with alone():
            numbers, rows = self.measure(seed=engine.state.epoch)
        engine.state.metrics.update(numbers)
        text = ", ".join(f"{name} {value:.1f}" for name, value in numbers.items())
        save_panel(
            self.output_dir / "panels" / f"epoch_{engine.state.epoch:04d}.png",
            {name: images[:8] for name, images in rows.items()},
            contours={"image": self.encoding.masks_of_target(self.target)[:8]},
            title=f"epoch {engine.state.epoch}: {text}",
        )

    def warn_if_poor(self, engine: Any) -> None:
        """Warn at the end of training if its last preview was poor."""
        warn_if_poor(engine.state.metrics, self.output_dir / "panels")

    @torch.no_grad()
    def measure(self, seed: int = 0) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Return the numbers and the rows of the panel."""
        network, images = self.network, self.images
        with untracked_batch_norm(network):
            latent = network.encode(images)
            reconstruction = network.decode_image(latent)
        rows = in_unit_range(network, images, {"image": images, "reconstruction": reconstruction})
        numbers = {"reconstruction_psnr": float(peak_signal_to_noise_ratio(*rows.values()).mean())}
        if self.stylizer is not None and self.judge is not None:
            styled = stylised_rows(self.stylizer, network, images, latent, seed)
            numbers["plain_dice"] = batch_dice(self.judge, images, self.target, self.encoding)
            # The last row is the hardest: out of domain, for flows.
            numbers["stylised_dice"] = batch_dice(self.judge, [*styled.values()][-1], self.target, self.encoding)
            rows.update(in_unit_range(network, images, styled))
        return numbers, rows


def in_unit_range(network: nn.Module, images: Tensor, rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the rows as they are, or where images are z-scored scaled by the range of each slice and channel."""
    if not makes_z_scored_images(network):
        return rows
    return {name: scale_to_unit_range_of(images, row) for name, row in rows.items()}


def frozen_copy(network: DualDecoderNet, path: str | Path | None = None) -> DualDecoderNet:
    """Return an independent copy in eval mode without gradients, with its own weights or those of a file."""
    twin = copy.deepcopy(network)
    if path is not None:
        load_earlier_network(twin, path, keep_added=False)
    return twin.eval().requires_grad_(False)


def stylised_rows(
    stylizer: Stylizer, network: DualDecoderNet, images: Tensor, latent: Tensor, seed: int = 0
) -> dict[str, Tensor]:
    """Return hard examples of images, by the name of a row; the last row is the hardest.

    With flows, images in a style from inside the domain (temperature 1) and outside it, every level active. The
    stylizer's own generator and settings are left as they were.
    """
    if not isinstance(stylizer, FlowStyleMix):
        with _seeded(stylizer, seed):
            return {"hard examples": stylizer(network, images, latent)}
    rows: dict[str, Tensor] = {}
    for name, temperatures in (
        ("in domain", dict.fromkeys(stylizer.bank.levels, 1.0)),
        ("out of domain", stylizer.temperatures),
    ):
        double = copy.copy(stylizer)
        double.generator = torch.Generator().manual_seed(seed)
        double.temperatures = temperatures
        rows[name] = double.stylize(network, images, latent, double.draw(len(images), probability=1.0))
    return rows


@contextmanager
def _seeded(stylizer: Stylizer, seed: int) -> Iterator[None]:
    """Give a stylizer and its parts fixed random numbers, and on leaving those that they would have had."""
    parts = list(stylizer.modules()) if isinstance(stylizer, torch.nn.Module) else [stylizer]
    held = [getattr(part, "generator", None) for part in parts]
    generators = [generator for generator in held if isinstance(generator, torch.Generator)]
    states = [generator.get_state() for generator in generators]
    try:
        if isinstance(stylizer, CombinedStylizer):
            stylizer.reseed(seed)
        else:
            for generator in generators:
                generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def choose_slices(dataset: SliceDataset, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return up to ``count`` slices with foreground, evenly spread over the data set: images and targets."""
    # Numbers first: slices of a large data set would not fit into memory together.
    numbers = [k for k in range(len(dataset)) if _varies(dataset[k]["label"])] or list(range(len(dataset)))
    count = min(count, len(numbers))
    chosen = [dataset[numbers[i * len(numbers) // count]] for i in range(count)]
    return (
        torch.stack([item["image"] for item in chosen]).to(device),
        torch.stack([item["label"] for item in chosen]).to(device),
    )


def _varies(label: Tensor) -> bool:
    """Tell whether a target (R, H, W) has a channel of more than one value."""
    return bool((label.flatten(1).amax(1) != label.flatten(1).amin(1)).any())


@torch.no_grad()
def batch_dice(network: nn.Module, images: Tensor, target: Tensor, encoding: RegionEncoding) -> float:
    """Return the mean Dice over images and regions, 0 to 100; regions absent in both count as 100."""
    predicted = encoding.probabilities(network(images)) > 0.5
    truth = encoding.masks_of_target(target) > 0.5
    overlap = (predicted & truth).flatten(2).sum(2)
    size = predicted.flatten(2).sum(2) + truth.flatten(2).sum(2)
    dice = torch.where(size > 0, 2.0 * overlap / size.clamp_min(1), torch.ones_like(size, dtype=torch.float32))
    return 100.0 * float(dice.mean())
