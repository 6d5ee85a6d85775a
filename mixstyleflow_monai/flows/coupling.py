"""Affine coupling of vectors with a true exponential scale, on top of nflows."""

from __future__ import annotations

import math

import torch
from nflows.transforms.coupling import CouplingTransform
from torch import Tensor, nn


class ScaleShiftNet(nn.Module):
    """Two separate MLPs, one for the log-scale and one for the shift: kept -> hidden -> changed.

    The last layers start at zero, so that a new coupling is the identity.

    Args:
        kept: number of channels that the coupling reads.
        changed: number of channels that it changes.
        hidden: width of the hidden layer.
    Shape:
        (N, kept) -> (N, 2 * changed), raw log-scales first, then raw shifts.
    """

    def __init__(self, kept: int, changed: int, hidden: int) -> None:
        super().__init__()
        self.scale = self._mlp(kept, changed, hidden)
        self.shift = self._mlp(kept, changed, hidden)

    @staticmethod
    def _mlp(kept: int, changed: int, hidden: int) -> nn.Sequential:
        last = nn.Linear(hidden, changed)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        return nn.Sequential(nn.Linear(kept, hidden), nn.ReLU(), last)

    def forward(self, kept: Tensor, context: Tensor | None = None) -> Tensor:
        """Return raw log-scales and shifts side by side; ``context`` is nflows' second argument and is not used."""
        return torch.cat([self.scale(kept), self.shift(kept)], dim=1)


class MaskedAffineCoupling(CouplingTransform):
    r"""Affine coupling x_changed = z_changed * exp(s(z_kept)) + t(z_kept), x_kept = z_kept.

    As in all of nflows ``forward`` goes from data to noise, z = (x - t) * exp(-s) with log |det| = -sum s, and
    ``inverse`` is the generative direction above.

    The log-scale is bounded: s = bound * tanh(raw / bound). Without a bound the product of several exponentials
    explodes as soon as the noise is drawn wider than in training, which is what a temperature above 1 does.

    References:
        Dinh et al., Density estimation using Real NVP, ICLR 2017
        MixStyleFlow, MICCAI 2025, doi 10.1007/978-3-032-04947-6_36
    Deviation: the official code clamps s and t to +-25 instead; ``clamp=25.0`` does that. nflows' own affine coupling
        has a sigmoid scale that can only contract, hence this class.

    Args:
        channels: length C of the vectors, at least 2.
        keep_even: True keeps channels 0, 2, ... and changes the others, False the reverse.
        hidden_factor: hidden width of the two MLPs in units of C.
        log_scale_bound: bound of \|s\|, > 0; None leaves s free.
        clamp: when given (> 0), s and t are clamped to +-clamp and ``log_scale_bound`` is not used.
    Shape:
        (N, C) -> (N, C) and log |det| of shape (N,).
    Raises:
        ValueError: a value out of range; the message names it.
    """

    def __init__(
        self,
        channels: int,
        *,
        keep_even: bool,
        hidden_factor: int = 2,
        log_scale_bound: float | None = 2.0,
        clamp: float | None = None,
    ) -> None:
        if channels < 2:
            raise ValueError(
                f"channels is {channels}, but a coupling splits the channels in two: give at least 2. "
                "A single channel needs no flow."
            )
        if hidden_factor < 1:
            raise ValueError(f"hidden_factor is {hidden_factor}, allowed are integers from 1 on.")
        for name, value in (("log_scale_bound", log_scale_bound), ("clamp", clamp)):
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ValueError(
                    f"{name} is {value!r}, allowed are finite numbers above 0, or null to switch it off (on the "
                    "command line of monai.bundle, which passes over None, '$None')."
                )
        hidden = hidden_factor * channels
        super().__init__(
            _changed_channels(channels, keep_even=keep_even),
            lambda kept, raw: ScaleShiftNet(kept, raw // 2, hidden),
        )
        self.log_scale_bound = log_scale_bound if clamp is None else None
        self.clamp = clamp

    def extra_repr(self) -> str:
        """Describe what is kept and how the scale is limited."""
        kept = "even" if 0 in self.identity_features else "odd"
        limit = f"clamp={self.clamp}" if self.clamp is not None else f"log_scale_bound={self.log_scale_bound}"
        return f"channels={self.features}, kept={kept}, {limit}"

    def _transform_dim_multiplier(self) -> int:
        return 2

    def _scale_and_shift(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = raw.chunk(2, dim=1)
        if self.clamp is not None:
            return log_scale.clamp(-self.clamp, self.clamp), shift.clamp(-self.clamp, self.clamp)
        if self.log_scale_bound is not None:
            log_scale = self.log_scale_bound * torch.tanh(log_scale / self.log_scale_bound)
        return log_scale, shift

    def _coupling_transform_forward(self, inputs: Tensor, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._scale_and_shift(transform_params)
        return (inputs - shift) * torch.exp(-log_scale), -log_scale.sum(dim=1)

    def _coupling_transform_inverse(self, inputs: Tensor, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._scale_and_shift(transform_params)
        return inputs * torch.exp(log_scale) + shift, log_scale.sum(dim=1)


def _changed_channels(channels: int, *, keep_even: bool) -> Tensor:
    """Return nflows' mask of shape (C,): 1 where a channel is changed, 0 where it is kept."""
    odd = torch.arange(channels) % 2
    return odd if keep_even else 1 - odd
