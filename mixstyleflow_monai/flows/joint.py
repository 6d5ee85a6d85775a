"""One vector of an image's means and spreads, ordered so that couplings can see how they depend on each other."""

from __future__ import annotations

import torch
from torch import Tensor


def join_statistics(mean: Tensor, spread: Tensor) -> Tensor:
    """Return mean and spread of each channel side by side, in turns: m0 s0, s1 m1, m2 s2, s3 m3, ...

    A `MaskedAffineCoupling` changes every other number given the ones between. In this order it has the mean of each
    channel on the other side of its spread, and means of half of the channels on the other side of those of the other
    half. One after the other, all means and then all spreads, the mean and the spread of a channel would always be on
    the same side where the number of channels is even.

    Args:
        mean: (N, C).
        spread: (N, C).

    Returns:
        (N, 2 C).

    Raises:
        ValueError: not matrices of one shape.
    """
    if mean.dim() != 2 or mean.shape != spread.shape:
        raise ValueError(
            f"means of shape {tuple(mean.shape)} and spreads of {tuple(spread.shape)}, expected one (N, C)."
        )
    return _swap_odd_channels(torch.stack([mean, spread], dim=-1)).flatten(1)


def split_statistics(joined: Tensor) -> tuple[Tensor, Tensor]:
    """Return (mean, spread), (N, C) each, of what `join_statistics` made."""
    mean, spread = _swap_odd_channels(joined.unflatten(1, (-1, 2))).unbind(dim=-1)
    return mean, spread


def _swap_odd_channels(pairs: Tensor) -> Tensor:
    """Return pairs (N, C, 2), those of channels 1, 3, ... with their two numbers in the other order."""
    odd = (torch.arange(pairs.shape[1], device=pairs.device) % 2 == 1)[:, None]
    return torch.where(odd, pairs.flip(-1), pairs)
