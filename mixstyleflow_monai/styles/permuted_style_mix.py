"""The control of flow styles: the same hard examples, with the batch's own styles dealt out anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixstyleflow_monai.networks import DualDecoderNet, untracked_batch_norm
from mixstyleflow_monai.styles.level_mix import DrawnStyle, LevelStyle, LevelStyleMix
from mixstyleflow_monai.styles.sampling import check_probability
from mixstyleflow_monai.styles.statistics import channel_statistics


@dataclass(frozen=True)
class LevelPermutation:
    """For one level: whose style each image takes (B,), and the weight (B, 1) or (B, C) of that style in [0, 1]."""

    permutation: Tensor
    weight: Tensor


@dataclass(frozen=True)
class DrawnPermutations:
    """A `LevelPermutation` for each level that is active; inactive levels are absent."""

    levels: Mapping[int, LevelPermutation]


class PermutedStyleMix(LevelStyleMix):
    """`FlowStyleMix` without flows: an image's new statistics are those of another image of the batch.

    Everything else is as with flows, level by level: mu' = (1 - w) mu + w mu_p, sigma' likewise (Eq. 7 of the paper).
    What flow styles gain over this is what the flows add. The statistics are those of the plainly decoded batch, of
    which flows are a density. Identity in eval mode, at probability 0 and, up to rounding, for a batch of one.

    Args:
        levels: levels of the image decoder, 0 to 4.
        **settings: of `LevelStyleMix`.

    References:
        MixStyleFlow, MICCAI 2025, doi 10.1007/978-3-032-04947-6_36
        Zhou et al., Domain Generalization with MixStyle, ICLR 2021, which mixes encoder features so

    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(self, levels: Sequence[int] = (2, 3, 4), **settings: Any) -> None:
        super().__init__(**settings)
        known = range(len(DualDecoderNet.level_channels))
        if not levels or len(set(levels)) != len(levels) or not set(levels) <= set(known):
            raise ValueError(f"levels={list(levels)}: expected some of {list(known)}, each once.")
        self.levels = tuple(sorted(levels))

    def draw(self, batch_size: int, *, probability: float | None = None) -> DrawnPermutations:
        """Draw whose style each image takes; one image's for the whole batch with ``style_per="batch"``."""
        chance = self.probability if probability is None else check_probability(probability)
        levels: dict[int, LevelPermutation] = {}
        for level in self.levels:
            if not self._is_active(chance):
                continue
            permutation = torch.randperm(batch_size, generator=self.generator)
            if self.style_per == "batch":
                permutation = permutation[:1].expand(batch_size)
            weight = self._draw_weight(batch_size, DualDecoderNet.level_channels[level])
            levels[level] = LevelPermutation(permutation, weight)
        return DrawnPermutations(levels)

    def stylize(
        self, network: DualDecoderNet, images: Tensor, latent: Tensor, style: DrawnPermutations | DrawnStyle
    ) -> Tensor:
        """Return the hard examples of ``images`` for what was drawn, see `LevelStyleMix.stylize`. No randomness."""
        if isinstance(style, DrawnPermutations):
            style = self.styles_of(network, latent, style)
        return super().stylize(network, images, latent, style)

    @torch.no_grad()
    def styles_of(self, network: DualDecoderNet, latent: Tensor, drawn: DrawnPermutations) -> DrawnStyle:
        """Return the styles that a batch's permutations stand for."""
        if not drawn.levels:
            return DrawnStyle({})
        with untracked_batch_norm(network):
            features = network.image_levels(latent.detach())
        levels: dict[int, LevelStyle] = {}
        for level, chosen in drawn.levels.items():
            mean, std = channel_statistics(features[level])
            partner = chosen.permutation.to(mean.device)
            levels[level] = LevelStyle(mean[partner], std[partner], chosen.weight.to(mean))
        return DrawnStyle(levels)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"levels={list(self.levels)}, {super().extra_repr()}"
