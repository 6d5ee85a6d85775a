"""Activation normalisation that survives constant channels and a batch of one."""

from __future__ import annotations

import math

import torch
from nflows.transforms.normalization import ActNorm
from torch import Tensor


class StyleActNorm(ActNorm):
    """Per-channel affine map whose start is taken from data: data -> noise is x * exp(log_scale) + shift.

    ``initialize`` (or the first forward in training mode, as in nflows) sets it so that the given data leave with mean
    0 and standard deviation 1. The standard deviation is floored first: nflows divides by it as it is, which gives
    inf for a constant channel and nan for a batch of one.

    References:
        Kingma and Dhariwal, Glow: Generative flow with invertible 1x1 convolutions, NeurIPS 2018

    Args:
        channels: length C of the vectors.
        std_floor: smallest standard deviation that the start assumes, > 0, in units of the data.
    Shape:
        (N, C) -> (N, C) and log |det| of shape (N,).
    Raises:
        ValueError: ``std_floor`` not above 0, or data that are not finite.
    """

    def __init__(self, channels: int, std_floor: float = 1e-3) -> None:
        super().__init__(channels)
        if not (math.isfinite(std_floor) and std_floor > 0):
            raise ValueError(f"std_floor is {std_floor}, allowed are finite numbers above 0.")
        self.std_floor = std_floor

    def initialize(self, x: Tensor) -> None:
        """Take the start from ``x`` of shape (N, C), N >= 1; again, if it was taken before."""
        self._initialize(x)

    @torch.no_grad()
    def _initialize(self, inputs: Tensor) -> None:
        x = check_matrix(inputs, len(self.shift), "data of the activation normalisation")
        std = channel_std(x).clamp_min(self.std_floor)
        # copy_ and fill_ keep dtype and device of the module; nflows' assignment puts the flag on the CPU.
        self.log_scale.copy_(-torch.log(std))
        self.shift.copy_(-x.mean(dim=0) / std)
        self.initialized.fill_(True)

    def extra_repr(self) -> str:
        """Describe the size and the floor."""
        return f"channels={len(self.shift)}, std_floor={self.std_floor}"


def channel_std(x: Tensor) -> Tensor:
    """Return the unbiased standard deviation of every channel of (N, C), and 0 for a single row."""
    return x.std(dim=0) if len(x) > 1 else torch.zeros_like(x[0])


def check_matrix(x: Tensor, channels: int, what: str) -> Tensor:
    """Return ``x`` if it is (N, C), N >= 1, of finite numbers.

    Raises:
        ValueError: another shape, no rows, or nan or inf in it (with the channels that hold them).
    """
    if x.ndim != 2 or x.shape[1] != channels or len(x) == 0:
        raise ValueError(f"{what}: shape {tuple(x.shape)}, expected (N, {channels}) with N >= 1.")
    bad = (~torch.isfinite(x)).any(dim=0).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"{what}: nan or inf in channels {bad} of {channels}, only finite numbers are allowed. "
            "Look for broken images or a diverged network where they were computed."
        )
    return x
