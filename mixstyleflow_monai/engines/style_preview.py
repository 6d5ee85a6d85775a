"""Look at what the stylizer would show the network: reconstructions and stylised images, with numbers."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from mixstyleflow_monai.artifacts import write_json
from mixstyleflow_monai.data import RegionEncoding, SliceDataset
from mixstyleflow_monai.engines.handlers import load_network
from mixstyleflow_monai.engines.style_statistics import Statistics
from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.losses import peak_signal_to_noise_ratio
from mixstyleflow_monai.networks import DualDecoderNet, untracked_batch_norm
from mixstyleflow_monai.report.figures import save_panel
from mixstyleflow_monai.styles import FlowStyleMix

logger = logging.getLogger(__name__)

POOR_PSNR = 18.0
"""Reconstructions below this many dB are reported as too poor to stylise; see docs/results.md for how it was found."""

POOR_TEXT = (
    "reconstruction PSNR %.1f dB is below %.0f dB: the image decoder loses too much for stylised images to keep their "
    "anatomy. Look at %s; train phase 1 longer or at a larger image_size."
)


class StylePreview:
    """Measure and show reconstruction and styles on fixed source slices, every few epochs of a training.

    Adds to ``engine.state.metrics``, so that logs and trackers get them: ``reconstruction_psnr`` in dB on clean images;
    with flows also ``stylised_dice``, the Dice (0 to 100) that a frozen copy of the network the training started from
    reaches on stylised images, and ``plain_dice``, the same on the images themselves. If the first falls far below the
    second, anatomy was lost. Writes ``panels/epoch_0001.png`` and so on.

    Args:
        network: network in training.
        dataset: labelled source slices, not augmented; evenly spaced ones with foreground are chosen.
        encoding: of its labels.
        output_dir: folder for ``panels``.
        stylizer: Phase III's, or None.
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
        stylizer: FlowStyleMix | None = None,
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
        self.judge = frozen_copy(network, judge_path) if stylizer is not None else None

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.warn_if_poor)

    def __call__(self, engine: Any) -> None:
        """Measure at this epoch if it is due."""
        if engine.state.epoch % self.interval and engine.state.epoch != engine.state.max_epochs:
            return
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
        """Say so when reconstructions are too poor for stylised images to keep their anatomy."""
        psnr = engine.state.metrics.get("reconstruction_psnr")
        if psnr is not None and psnr < POOR_PSNR:
            logger.warning(POOR_TEXT, psnr, POOR_PSNR, self.output_dir / "panels")

    @torch.no_grad()
    def measure(self, seed: int = 0) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Return the numbers and the rows of the panel."""
        network, images = self.network, self.images
        with untracked_batch_norm(network):
            latent = network.encode(images)
            reconstruction = network.decode_image(latent)
        numbers = {"reconstruction_psnr": float(peak_signal_to_noise_ratio(reconstruction, images).mean())}
        rows = {"image": images, "reconstruction": reconstruction}
        if self.stylizer is not None and self.judge is not None:
            styled = stylised_rows(self.stylizer, network, images, latent, seed)
            numbers["plain_dice"] = batch_dice(self.judge, images, self.target, self.encoding)
            numbers["stylised_dice"] = batch_dice(self.judge, styled["out of domain"], self.target, self.encoding)
            rows.update(styled)
        return numbers, rows


class StyleFlowReport:
    """At the end of Phase II say what the flows learned: ``style_report.json`` and ``panels/styles.png``.

    The report holds, for each flow, the validation NLL in nats a dimension, and, for each level, how sampled statistics
    compare with the validation images' own: ratio of spreads over images at temperature 1 and at the level's own. And
    for images: reconstruction PSNR, the Dice of the Phase I network on plain images and on images stylised in and out
    of domain.

    Args:
        bank: fitted flows.
        network: Phase I network.
        dataset: labelled source slices.
        encoding: of its labels.
        output_dir: where to write.
        statistics: level -> (mean, std) of validation images.
        device: where to run.
    """

    def __init__(
        self,
        bank: StyleFlowBank,
        network: DualDecoderNet,
        dataset: SliceDataset,
        encoding: RegionEncoding,
        output_dir: str | Path,
        *,
        statistics: Statistics,
        device: str | torch.device = "cpu",
    ) -> None:
        self.bank = bank
        self.network = network.to(device).eval()
        self.dataset = dataset
        self.encoding = encoding
        self.output_dir = Path(output_dir)
        self.statistics = statistics
        self.device = torch.device(device)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, after the handler that loads the best flows, or to an evaluator."""
        engine.add_event_handler(Events.COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Any) -> None:
        """Measure and write."""
        images, target = choose_slices(self.dataset, 16, self.device)
        with untracked_batch_norm(self.network):
            latent = self.network.encode(images)
            reconstruction = self.network.decode_image(latent)
        training = [(module, module.training) for module in self.bank.modules()]
        stylizer = FlowStyleMix(self.bank)
        rows = stylised_rows(stylizer, self.network, images, latent)
        report: dict[str, Any] = {
            "reconstruction_psnr": float(peak_signal_to_noise_ratio(reconstruction, images).mean()),
            "plain_dice": batch_dice(self.network, images, target, self.encoding),
            "in_domain_dice": batch_dice(self.network, rows["in domain"], target, self.encoding),
            "stylised_dice": batch_dice(self.network, rows["out of domain"], target, self.encoding),
        }
        engine.state.metrics.update(report)
        report["levels"] = {str(level): self._level(level) for level in self.bank.levels}
        for module, mode in training:
            module.training = mode
        write_json(self.output_dir / "style_report.json", report)
        save_panel(
            self.output_dir / "panels" / "styles.png",
            {name: row[:8] for name, row in {"image": images, "reconstruction": reconstruction, **rows}.items()},
            contours={"image": self.encoding.masks_of_target(target)[:8]},
            title=f"reconstruction {report['reconstruction_psnr']:.1f} dB, Phase I Dice plain "
            f"{report['plain_dice']:.1f}, out of domain {report['stylised_dice']:.1f}",
        )
        if report["reconstruction_psnr"] < POOR_PSNR:
            logger.warning(POOR_TEXT, report["reconstruction_psnr"], POOR_PSNR, self.output_dir / "panels")

    def _level(self, level: int) -> dict[str, float]:
        mean, std = (t.to(self.device) for t in self.statistics[level])
        losses = self.bank.negative_log_likelihood({level: (mean, std)})
        generator = torch.Generator().manual_seed(0)
        own = self.bank.temperatures[level]
        result = {
            f"nll_{name}_nats_a_dimension": float(losses[level, name]) / mean.shape[1] for name in ("mean", "spread")
        }
        for label, temperature in (("temperature_1", 1.0), (f"temperature_{own:g}", own)):
            means, stds = self.bank.sample(level, 1000, temperature=temperature, generator=generator)
            result[f"spread_of_means_{label}"] = _spread_ratio(means, mean)
            result[f"spread_of_stds_{label}"] = _spread_ratio(stds, std)
        return result


