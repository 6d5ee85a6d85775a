"""TriD: feature statistics drawn uniformly, for a random half of the channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixstyleflow_monai.styles.feature_perturbation import FeaturePerturbation, restyle, spatial_statistics


@dataclass(frozen=True)
class DrawnStatistics:
    """New means and spreads in [0, 1] and whether a channel takes them (0 or 1), (B, C) each."""

    mean: Tensor
    std: Tensor
    taken: Tensor


class TriD(FeaturePerturbation[DrawnStatistics]):
    """Treasure in distribution: channel statistics replaced by uniform random ones.

    x' = (x - mu) / sigma * (b s + (1 - b) sigma) + b m + (1 - b) mu, where m, s ~ U(0, 1) and b is 0 or 1, an image and
    channel. The paper draws b from Bernoulli(Beta(0.1, 0.1)), the chance anew for each image and channel too, which is
    the law of Bernoulli(1/2). Statistics carry no gradient. U(0, 1) presumes features of the scale of 1.

    Args:
        layers: encoder layers; default 2 and 3, the first two stages after the stem, as in the paper.
        probability: chance of a layer and batch.
        seed: of the module's own generator.

    References:
        Chen et al., Treasure in Distribution: a Domain Randomization based Multi-Source Domain Generalization for 2D
        Medical Image Segmentation, MICCAI 2023
    """

    def __init__(self, layers: Sequence[int] = (2, 3), *, probability: float = 0.5, seed: int = 0) -> None:
        super().__init__(layers, probability=probability, seed=seed)

    def perturb(self, features: Tensor, drawn: DrawnStatistics) -> Tensor:
        """Replace statistics of features (B, C, H, W)."""
        mean, std = own = spatial_statistics(features.detach())
        taken, new_mean, new_std = (number.to(features) for number in (drawn.taken, drawn.mean, drawn.std))
        mixed_mean = taken * new_mean + (1.0 - taken) * mean
        mixed_std = taken * new_std + (1.0 - taken) * std
        return restyle(features, own, mixed_mean, mixed_std)

    def _draw(self, batch_size: int, channels: int) -> DrawnStatistics:
        mean, std = torch.rand(2, batch_size, channels, generator=self.generator)
        taken = torch.randint(2, (batch_size, channels), generator=self.generator).float()
        return DrawnStatistics(mean, std, taken)
