"""What stylizers do to images in the end."""

from __future__ import annotations

import torch
from monai.networks.layers import gaussian_1d, separable_filtering
from torch import Tensor, nn
from torch.nn import functional as F


def scale_to_unit_range(images: Tensor) -> Tensor:
    """Scale each channel of each image (B, C, H, W) to [0, 1]; a constant channel becomes 0."""
    low = images.amin(dim=(2, 3), keepdim=True)
    high = images.amax(dim=(2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-6)


def scale_to_unit_range_of(reference: Tensor, images: Tensor) -> Tensor:
    """Scale images so that each channel of each reference image would become [0, 1]."""
    low = reference.amin(dim=(2, 3), keepdim=True)
    high = reference.amax(dim=(2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-6)


def makes_z_scored_images(network: nn.Module | None) -> bool:
    """Whether a network's image decoder ends in an instance norm: its images are z-scored, and not in [0, 1]."""
    return isinstance(getattr(network, "image_activation", None), nn.InstanceNorm2d)


def as_images_of(network: nn.Module | None, images: Tensor) -> Tensor:
    """Return images as the network is used to them: clipped to [0, 1], or z-scored anew an image and channel."""
    return F.instance_norm(images) if makes_z_scored_images(network) else images.clamp(0.0, 1.0)


def low_pass(images: Tensor, sigma: float) -> Tensor:
    """Blur images (B, C, H, W) with a Gaussian, mirrored at the border.

    A constant image stays as it is: the kernel sums to 1, and no zeros come in from outside as with MONAI's
    `GaussianFilter`.

    Args:
        images: of any range, H and W at least 2.
        sigma: standard deviation in pixels, > 0. The kernel ends at four of them, or at the size of the image.
    """
    reach = min(4.0, (min(images.shape[-2:]) - 1) / sigma)
    kernel = gaussian_1d(torch.tensor(float(sigma)), truncated=reach, normalize=True).to(images)
    return separable_filtering(images, [kernel, kernel], mode="reflect")