def _spread_ratio(sampled: Tensor, real: Tensor) -> float:
    """Return the median over channels of the ratio of standard deviations over images."""
    return float((sampled.std(0) / real.std(0).clamp_min(1e-6)).median())


class StylePanels:
    """Evaluator handler: for each batch of images a PNG with the images in styles from in and out of the domain.

    Args:
        stylizer: with the fitted flows.
        network: Phase I network.
        output_dir: folder for ``styles_0001.png`` and so on.
        seed: of the styles.
    """

    def __init__(
        self, stylizer: FlowStyleMix, network: DualDecoderNet, output_dir: str | Path, *, seed: int = 0
    ) -> None:
        self.stylizer = stylizer
        self.network = network
        self.output_dir = Path(output_dir)
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Any) -> None:
        """Write the panel of a batch."""
        images = torch.as_tensor(engine.state.output["image"]).as_subclass(Tensor)
        with untracked_batch_norm(self.network):
            latent = self.network.encode(images)
            rows = {"image": images, "reconstruction": self.network.decode_image(latent)}
        for draw in range(2):
            styled = stylised_rows(self.stylizer, self.network, images, latent, self.seed + draw)
            rows.update({f"{name}, draw {draw + 1}": row for name, row in styled.items()})
        order = sorted(rows, key=lambda name: ("out" in name, "in domain" in name))
        save_panel(
            self.output_dir / f"styles_{engine.state.iteration:04d}.png",
            {name: rows[name] for name in order},
        )


def frozen_copy(network: DualDecoderNet, path: str | Path | None = None) -> DualDecoderNet:
    """Return an independent copy in eval mode without gradients, with its own weights or those of a file."""
    twin = copy.deepcopy(network)
    if path is not None:
        load_network(twin, path)
    return twin.eval().requires_grad_(False)


def stylised_rows(
    stylizer: FlowStyleMix, network: DualDecoderNet, images: Tensor, latent: Tensor, seed: int = 0
) -> dict[str, Tensor]:
    """Return images in a style from inside the domain (temperature 1) and outside it, every level active.

    The stylizer's own generator and settings are left as they were.
    """
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


def choose_slices(dataset: SliceDataset, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return up to ``count`` slices with foreground, evenly spread over the data set: images and targets."""
    items = [dataset[k] for k in range(len(dataset))]
    labelled = [item for item in items if (item["label"].flatten(1).amax(1) != item["label"].flatten(1).amin(1)).any()]
    chosen = labelled or items
    step = max(1, len(chosen) // count)
    chosen = chosen[::step][:count]
    return (
        torch.stack([item["image"] for item in chosen]).to(device),
        torch.stack([item["label"] for item in chosen]).to(device),
    )


@torch.no_grad()
def batch_dice(network: nn.Module, images: Tensor, target: Tensor, encoding: RegionEncoding) -> float:
    """Return the mean Dice over images and regions, 0 to 100; regions absent in both count as 100."""
    predicted = encoding.probabilities(network(images)) > 0.5
    truth = encoding.masks_of_target(target) > 0.5
    overlap = (predicted & truth).flatten(2).sum(2)
    size = predicted.flatten(2).sum(2) + truth.flatten(2).sum(2)
    dice = torch.where(size > 0, 2.0 * overlap / size.clamp_min(1), torch.ones_like(size, dtype=torch.float32))
    return 100.0 * float(dice.mean())
