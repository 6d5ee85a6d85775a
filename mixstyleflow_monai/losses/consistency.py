"""Agreement of a network's predictions on several views of the same images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PROBABILITY_FLOOR = 1e-7
"""Smallest probability inside a logarithm, as in RandConv's published code."""


def prediction_divergence(logits: Sequence[Tensor], activation: str = "sigmoid") -> Tensor:
    """Return the Jensen-Shannon divergence of predictions, mean over views, images and pixels, in nats.

    JS = mean_i KL(p_i || p), p = mean_i p_i, as in RandConv (ICLR 2021), with the KL of a pixel's class distribution:
    a Bernoulli law a region, averaged over regions, for ``sigmoid``; one categorical law for ``softmax``.

    Args:
        logits: of each view, (B, K, H, W); gradients pass through all of them.
        activation: "sigmoid" or "softmax".

    Returns:
        Scalar in [0, log(number of views)], 0 where all views agree.
    """
    stacked = torch.stack([view.float() for view in logits])
    if activation == "softmax":
        classes, law_dim = stacked.softmax(2), 2
    else:
        inside = stacked.sigmoid()
        classes, law_dim = torch.stack([inside, 1.0 - inside], dim=-1), -1
    average = classes.mean(0, keepdim=True).clamp_min(PROBABILITY_FLOOR)
    divergence = classes * (classes.clamp_min(PROBABILITY_FLOOR).log() - average.log())
    return divergence.sum(law_dim).mean()
