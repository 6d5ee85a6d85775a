"""What the flows of Phase II learned, in numbers and pictures."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from mixstyleflow_monai.artifacts import read_manifest, write_json
from mixstyleflow_monai.data import RegionEncoding, SliceDataset
from mixstyleflow_monai.engines.style_preview import (
    batch_dice,
    choose_slices,
    in_unit_range,
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

    Of up to 16 labelled validation slices, with Dice from 0 to 100 and regions averaged:

    - ``reconstruction_psnr``: dB of the images decoded without a style against the images themselves, in [0, 1]; those
      that are z-scored are scaled there, a slice and channel, for this and for the panel.
    - ``plain_dice``: of the Phase I network on the images.
    - ``in_domain_dice``: on the images in styles of temperature 1, as the training domain has them.
    - ``stylised_dice``: on the images in styles of the levels' own temperatures, beyond the domain; every level active.

    Of the validation images, in whole batches (a few are left out or come again), for each entry of ``levels``:

    - ``nll_mean_nats_a_dimension``, ``nll_spread_nats_a_dimension``: negative log-likelihood of the images' channel
      means and spreads under the flows, divided by the number of channels; lower is better, and below 0 is possible,
      because it is a density. Comparable between flows of one network and level only. With joint flows
      ``nll_joint_nats_a_dimension`` takes their place, divided by twice the channels; it compares with their mean.
    - ``spread_of_means_temperature_T``, ``spread_of_stds_temperature_T``: standard deviation over 1000 samples drawn at
      temperature T divided by that over the images, median over channels. About 1 at temperature 1 if the flow fits;
      at the level's own temperature it says how far styles go beyond the domain.

    Args:
        bank: fitted flows.
        network: Phase I network.
        dataset: labelled source slices.
        encoding: of its labels.
        output_dir: where to write.
        statistics: level -> (mean, std) of validation images.
        device: where to run.
        flows_path: the flows' file, in an evaluation: the same numbers then go to ``evaluation.json`` as well, with
            phase, seed and the file's hash.
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
        flows_path: str | Path | None = None,
    ) -> None:
        self.bank = bank
        self.network = network.to(device).eval()
        self.dataset = dataset
        self.encoding = encoding
        self.output_dir = Path(output_dir)
        self.statistics = statistics
        self.device = torch.device(device)
        self.flows_path = flows_path

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
        shown = in_unit_range(self.network, images, {"reconstruction": reconstruction, "image": images})
        report: dict[str, Any] = {
            "reconstruction_psnr": float(peak_signal_to_noise_ratio(*shown.values()).mean()),
            "plain_dice": batch_dice(self.network, images, target, self.encoding),
            "in_domain_dice": batch_dice(self.network, rows["in domain"], target, self.encoding),
            "stylised_dice": batch_dice(self.network, rows["out of domain"], target, self.encoding),
        }
        engine.state.metrics.update(report)
        report["levels"] = {str(level): _finite(self._level(level), level) for level in self.bank.levels}
        for module, mode in training:
            module.training = mode
        write_json(self.output_dir / "style_report.json", report)
        if self.flows_path is not None:
            manifest = read_manifest(self.flows_path, kind="style_flows")
            facts: dict[str, Any] = {
                key: manifest[key] for key in ("phase", "seed", "dataset", "source_domain") if key in manifest
            }
            write_json(
                self.output_dir / "evaluation.json", {**facts, "model_sha256": manifest["sha256"], "styles": report}
            )
        panel = {name: shown[name] for name in ("image", "reconstruction")}
        save_panel(
            self.output_dir / "panels" / "styles.png",
            {name: row[:8] for name, row in {**panel, **in_unit_range(self.network, images, rows)}.items()},
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
            f"nll_{name}_nats_a_dimension": float(loss) / self.bank.flow(level, name).channels
            for (_, name), loss in losses.items()
        }
        for label, temperature in (("temperature_1", 1.0), (f"temperature_{own:g}", own)):
            means, stds = self.bank.sample(level, 1000, temperature=temperature, generator=generator)
            result[f"spread_of_means_{label}"] = _spread_ratio(means, mean)
            result[f"spread_of_stds_{label}"] = _spread_ratio(stds, std)
        return result


def _spread_ratio(sampled: Tensor, real: Tensor) -> float:
    """Return the median over channels of the ratio of standard deviations over images.

    In double precision: without an envelope samples may be so large that their squares overflow a float.
    """
    sampled, real = (values.double().cpu() for values in (sampled, real))
    return float((sampled.std(0) / real.std(0).clamp_min(1e-6)).median())


def _finite(values: Mapping[str, float], level: int) -> dict[str, float | None]:
    """Return the numbers with None for those that are infinite or none, which JSON does not have, and warn of them."""
    wrong = [name for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        logger.warning(
            "level %s: %s not finite. Its flows draw styles far outside of the training data: set clip_to_envelope to "
            "true or lower the temperature.",
            level,
            ", ".join(wrong),
        )
    return {name: None if name in wrong else value for name, value in values.items()}


class StylePanels:
    """Evaluator handler: for each batch of images a PNG with the images in styles from in and out of the domain.

    The file is named by its number, the first and the last case and the seed, such as
    ``styles_0001_a17_to_b03_seed0.png``, and each column by its case; where the batch has no ``case_id``, by number and
    seed alone. So images of other cases, or in styles of another seed, do not take its place.

    Args:
        stylizer: with the fitted flows.
        network: Phase I network.
        output_dir: folder for the files.
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
        rows = in_unit_range(self.network, images, rows)
        order = sorted(rows, key=lambda name: ("out" in name, "in domain" in name))
        cases = [str(name) for name in engine.state.batch.get("case_id", ())]
        save_panel(
            self.output_dir / _panel_name(engine.state.iteration, cases, self.seed),
            {name: rows[name] for name in order},
            column_titles=[_short(case) for case in cases],
        )


def _panel_name(number: int, cases: Sequence[str], seed: int) -> str:
    """Return the name of a panel's file, without signs that a file system may refuse."""
    ends = [re.sub(r"[^\w.-]+", "_", _short(case, 40)) for case in dict.fromkeys([*cases[:1], *cases[-1:]])]
    return "_".join([f"styles_{number:04d}", *(["_to_".join(ends)] if ends else []), f"seed{seed}"]) + ".png"


def _short(name: str, letters: int = 22) -> str:
    """Cut the middle out of a long name, because its ends tell cases apart."""
    keep = (letters - 3) // 2
    return name if len(name) <= letters else f"{name[:keep]}...{name[-keep:]}"
