"""What stylizers do to images in the end."""

from __future__ import annotations

from torch import Tensor


def scale_to_unit_range(images: Tensor) -> Tensor:
    """Scale each channel of each image (B, C, H, W) to [0, 1]; a constant channel becomes 0."""
    low = images.amin(dim=(2, 3), keepdim=True)
    high = images.amax(dim=(2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-6)
