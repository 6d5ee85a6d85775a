"""Residual building blocks of the dual-decoder network.

MONAI's ``ResidualUnit`` applies the activation before the sum and ``UnetResBlock`` normalises the shortcut; the
network of the paper does neither, so the block is written here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

NEGATIVE_SLOPE = 0.2


def double_convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return conv3-BN-LeakyReLU-conv3-BN, stride 1, all convolutions with bias."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(NEGATIVE_SLOPE),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.BatchNorm2d(out_channels),
    )


class ResampledResidualBlock(nn.Module):
    """Change the resolution, then add a double convolution to an un-normalised 1x1 shortcut.

    Args:
        resample: module that changes the spatial size and keeps ``in_channels``.
        in_channels: channels of the input.
        out_channels: channels of the output.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H', W') where H', W' are what ``resample`` makes.
    """

    def __init__(self, resample: nn.Module, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.resample = resample
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)
        self.residual = double_convolution(in_channels, out_channels)
        self.activation = nn.LeakyReLU(NEGATIVE_SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        x = self.resample(x)
        out: Tensor = self.activation(self.shortcut(x) + self.residual(x))
        return out


class Decoder(nn.Module):
    """Four up-sampling residual blocks and a 1x1 output convolution.

    Args:
        widths: channels of the input and of the four blocks, five numbers.
        out_channels: channels of the output.
        learned_upsampling: True for transposed convolutions (image decoder), False for nearest neighbour
            (segmentation decoder).
    """

    def __init__(self, widths: tuple[int, ...], out_channels: int, *, learned_upsampling: bool) -> None:
        super().__init__()

        def upsample(channels: int) -> nn.Module:
            if learned_upsampling:
                return nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
            return nn.Upsample(scale_factor=2.0, mode="nearest")

        self.up1 = ResampledResidualBlock(upsample(widths[0]), widths[0], widths[1])
        self.up2 = ResampledResidualBlock(upsample(widths[1]), widths[1], widths[2])
        self.up3 = ResampledResidualBlock(upsample(widths[2]), widths[2], widths[3])
        self.up4 = ResampledResidualBlock(upsample(widths[3]), widths[3], widths[4])
        self.output = nn.Conv2d(widths[4], out_channels, 1)

    def forward(self, latent: Tensor) -> Tensor:
        """Decode (B, C, h, w) to (B, out_channels, 16 h, 16 w), without a last activation."""
        out: Tensor = self.output(self.up4(self.up3(self.up2(self.up1(latent)))))
        return out

    def blocks(self) -> tuple[nn.Module, ...]:
        """Return the four blocks in the order in which they are applied."""
        return self.up1, self.up2, self.up3, self.up4


def initialise_like_paper(network: nn.Module) -> None:
    """Kaiming-normal (fan-in, a=0) for ``Conv2d`` weights, N(1, 0.02) for batch-norm weights, as the official code.

    Transposed convolutions and convolution biases keep PyTorch's defaults; batch-norm biases are zero.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=0.0, mode="fan_in")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, Decoder) and module.output.bias is not None:
            with torch.no_grad():
                module.output.bias.zero_()
