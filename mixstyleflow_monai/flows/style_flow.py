"""Density of one channel statistic, a vector of C numbers an image."""

from __future__ import annotations

import math

import torch
from nflows.transforms.base import CompositeTransform
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from mixstyleflow_monai.flows.act_norm import StyleActNorm, channel_std, check_matrix
from mixstyleflow_monai.flows.coupling import MaskedAffineCoupling


class StyleFlow(nn.Module):
    r"""Normalizing flow p(x) of (C,) vectors: a trainable diagonal Gaussian through couplings and ActNorms.

    Generative direction, k = 0, 1, ...: masked affine coupling (even channels kept for even k, odd ones for odd k),
    then ActNorm. The density runs it backwards.

    ``initialize`` must see the whole training matrix once, before anything else: it starts the ActNorms and records the
    envelope, the per-channel range of the training data that bounds samples drawn at a high temperature.

    References:
        MixStyleFlow, MICCAI 2025, doi 10.1007/978-3-032-04947-6_36
    Deviation: log-scales are bounded by tanh and samples by the envelope (see :class:`MaskedAffineCoupling`).

    Args:
        channels: C, at least 1; a single channel has no coupling and is a Gaussian.
        num_couplings: number of couplings, each with its ActNorm, >= 1.
        hidden_factor: hidden width of the coupling MLPs in units of C.
        log_scale_bound: bound of a coupling's \|log-scale\|; None for none.
        clamp: when given, log-scale and shift are clamped to +-clamp instead (25 in the official code).
        act_norm_floor: smallest standard deviation that the data-dependent start assumes.
    Raises:
        ValueError: a value out of range.
    """

    initialized: Tensor
    channel_min: Tensor
    channel_max: Tensor
    channel_std: Tensor

    def __init__(
        self,
        channels: int,
        *,
        num_couplings: int = 4,
        hidden_factor: int = 2,
        log_scale_bound: float | None = 2.0,
        clamp: float | None = None,
        act_norm_floor: float = 1e-3,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels is {channels}, allowed are integers from 1 on.")
        if num_couplings < 1:
            raise ValueError(f"num_couplings is {num_couplings}, allowed are integers from 1 on.")
        self.channels = channels
        self.num_couplings = num_couplings
        layers: list[nn.Module] = []
        for k in reversed(range(num_couplings)):  # the density starts where the generative direction ends
            # Inner ActNorms see standardised data. A floor below 1 there would blow a constant channel up once more in
            # each of them, by (1 / floor) ** num_couplings altogether.
            layers.append(StyleActNorm(channels, std_floor=act_norm_floor if not layers else 1.0))
            if channels == 1:
                # Nothing to couple with: a Gaussian is left, for the mean or spread of a grey image.
                break
            layers.append(
                MaskedAffineCoupling(
                    channels,
                    keep_even=k % 2 == 0,
                    hidden_factor=hidden_factor,
                    log_scale_bound=log_scale_bound,
                    clamp=clamp,
                )
            )
        self.transform = CompositeTransform(layers)
        self.base_loc = nn.Parameter(torch.zeros(channels))
        self.base_log_scale = nn.Parameter(torch.zeros(channels))
        self.register_buffer("initialized", torch.tensor(False))
        for name in ("channel_min", "channel_max", "channel_std"):
            self.register_buffer(name, torch.zeros(channels))

    def extra_repr(self) -> str:
        """Describe size and state."""
        return f"channels={self.channels}, num_couplings={self.num_couplings}, initialized={bool(self.initialized)}"

    @property
    def is_initialized(self) -> bool:
        """Whether ``initialize`` has run, here or before the state was saved."""
        return bool(self.initialized)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Start the ActNorms from the whole training matrix and record the envelope.

        Args:
            x: (N, C), N >= 1, finite. Constant channels and a single row are fine.
        Raises:
            ValueError: another shape, or nan or inf in it.
            RuntimeError: the flow was initialised before; doing it again would undo its training.
        """
        if self.is_initialized:
            raise RuntimeError(
                "This style flow is initialised already, and doing it again would undo its training. "
                "Check `is_initialized` first, or build a new flow."
            )
        x = check_matrix(x.detach(), self.channels, "training statistics of a style flow").to(self.base_loc)
        was_training = self.transform.training
        with _full_precision(x):
            self.transform.train()  # nflows starts an ActNorm in its first pass in training mode
            self.transform(x)
            self.transform.train(was_training)
        self.channel_min.copy_(x.amin(dim=0))
        self.channel_max.copy_(x.amax(dim=0))
        self.channel_std.copy_(channel_std(x))
        self.initialized.fill_(True)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) in nats, (N, C) -> (N,), in the dtype of the parameters.

        Raises:
            ValueError: ``x`` has another shape.
            RuntimeError: not initialised.
        """
        self._require_initialized()
        if x.ndim != 2 or x.shape[1] != self.channels:
            raise ValueError(f"x has shape {tuple(x.shape)}, this flow expects (N, {self.channels}).")
        with _full_precision(x):
            noise, log_det = self.transform(x.to(self.base_loc.dtype))
            # Without checks in torch: a nan must reach the loss, where the trainer skips and counts it.
            normal = Normal(self.base_loc, self.base_log_scale.exp(), validate_args=False)
            log_prob: Tensor = Independent(normal, 1, validate_args=False).log_prob(noise) + log_det
        return log_prob

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        clip_to_envelope: bool = True,
    ) -> Tensor:
        """Draw n vectors; ActNorms are never started by it, whatever the mode.

        The noise is drawn on the generator's device (the CPU without one) and then moved, so that a seeded CPU
        generator gives the same styles on every device.

        Args:
            n: number of vectors, >= 1.
            temperature: factor on the standard deviation of the base noise, >= 0; 1 is the learned density.
            generator: source of the noise; None is torch's global one.
            clip_to_envelope: clip to [min - T std, max + T std] of the training data, per channel.
        Returns:
            (n, C) on the device and in the dtype of the parameters.
        Raises:
            ValueError: ``n`` or ``temperature`` out of range.
            RuntimeError: not initialised.
        """
        self._require_initialized()
        if n < 1:
            raise ValueError(f"n is {n}, allowed are integers from 1 on.")
        if not (math.isfinite(temperature) and temperature >= 0):
            raise ValueError(f"temperature is {temperature}, allowed are finite numbers from 0 on (1 = in domain).")
        device = torch.device("cpu") if generator is None else generator.device
        noise = torch.randn(n, self.channels, generator=generator, device=device, dtype=self.base_loc.dtype)
        noise = noise.to(self.base_loc.device)
        with _full_precision(noise):
            x: Tensor = self.transform.inverse(self.base_loc + temperature * self.base_log_scale.exp() * noise)[0]
        if clip_to_envelope:
            margin = temperature * self.channel_std
            x = x.clamp(self.channel_min - margin, self.channel_max + margin)
        return x

    def _require_initialized(self) -> None:
        if not self.is_initialized:
            raise RuntimeError(
                "This style flow is not initialised. Call `initialize` with the whole training matrix (N, "
                f"{self.channels}) first, or load a trained flow."
            )


def _full_precision(x: Tensor) -> torch.autocast:
    """Switch autocast off: half precision is too coarse for densities and for the inverse of a flow."""
    return torch.autocast(device_type=x.device.type, enabled=False)
