"""RandConv: images seen through a random convolution, which keeps shapes and changes texture and colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.styles.sampling import check_probability


@dataclass(frozen=True)
class DrawnConvolution:
    """A kernel (C, C, k, k), k odd, and the share in [0, 1] of its output in the mixture."""

    kernel: Tensor
    share: float


class RandConv(nn.Module):
    """Convolve a batch with one random kernel and mix it with the images.

    x' = a conv(x) + (1 - a) x with a ~ U(0, 1) (RC_mix) or a = 1 (RC_img), zero padding; the kernel's size is drawn
    uniformly, its weights from N(0, 1 / (C k^2)). The range of each image, over all channels together so that colours
    may change, is brought back to what it was. Identity in eval mode and at probability 0.

    Args:
        kernel_sizes: odd sizes k in pixels.
        mix: True for RC_mix, False for RC_img, which the paper uses with probability 0.5.
        probability: chance in [0, 1] that a batch is convolved.
        seed: seed of the module's own generator; global random state is neither read nor changed.

    References:
        Xu et al., Robust and Generalizable Visual Representation Learning via Random Convolutions, ICLR 2021

    Raises:
        ValueError: an even kernel size or none, or a probability out of its range.
    """

    needs_latent: Final = False

    def __init__(
        self,
        kernel_sizes: Sequence[int] = (1, 3, 5, 7),
        *,
        mix: bool = True,
        probability: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not kernel_sizes or any(size < 1 or size % 2 == 0 for size in kernel_sizes):
            raise ValueError(f"kernel_sizes={list(kernel_sizes)}: expected at least one odd number, such as 1 or 3.")
        self.kernel_sizes = tuple(kernel_sizes)
        self.mix = mix
        self.probability = check_probability(probability)
        self.generator = torch.Generator().manual_seed(seed)

    def reseed(self, seed: int) -> None:
        """Start the generator anew, so that an epoch's draws depend on its number alone."""
        self.generator.manual_seed(seed)

    def draw(self, channels: int) -> DrawnConvolution | None:
        """Draw a kernel for images of ``channels`` channels, or None if the batch stays as it is."""
        if not float(torch.rand((), generator=self.generator)) < self.probability:
            return None
        size = self.kernel_sizes[int(torch.randint(len(self.kernel_sizes), (), generator=self.generator))]
        kernel = torch.randn(channels, channels, size, size, generator=self.generator)
        share = float(torch.rand((), generator=self.generator)) if self.mix else 1.0
        return DrawnConvolution(kernel / (channels * size * size) ** 0.5, share)

    @torch.no_grad()
    def stylize(self, images: Tensor, drawn: DrawnConvolution) -> Tensor:
        """Convolve, mix and rescale images (B, c, H, W). No randomness."""
        with torch.autocast(images.device.type, enabled=False):
            exact = images.float()
            convolved = F.conv2d(exact, drawn.kernel.to(exact), padding=drawn.kernel.shape[-1] // 2)
        mixed = drawn.share * convolved + (1.0 - drawn.share) * exact
        return _to_range_of(exact, mixed).to(images.dtype)

    def forward(self, network: DualDecoderNet, images: Tensor, latent: Tensor) -> Tensor:
        """Draw and apply; network and latent are not used."""
        drawn = self.draw(images.shape[1]) if self.training and self.probability > 0.0 else None
        return images if drawn is None else self.stylize(images, drawn)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"kernel_sizes={list(self.kernel_sizes)}, mix={self.mix}, probability={self.probability}"


def _to_range_of(reference: Tensor, images: Tensor) -> Tensor:
    """Scale each image so that its smallest and largest value, over all channels, are those of its reference."""
    low, high = (getattr(images, name)(dim=(1, 2, 3), keepdim=True) for name in ("amin", "amax"))
    to_low, to_high = (getattr(reference, name)(dim=(1, 2, 3), keepdim=True) for name in ("amin", "amax"))
    return (images - low) / (high - low).clamp_min(1e-6) * (to_high - to_low) + to_low
