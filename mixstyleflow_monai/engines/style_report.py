"""What the flows of Phase II learned, in numbers and pictures."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from mixstyleflow_monai.artifacts import write_json
from mixstyleflow_monai.data import RegionEncoding, SliceDataset
from mixstyleflow_monai.engines.style_preview import (
    batch_dice,
    choose_slices,
    stylised_rows,
    warn_if_poor,
)
from mixstyleflow_monai.engines.style_statistics import Statistics
from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.losses import peak_signal_to_noise_ratio
from mixstyleflow_monai.networks import DualDecoderNet, untracked_batch_norm
from mixstyleflow_monai.report.figures import save_panel
from mixstyleflow_monai.styles import FlowStyleMix

logger = logging.getLogger(__name__)


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
        warn_if_poor(engine.state.metrics, self.output_dir / "panels")

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
