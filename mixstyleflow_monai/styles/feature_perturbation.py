"""Perturbations of encoder features: what they share, and where they are attached.

A perturbation acts while `FeaturePerturbation.attached` is open, as forward hooks on named layers of the encoder, so
that the network itself stays as it is: nothing of it is in a checkpoint or a deployed model.

Notation: x is a feature map (B, C, H, W); mu and sigma are its mean and standard deviation over (H, W).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.styles.sampling import check_probability

ENCODER_LAYERS = (1, 2, 3, 4, 5, 6)
"""1: stem, full resolution; 2 to 5: the four down-sampling blocks; 6: the latent. All after their activation."""

VARIANCE_FLOOR = 1e-6
"""Added to variances before the root, as in the published code of MixStyle, DSU, EFDMix and TriD."""

Drawn = TypeVar("Drawn")


def encoder_layer(network: DualDecoderNet, layer: int) -> nn.Module:
    """Return the module whose output is an encoder layer's features.

    Raises:
        ValueError: no such layer.
    """
    if layer not in ENCODER_LAYERS:
        raise ValueError(f"layer {layer}: the encoder has layers {list(ENCODER_LAYERS)} (1 stem, 6 latent).")
    if layer == 1:
        return network.stem
    return network.latent if layer == 6 else network.down[layer - 2]


def spatial_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mu and sigma of every channel of every image, (B, C) each, with the unbiased variance."""
    variance, mean = torch.var_mean(features, dim=(2, 3))
    return mean, torch.sqrt(variance + VARIANCE_FLOOR)


def restyle(features: Tensor, own: tuple[Tensor, Tensor], mean: Tensor, std: Tensor) -> Tensor:
    """Return (x - mu) / sigma * std + mean, where own is (mu, sigma); all statistics are (B, C)."""
    own_mean, own_std, mean, std = (statistic[..., None, None] for statistic in (*own, mean, std))
    return (features - own_mean) / own_std * std + mean


class FeaturePerturbation(nn.Module, Generic[Drawn]):
    """Base of the perturbations: a chance a call, a generator of its own, forward hooks at encoder layers.

    A subclass draws (`_draw`) and applies what was drawn (`perturb`, no randomness), so that a drawn perturbation can
    be recorded and replayed. Identity in eval mode, at probability 0, on single pixels and on batches smaller than
    ``smallest_batch``.

    Args:
        layers: encoder layers to perturb, within 1 to 6, see `ENCODER_LAYERS`.
        probability: chance in [0, 1] that a layer is perturbed in a forward pass, drawn for the whole batch.
        seed: seed of the module's own generator; global random state is neither read nor changed.

    Raises:
        ValueError: no layer, an unknown one, one named twice, or a probability out of its range.
    """

    smallest_batch = 1

    def __init__(self, layers: Sequence[int], *, probability: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        chosen = tuple(int(layer) for layer in layers)
        if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(ENCODER_LAYERS):
            raise ValueError(
                f"layers={list(layers)}: expected some of the encoder's layers {list(ENCODER_LAYERS)}, each once."
            )
        self.layers = chosen
        self.probability = check_probability(probability)
        self.generator = torch.Generator().manual_seed(seed)

    def reseed(self, seed: int) -> None:
        """Start the generator anew, so that an epoch's draws depend on its number alone."""
        self.generator.manual_seed(seed)

    @contextmanager
    def attached(self, network: DualDecoderNet) -> Iterator[None]:
        """Perturb the chosen layers in every forward pass of ``network`` within the context."""

        def hook(module: nn.Module, inputs: Any, features: Tensor) -> Tensor:
            perturbed: Tensor = self(features)
            return perturbed

        handles = [encoder_layer(network, layer).register_forward_hook(hook) for layer in self.layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def draw(self, batch_size: int, channels: int, *, probability: float | None = None) -> Drawn | None:
        """Draw a perturbation for a batch, or None if it stays as it is.

        Args:
            batch_size: number of images B.
            channels: C of the features.
            probability: chance in [0, 1], in place of the module's own.
        """
        chance = self.probability if probability is None else check_probability(probability)
        if batch_size < self.smallest_batch or not float(torch.rand((), generator=self.generator)) < chance:
            return None
        return self._draw(batch_size, channels)

    def perturb(self, features: Tensor, drawn: Drawn) -> Tensor:
        """Apply what was drawn to features (B, C, H, W) of at least single precision. No randomness."""
        raise NotImplementedError

    def forward(self, features: Tensor) -> Tensor:
        """Draw and apply; the features themselves where nothing is to be done. Half precision is left inside."""
        if not self.training or self.probability == 0.0 or features.shape[-1] * features.shape[-2] < 2:
            return features
        drawn = self.draw(features.shape[0], features.shape[1])
        if drawn is None:
            return features
        half = features.dtype in (torch.float16, torch.bfloat16)
        return self.perturb(features.float() if half else features, drawn).to(features.dtype)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"layers={list(self.layers)}, probability={self.probability}"

    def _draw(self, batch_size: int, channels: int) -> Drawn:
        raise NotImplementedError
