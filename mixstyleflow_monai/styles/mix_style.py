"""MixStyle: feature statistics mixed with those of another image of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixstyleflow_monai.styles.feature_perturbation import FeaturePerturbation, restyle, spatial_statistics
from mixstyleflow_monai.styles.sampling import check_positive, draw_beta


@dataclass(frozen=True)
class DrawnMixing:
    """Partners and weights of a batch: permutation (B,) of its images, weight (B, 1) in [0, 1] of an image's own."""

    permutation: Tensor
    weight: Tensor


class MixingPerturbation(FeaturePerturbation[DrawnMixing]):
    """Base of the perturbations that mix an image with a randomly chosen one: a permutation and Beta weights.

    Args:
        layers: encoder layers, see `FeaturePerturbation`.
        probability: chance of a layer and batch.
        alpha: parameter of the Beta law of the weights, > 0.
        seed: of the module's own generator.
    """

    smallest_batch = 2

    def __init__(
        self, layers: Sequence[int] = (1, 2, 3), *, probability: float = 0.5, alpha: float = 0.1, seed: int = 0
    ) -> None:
        super().__init__(layers, probability=probability, seed=seed)
        self.alpha = check_positive("alpha", alpha)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{super().extra_repr()}, alpha={self.alpha}"

    def _draw(self, batch_size: int, channels: int) -> DrawnMixing:
        permutation = torch.randperm(batch_size, generator=self.generator)
        return DrawnMixing(permutation, draw_beta((batch_size, 1), self.alpha, self.generator))


class MixStyle(MixingPerturbation):
    """Mix channel means and spreads with those of another image.

    x' = (x - mu) / sigma * (w sigma + (1 - w) sigma_p) + w mu + (1 - w) mu_p (Eq. 3 to 5), where p is a permutation of
    the batch and w ~ Beta(alpha, alpha) an image. Statistics carry no gradient. Identity for a batch of one.

    Defaults: layers 1 to 3, as in MaxStyle's published comparison on this network.

    References:
        Zhou et al., Domain Generalization with MixStyle, ICLR 2021
    """

    def perturb(self, features: Tensor, drawn: DrawnMixing) -> Tensor:
        """Mix statistics of features (B, C, H, W)."""
        mean, std = own = spatial_statistics(features.detach())
        weight, partner = drawn.weight.to(features), drawn.permutation.to(features.device)
        mixed_mean = weight * mean + (1.0 - weight) * mean[partner]
        mixed_std = weight * std + (1.0 - weight) * std[partner]
        return restyle(features, own, mixed_mean, mixed_std)
