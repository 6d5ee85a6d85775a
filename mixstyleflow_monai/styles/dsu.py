"""DSU: feature statistics drawn around an image's own, as far as they vary over the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixstyleflow_monai.styles.feature_perturbation import (
    ENCODER_LAYERS,
    VARIANCE_FLOOR,
    FeaturePerturbation,
    restyle,
    spatial_statistics,
)


@dataclass(frozen=True)
class DrawnUncertainty:
    """Standard-normal numbers for means and spreads, (B, C) each."""

    mean: Tensor
    std: Tensor


class DSU(FeaturePerturbation[DrawnUncertainty]):
    """Domain shifts with uncertainty: means and spreads become Gaussian variables.

    x' = (x - mu) / sigma * (sigma + e_s S_s) + mu + e_m S_m, where S_m and S_s are the standard deviations of mu and
    sigma over the batch and e_m, e_s ~ N(0, 1) an image and channel (Eq. 4 to 9). Statistics carry gradient, as in the
    published code, unless ``detach``. The new spread may be negative. Identity for a batch of one.

    Args:
        layers: encoder layers; default all, as in MaxStyle's published comparison on this network.
        probability: chance of a layer and batch.
        factor: scale of e_m and e_s, >= 0.
        detach: no gradient through statistics.
        seed: of the module's own generator.

    References:
        Li et al., Uncertainty Modeling for Out-of-Distribution Generalization, ICLR 2022
    """

    smallest_batch = 2

    def __init__(
        self,
        layers: Sequence[int] = ENCODER_LAYERS,
        *,
        probability: float = 0.5,
        factor: float = 1.0,
        detach: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(layers, probability=probability, seed=seed)
        if not (math.isfinite(factor) and factor >= 0.0):
            raise ValueError(f"factor={factor}: expected a finite number of at least 0.")
        self.factor = factor
        self.detach = detach

    def perturb(self, features: Tensor, drawn: DrawnUncertainty) -> Tensor:
        """Shift statistics of features (B, C, H, W)."""
        mean, std = own = spatial_statistics(features.detach() if self.detach else features)
        new_mean = mean + self.factor * drawn.mean.to(features) * _spread(mean)
        new_std = std + self.factor * drawn.std.to(features) * _spread(std)
        return restyle(features, own, new_mean, new_std)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{super().extra_repr()}, factor={self.factor}, detach={self.detach}"

    def _draw(self, batch_size: int, channels: int) -> DrawnUncertainty:
        numbers = torch.randn(2, batch_size, channels, generator=self.generator)
        return DrawnUncertainty(numbers[0], numbers[1])


def _spread(statistic: Tensor) -> Tensor:
    """Standard deviation over the batch, (B, C) -> (1, C)."""
    return torch.sqrt(statistic.var(dim=0, keepdim=True) + VARIANCE_FLOOR)
