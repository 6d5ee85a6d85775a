"""Channel statistics of feature maps: reading them and putting others in their place.

Notation: h is a feature map (B, C, H, W); mu and sigma are its mean and standard deviation over (H, W), (B, C) each,
with the unbiased variance.
"""

from __future__ import annotations

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-8
"""Added to the variance before the root, as in the official code."""


def channel_statistics(features: Tensor, variance_floor: float = VARIANCE_FLOOR) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of every channel of every image.

    Args:
        features: (B, C, H, W) with H * W > 1.
        variance_floor: added to the unbiased variance.

    Returns:
        (mean, std), (B, C) each, std > 0; float32 for features of half precision, which cannot hold the floor.

    Raises:
        ValueError: another number of dimensions, or a single pixel.
    """
    if features.dim() != 4 or features.shape[-1] * features.shape[-2] < 2:
        raise ValueError(
            f"channel_statistics: features of shape {tuple(features.shape)}, expected (B, C, H, W) with at least two "
            "pixels. Use a larger image or a level of higher resolution."
        )
    variance, mean = torch.var_mean(_at_least_float32(features), dim=(2, 3))
    return mean, torch.sqrt(variance + variance_floor)


def mix_statistics(features: Tensor, mean: Tensor, std: Tensor, weight: Tensor) -> Tensor:
    """Move a feature map's statistics towards others: MixStyleFlow (MICCAI 2025), Eq. 7.

    out = (h - mu) / sigma * ((1 - w) sigma + w sigma*) + (1 - w) mu + w mu*, with mu and sigma detached.

    Args:
        features: h, (B, C, H, W).
        mean: mu*, (B, C).
        std: sigma*, (B, C), positive.
        weight: w in [0, 1], (B, 1) for a weight an image or (B, C) for one a channel.

    Returns:
        (B, C, H, W), of the dtype of h; equal to h where w = 0.

    Raises:
        ValueError: ``mean`` or ``std`` of another batch or of other channels than the features.
    """
    for name, value in (("mean", mean), ("std", std)):
        if value.shape != features.shape[:2]:
            raise ValueError(
                f"mix_statistics: {name} of shape {tuple(value.shape)} for features of shape {tuple(features.shape)}, "
                f"expected {tuple(features.shape[:2])}. Use a style drawn for this batch size, from flows of this "
                "network's level."
            )
    with torch.no_grad():
        own_mean, own_std = channel_statistics(features)
        weight, mean, std = (t.to(own_mean) for t in (weight, mean, std))
        new_std = torch.lerp(own_std, std, weight)
        new_mean = torch.lerp(own_mean, mean, weight)
        scale = (new_std / own_std)[..., None, None]
        shift = new_mean[..., None, None] - own_mean[..., None, None] * scale
    return (features * scale + shift).to(features.dtype)


def _at_least_float32(features: Tensor) -> Tensor:
    return features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
