"""MixStyleFlow's stylizer: images decoded with channel statistics drawn from normalizing flows.

Two steps, kept apart: ``FlowStyleMix.draw`` makes a `DrawnStyle` from random numbers, ``FlowStyleMix.stylize`` uses one
without any randomness. A drawn style can so be recorded, replayed and tested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.networks import DualDecoderNet, untracked_batch_norm
from mixstyleflow_monai.styles.statistics import mix_statistics

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # What the paper states, where it differs from our default: the decoded image itself is the hard example.
    "paper": {"output": "decoded", "weight_law": "uniform", "probability": 1.0},
    # What the published code does: one style a batch, and again the decoded image.
    "official": {"output": "decoded", "style_per": "batch"},
}
"""Settings of `FlowStyleMix` by name. ``clamp_means``, ``spread`` and the couplings' clamp belong to the flow bank."""


@dataclass(frozen=True)
class LevelStyle:
    """A style for one level: mean and std (B, C), weight (B, 1) or (B, C) in [0, 1]."""

    mean: Tensor
    std: Tensor
    weight: Tensor


@dataclass(frozen=True)
class DrawnStyle:
    """What was drawn for a batch: a `LevelStyle` for each level that is active; inactive levels are absent."""

    levels: Mapping[int, LevelStyle]

    def state(self) -> dict[str, Tensor]:
        """Return plain tensors, to be saved with ``torch.save`` and read with ``weights_only=True``."""
        return {
            f"{level}.{name}": getattr(style, name)
            for level, style in self.levels.items()
            for name in ("mean", "std", "weight")
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> DrawnStyle:
        """Rebuild a style from `state`."""
        levels = sorted({int(key.split(".")[0]) for key in state})
        return cls({k: LevelStyle(state[f"{k}.mean"], state[f"{k}.std"], state[f"{k}.weight"]) for k in levels})


class FlowStyleMix(nn.Module):
    """Make hard examples: the image re-decoded with feature statistics sampled from flows, mixed with its own.

    Per level, with a chance of ``probability``, mu' = (1 - w) mu + w mu*, sigma' likewise (Eq. 7), where (mu*, sigma*)
    come from the level's flows at its temperature and w ~ Beta(alpha, alpha). Identity in eval mode, at probability 0
    and for a batch in which no level is active (with ``output="detail"``).

    Args:
        bank: fitted flows, frozen here; it is not part of this module's state.
        probability: chance in [0, 1] that a level is active, drawn once a level and batch.
        alpha: parameter of the Beta law, > 0.
        temperatures: scale of the base noise by level; None takes the bank's.
        style_per: "image" for a style an image (paper), "batch" for one style a batch (official code).
        weight_per: "image" for one w an image; "channel" for w ~ Bernoulli(lambda) a channel, lambda drawn an image.
        weight_law: "beta", or "uniform" for U(0, 1).
        output: "detail" adds the decoder's lost detail back, x + decode(styled) - decode(plain), clipped to [0, 1];
            "decoded" is the decoded image scaled to [0, 1] an image and channel, as in the paper.
        seed: seed of the module's own generator; global random state is neither read nor changed.

    References:
        MixStyleFlow, MICCAI 2025, Eq. 7, doi 10.1007/978-3-032-04947-6_36

    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(
        self,
        bank: StyleFlowBank,
        *,
        probability: float = 0.5,
        alpha: float = 0.1,
        temperatures: Mapping[int | str, float] | None = None,
        style_per: str = "image",
        weight_per: str = "image",
        weight_law: str = "beta",
        output: str = "detail",
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_probability(probability)
        if not (math.isfinite(alpha) and alpha > 0.0):
            raise ValueError(f"alpha={alpha}: expected a finite number above 0.")
        allowed = {
            "style_per": (style_per, ("image", "batch")),
            "weight_per": (weight_per, ("image", "channel")),
            "weight_law": (weight_law, ("beta", "uniform")),
            "output": (output, ("detail", "decoded")),
        }
        for name, (value, choices) in allowed.items():
            if value not in choices:
                raise ValueError(f"{name}={value!r}: expected one of {choices}.")
        chosen = {int(level): float(t) for level, t in (temperatures or {}).items()}
        unknown = sorted(set(chosen) - set(bank.levels))
        if unknown or not all(math.isfinite(t) and t > 0 for t in chosen.values()):
            raise ValueError(
                f"temperatures={dict(chosen)}: expected positive numbers for levels among {sorted(bank.levels)}, "
                "the levels that the flow bank has."
            )
        # A tuple hides the bank from nn.Module: flows must not be trained, moved to train mode or exported with us.
        self._bank = (bank.eval().requires_grad_(False),)
        self.probability = probability
        self.alpha = alpha
        self.temperatures = chosen
        self.style_per = style_per
        self.weight_per = weight_per
        self.weight_law = weight_law
        self.output = output
        self.generator = torch.Generator().manual_seed(seed)

    @classmethod
    def from_preset(cls, bank: StyleFlowBank, preset: str = "default", **changes: Any) -> FlowStyleMix:
        """Build with the settings of a preset, changed by keyword."""
        if preset not in PRESETS:
            raise ValueError(f"preset={preset!r}: expected one of {sorted(PRESETS)}.")
        return cls(bank, **{**PRESETS[preset], **changes})

    @property
    def bank(self) -> StyleFlowBank:
        """The flows, frozen."""
        return self._bank[0]

    def reseed(self, seed: int) -> None:
        """Start the generator anew, so that an epoch's draws depend on its number alone."""
        self.generator.manual_seed(seed)

    def draw(self, batch_size: int, *, probability: float | None = None) -> DrawnStyle:
        """Draw a style for a batch.

        Args:
            batch_size: number of images B.
            probability: chance of a level in [0, 1], in place of the module's own.

        Raises:
            ValueError: ``probability`` out of its range.
        """
        chance = self.probability if probability is None else _check_probability(probability)
        levels: dict[int, LevelStyle] = {}
        for level in sorted(self.bank.levels):
            if not float(torch.rand((), generator=self.generator)) < chance:
                continue
            styles = batch_size if self.style_per == "image" else 1
            mean, std = self.bank.sample(
                level, styles, temperature=self.temperatures.get(level), generator=self.generator
            )
            mean, std = mean.expand(batch_size, -1), std.expand(batch_size, -1)
            levels[level] = LevelStyle(mean, std, self._draw_weight(batch_size, mean.shape[1]).to(mean))
        return DrawnStyle(levels)

    def stylize(self, network: DualDecoderNet, images: Tensor, latent: Tensor, style: DrawnStyle) -> Tensor:
        """Return the hard examples (B, c, H, W) in [0, 1] of ``images`` for a drawn style. No randomness.

        Args:
            network: its image decoder decodes; its batch norms use batch statistics and keep their buffers.
            images: (B, c, H, W) in [0, 1].
            latent: z_i of the images, (B, 128, H/16, W/16).
            style: what `draw` returned.
        """

        def hook(level: int, features: Tensor) -> Tensor:
            chosen = style.levels.get(level)
            if chosen is None:
                return features
            return mix_statistics(features, chosen.mean, chosen.std, chosen.weight)

        if self.output == "detail" and not style.levels:
            return images
        with torch.no_grad(), untracked_batch_norm(network):
            latent = latent.detach()
            styled = network.decode_image(latent, hook)
            if self.output == "detail":
                plain = network.decode_image(latent)
                return (images + styled - plain).clamp(0.0, 1.0).to(images.dtype)
        return _scale_to_unit_range(styled).to(images.dtype)

    def forward(self, network: DualDecoderNet, images: Tensor, latent: Tensor) -> Tensor:
        """Draw and apply; the images themselves in eval mode or at probability 0."""
        if not self.training or self.probability == 0.0:
            return images
        return self.stylize(network, images, latent, self.draw(images.shape[0]))

    def extra_repr(self) -> str:
        """Show the settings."""
        return (
            f"probability={self.probability}, alpha={self.alpha}, temperatures={self.temperatures or 'of the bank'}, "
            f"style_per={self.style_per!r}, weight_per={self.weight_per!r}, weight_law={self.weight_law!r}, "
            f"output={self.output!r}"
        )

    def _draw_weight(self, batch_size: int, channels: int) -> Tensor:
        if self.weight_law == "uniform":
            weight = torch.rand(batch_size, 1, generator=self.generator)
        else:
            # Beta(a, a) from two Gamma(a, 1). torch.distributions has no generator argument; the private
            # standard-gamma kernel has. In float64, because at a = 0.1 a float32 Gamma is often exactly 0.
            shape = torch.full((2, batch_size, 1), self.alpha, dtype=torch.float64)
            gamma = torch._standard_gamma(shape, generator=self.generator).clamp_min(torch.finfo(torch.float64).tiny)
            weight = (gamma[0] / gamma.sum(0)).float()
        if self.weight_per == "channel":
            return torch.bernoulli(weight.expand(-1, channels).contiguous(), generator=self.generator)
        return weight


def _check_probability(probability: float) -> float:
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"probability={probability}: expected a number in [0, 1].")
    return probability


def _scale_to_unit_range(images: Tensor) -> Tensor:
    """Scale each channel of each image to [0, 1]; a constant channel becomes 0."""
    low = images.amin(dim=(2, 3), keepdim=True)
    high = images.amax(dim=(2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-6)
