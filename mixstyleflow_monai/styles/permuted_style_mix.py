"""The control of flow styles: the same hard examples, with the batch's own styles dealt out anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixstyleflow_monai.networks import STYLE_BATCH_NORMS, DualDecoderNet, style_batch_norm
from mixstyleflow_monai.styles.level_mix import IMAGE_LEVEL, DrawnStyle, LevelStyle, LevelStyleMix, check_level_list
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
    What flow styles gain over this is what the flows add, given the levels and the batch norm of the flows. The
    statistics are those of the plainly decoded batch, of which flows are a density, and at `IMAGE_LEVEL` of its images,
    which flows have seen with the noise of training. Identity in eval mode, at probability 0 and, up to rounding, for a
    batch of one.

    Args:
        levels: levels of the image decoder, 0 to 4, and `IMAGE_LEVEL`.
        batch_norm: how batch norm is set while styles are read and replaced, "batch" or "running"; flows know that of
            their statistics.
        image_channels: of the images, for weights a channel at `IMAGE_LEVEL`.
        **settings: of `LevelStyleMix`.

    References:
        MixStyleFlow, MICCAI 2025, doi 10.1007/978-3-032-04947-6_36
        Zhou et al., Domain Generalization with MixStyle, ICLR 2021, which mixes encoder features so

    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(
        self,
        levels: Sequence[int] = (2, 3, 4),
        *,
        batch_norm: str = "batch",
        image_channels: int = 1,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        check_level_list(levels)
        known = range(IMAGE_LEVEL + 1)
        if not levels or len(set(levels)) != len(levels) or not set(levels) <= set(known):
            raise ValueError(f"levels={list(levels)}: expected some of {list(known)}, each once.")
        if batch_norm not in STYLE_BATCH_NORMS:
            raise ValueError(f"style_batch_norm={batch_norm!r}: expected one of {STYLE_BATCH_NORMS}.")
        self.levels = tuple(sorted(levels))
        self.batch_norm = batch_norm
        self.level_channels = (*DualDecoderNet.level_channels, image_channels)

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
            weight = self._draw_weight(batch_size, self.level_channels[level])
            levels[level] = LevelPermutation(permutation, weight)
        return DrawnPermutations(levels)

    def stylize(
        self, network: DualDecoderNet, images: Tensor, latent: Tensor, style: DrawnPermutations | DrawnStyle
    ) -> Tensor:
        """Return the hard examples of ``images`` for what was drawn, see `LevelStyleMix.stylize`. No randomness."""
        if isinstance(style, DrawnPermutations):
            style = self.styles_of(network, images, latent, style)
        return super().stylize(network, images, latent, style)

    @torch.no_grad()
    def styles_of(
        self, network: DualDecoderNet, images: Tensor, latent: Tensor, drawn: DrawnPermutations
    ) -> DrawnStyle:
        """Return the styles that a batch's permutations stand for."""
        features = {IMAGE_LEVEL: images}
        if set(drawn.levels) - {IMAGE_LEVEL}:
            with style_batch_norm(network, self.batch_norm):
                latent = latent.detach() if self.batch_norm == "batch" else network.encode(images)
                features = {**network.image_levels(latent), **features}
        levels: dict[int, LevelStyle] = {}
        for level, chosen in drawn.levels.items():
            mean, std = channel_statistics(features[level])
            partner = chosen.permutation.to(mean.device)
            levels[level] = LevelStyle(mean[partner], std[partner], chosen.weight.to(mean))
        return DrawnStyle(levels)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"levels={list(self.levels)}, batch_norm={self.batch_norm!r}, {super().extra_repr()}"
