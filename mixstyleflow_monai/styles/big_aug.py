"""BigAug: a deep stack of classical intensity augmentations, each image with random numbers of its own."""

from __future__ import annotations

from typing import Final

import torch
from monai.transforms import (
    Compose,
    RandAdjustContrast,
    RandBiasField,
    RandGaussianNoise,
    RandGaussianSharpen,
    RandGaussianSmooth,
    RandHistogramShift,
    RandScaleIntensity,
    RandShiftIntensity,
    RandSimulateLowResolution,
)
from torch import Tensor, nn

from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.styles.sampling import check_probability, draw_seeds


def intensity_stack(probability: float) -> Compose:
    """Return MONAI transforms of one image (C, H, W) in [0, 1], each with this chance.

    Appearance: a monotone histogram shift, gamma 0.5 to 2, contrast x 0.7 to 1.3 and brightness -0.1 to 0.1 a channel,
    so that colours change too, a smooth bias field. Quality: low resolution, blur, sharpening, noise.
    """
    return Compose(
        [
            RandHistogramShift(num_control_points=(4, 8), prob=probability),
            RandAdjustContrast(gamma=(0.5, 2.0), prob=probability),
            RandScaleIntensity(factors=0.3, channel_wise=True, prob=probability),
            RandShiftIntensity(offsets=0.1, channel_wise=True, prob=probability),
            RandBiasField(coeff_range=(-0.2, 0.2), prob=probability),
            RandSimulateLowResolution(zoom_range=(0.5, 1.0), upsample_mode="bilinear", prob=probability),
            RandGaussianSmooth(sigma_x=(0.25, 1.5), sigma_y=(0.25, 1.5), prob=probability),
            RandGaussianSharpen(alpha=(1.0, 5.0), prob=probability),
            RandGaussianNoise(std=0.1, prob=probability),
        ]
    )


class BigAug(nn.Module):
    """Strong classical augmentation of intensities: the baseline that needs no styles.

    The stack of `intensity_stack`, each transform with a chance of its own for each image, the result clipped to
    [0, 1]. Deviations from the paper: its rotations, scalings and deformations are left to the training's augmentation,
    since labels stay as they are here; histogram shift, bias field and low resolution are added; magnitudes are for
    images in [0, 1]. Identity in eval mode and at probability 0, and for constant images.

    Args:
        probability: chance in [0, 1] of each transform and image.
        seed: seed of the module's own generator; global random state is neither read nor changed.

    References:
        Zhang et al., Generalizing Deep Learning for Medical Image Segmentation to Unseen Domains via Deep Stacked
        Transformation, IEEE TMI 2020

    Raises:
        ValueError: probability out of its range.
    """

    needs_latent: Final = False

    def __init__(self, *, probability: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        self.probability = check_probability(probability)
        self.transforms = intensity_stack(probability)
        self.generator = torch.Generator().manual_seed(seed)

    def reseed(self, seed: int) -> None:
        """Start the generator anew, so that an epoch's draws depend on its number alone."""
        self.generator.manual_seed(seed)

    def draw(self, batch_size: int) -> list[int]:
        """Draw the random state of the transforms, a seed an image."""
        return draw_seeds(batch_size, self.generator)

    @torch.no_grad()
    def stylize(self, images: Tensor, seeds: list[int]) -> Tensor:
        """Augment images (B, c, H, W), each as its seed says. No other randomness.

        Raises:
            ValueError: another number of seeds than of images.
        """
        if len(seeds) != len(images):
            raise ValueError(f"BigAug: {len(seeds)} seeds for {len(images)} images; draw them for this batch size.")
        with torch.autocast(images.device.type, enabled=False):
            changed = [self._augment(image, seed) for image, seed in zip(images.float(), seeds, strict=True)]
        return torch.stack(changed).clamp(0.0, 1.0).to(images.dtype)

    def forward(self, network: DualDecoderNet, images: Tensor, latent: Tensor) -> Tensor:
        """Draw and apply; network and latent are not used."""
        if not self.training or self.probability == 0.0:
            return images
        return self.stylize(images, self.draw(len(images)))

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"probability={self.probability}"

    def _augment(self, image: Tensor, seed: int) -> Tensor:
        # MONAI's histogram shift warns about a constant image, and none of the others makes more of it than noise.
        if bool(image.amin() == image.amax()):
            return image
        self.transforms.set_random_state(seed)
        changed: Tensor = self.transforms(image).as_tensor()
        return changed
