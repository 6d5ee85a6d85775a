"""Semantic-aware whitening (SAW): decorrelate the channels that matter to different classes."""

from __future__ import annotations

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-5
"""Added to the diagonal of covariances, as published. The penalty looks beside the diagonal only."""


def whitening_penalty(features: Tensor, class_weights: Tensor) -> Tensor:
    """Return the whitening penalty of Peng et al., Semantic-Aware Domain Generalized Segmentation, CVPR 2022.

    The channels are sorted for every class by the size of the class's weight |w| in a linear classifier. Group k holds
    the k-th channel of every class, each times sigmoid(|w|); there are C // classes groups, in which a channel may come
    up several times. With S = f f^T / (HW - 1) of an image's group and n its number of pairs of classes, the penalty is

        sum over groups of mean over images of max(0, (sum_{i<j} |S_ij| - n // 2) / n)

    Args:
        features: normalised features, (B, C, H, W), C >= classes, H * W > 1.
        class_weights: of the classifier, (classes, C); used without gradient, as published.

    Returns:
        Scalar of at least 0.

    Raises:
        ValueError: fewer than two classes, or fewer channels than classes.
    """
    classes, channels = class_weights.shape
    if classes < 2 or channels != features.shape[1] or channels < classes:
        raise ValueError(
            f"whitening_penalty: class_weights {tuple(class_weights.shape)} for features {tuple(features.shape)}: "
            "expected (classes, channels) with at least 2 classes and as many channels as the features have."
        )
    size = class_weights.detach().abs().to(features.dtype)
    ordered, channel = size.sort(dim=1, descending=True, stable=True)
    groups = channels // classes
    # (groups, classes): the k-th best channel of every class, and its factor.
    chosen, factor = channel[:, :groups].T, ordered[:, :groups].T.sigmoid()
    flat = features.flatten(2)
    grouped = flat[:, chosen.flatten()].unflatten(1, (groups, classes)) * factor[..., None]
    covariance = grouped @ grouped.transpose(2, 3) / (flat.shape[2] - 1)
    covariance = covariance + VARIANCE_FLOOR * torch.eye(classes, dtype=covariance.dtype, device=covariance.device)
    pairs = classes * (classes - 1) // 2
    beside_diagonal = covariance.triu(diagonal=1).abs().sum(dim=(2, 3))
    penalty = ((beside_diagonal - pairs // 2) / pairs).clamp_min(0.0)
    return penalty.mean(dim=0).sum()
