"""The dual-decoder network: one encoder, a segmentation decoder and an image decoder.

The image decoder rebuilds the input from the same encoding that the segmentation uses. Its feature maps are where
styles are read (Phase II) and replaced (Phase III).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from mixstyleflow_monai.networks.blocks import (
    NEGATIVE_SLOPE,
    Decoder,
    ResampledResidualBlock,
    double_convolution,
    initialise_like_paper,
)
from mixstyleflow_monai.networks.semantic_normalization import SemanticNormalization

NORMALIZATIONS = ("san_saw",)

LevelHook = Callable[[int, Tensor], Tensor]
"""Called with (level, features) for levels 0 (latent) to 4 (last block) of the image decoder; returns the features
to go on with."""


class DualDecoderNet(nn.Module):
    """Encoder with a segmentation decoder and an image decoder, without skip connections.

    The architecture is the one that MixStyleFlow (MICCAI 2025) and MaxStyle (MICCAI 2022) call
    ``FCN_16_standard`` without a shape-refinement network: 1,536,291 parameters with 1 input channel and 2 outputs.

    Args:
        in_channels: image channels, 1 for MRI, 3 for colour photographs.
        out_channels: segmentation logits, one a region (sigmoid) or background plus K classes (softmax).
        image_activation: "sigmoid" for images in [0, 1]; "instance_norm" (parameter-free) for z-scored images.
        normalization: None, or "san_saw" for a `SemanticNormalization` behind the first two down-sampling blocks.
        classes: exclusive classes that it tells apart, background included; without it of no use.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H, W), H and W multiples of 16.

    Raises:
        ValueError: a channel count below 1, an unknown activation or, in ``forward``, an input of a wrong size.
    """

    level_channels = (128, 64, 32, 16, 16)
    """Channels of the image decoder's levels 0 to 4."""

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        image_activation: str = "sigmoid",
        normalization: str | None = None,
        classes: int = 2,
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if value < 1:
                raise ValueError(f"{name}={value}: expected an integer of at least 1.")
        if image_activation not in ("sigmoid", "instance_norm"):
            raise ValueError(f"image_activation={image_activation!r}: expected 'sigmoid' or 'instance_norm'.")
        if normalization is not None and normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization={normalization!r}: expected None or one of {NORMALIZATIONS}.")
        # Final attributes of the instance are the constants that TorchScript can see.
        self.downsampling: Final[int] = 16
        self.in_channels: Final[int] = in_channels
        self.out_channels: Final[int] = out_channels
        self.stem = nn.Sequential(double_convolution(in_channels, 16), nn.LeakyReLU(NEGATIVE_SLOPE))
        self.down = nn.Sequential(
            *(
                ResampledResidualBlock(nn.Conv2d(a, a, 3, stride=2, padding=1), a, b)
                for a, b in zip((16, 32, 64, 128), (32, 64, 128, 128), strict=True)
            )
        )
        self.latent = nn.Sequential(nn.Conv2d(128, 128, 1), nn.BatchNorm2d(128), nn.ReLU())
        self.code_filter = nn.Sequential(
            nn.Conv2d(128, 128, 3, padding=1, bias=False),
            nn.BatchNorm2d(128),
            nn.LeakyReLU(NEGATIVE_SLOPE),
            nn.Conv2d(128, 128, 3, padding=1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
        )
        self.segmentation_decoder = Decoder(self.level_channels, out_channels, learned_upsampling=False)
        self.image_decoder = Decoder(self.level_channels, in_channels, learned_upsampling=True)
        self.image_activation = nn.Sigmoid() if image_activation == "sigmoid" else nn.InstanceNorm2d(in_channels)
        initialise_like_paper(self)
        # After all else: with or without it, the other weights start the same.
        self.normalization = (
            None
            if normalization is None
            else nn.ModuleList(SemanticNormalization(channels, classes) for channels in (32, 64))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the segmentation logits, (B, out_channels, H, W)."""
        return self.decode_segmentation(self.encode(x))

    def encode(self, x: Tensor) -> Tensor:
        """Return the image latent z_i, (B, 128, H/16, W/16), values >= 0."""
        self._check_input(x)
        features = self.stem(x)
        if self.normalization is None:
            features = self.down(features)
        else:
            features = self.normalization[0](self.down[0](features))
            features = self.normalization[1](self.down[1](features))
            features = self.down[3](self.down[2](features))
        latent: Tensor = self.latent(features)
        return latent

    def decode_segmentation(self, latent: Tensor) -> Tensor:
        """Return the segmentation logits of an image latent: the code filter, then the segmentation decoder."""
        logits: Tensor = self.segmentation_decoder(self.code_filter(latent))
        return logits

    @torch.jit.unused
    def decode_image(self, latent: Tensor, hook: LevelHook | None = None) -> Tensor:
        """Decode a latent z_i to an image, optionally changing the features of each level on the way.

        Args:
            latent: (B, 128, h, w).
            hook: called at levels 0 to 4 with (level, features); its result replaces the features.

        Returns:
            (B, in_channels, 16 h, 16 w), in (0, 1) with the sigmoid activation. This is level 5.
        """
        features = latent if hook is None else hook(0, latent)
        for level, block in enumerate(self.image_decoder.blocks(), start=1):
            features = block(features)
            if hook is not None:
                features = hook(level, features)
        image: Tensor = self.image_activation(self.image_decoder.output(features))
        return image

    @torch.jit.unused
    def image_levels(self, latent: Tensor) -> dict[int, Tensor]:
        """Return the image decoder's features at levels 0 (latent) to 4 and, as level 5, the decoded image."""
        levels: dict[int, Tensor] = {}

        def keep(level: int, features: Tensor) -> Tensor:
            levels[level] = features
            return features

        levels[5] = self.decode_image(latent, keep)
        return dict(sorted(levels.items()))

    @torch.jit.unused
    def reconstruct(self, x: Tensor) -> Tensor:
        """Encode and decode an image: (B, c, H, W) -> (B, c, H, W)."""
        return self.decode_image(self.encode(x))

    def _check_input(self, x: Tensor) -> None:
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                "DualDecoderNet: input of shape "
                + str(list(x.shape))
                + ", expected (B, C, H, W) with C = "
                + str(self.in_channels)
                + " channels. Give slices of a volume one by one (MONAI's SliceInferer does)."
            )
        height, width = x.shape[2], x.shape[3]
        if height % self.downsampling != 0 or width % self.downsampling != 0:
            padded_height = (height + self.downsampling - 1) // self.downsampling * self.downsampling
            padded_width = (width + self.downsampling - 1) // self.downsampling * self.downsampling
            raise ValueError(
                "DualDecoderNet: spatial size "
                + str(height)
                + " x "
                + str(width)
                + " is not a multiple of 16. Pad the input to "
                + str(padded_height)
                + " x "
                + str(padded_width)
                + " (monai.transforms.DivisiblePadd with k=16 does)."
            )
