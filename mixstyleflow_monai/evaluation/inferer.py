"""Slice-wise inference that takes images and volumes alike."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer, SliceInferer


class PlanarInferer(Inferer):
    """Run a 2-D network on a 2-D image as it is, and on a volume slice by slice along the last axis.

    Args:
        sw_batch_size: slices of a volume that go through the network at once.

    Shape:
        (B, C, H, W) -> (B, K, H, W); (B, C, H, W, D) -> (B, K, H, W, D).
    """

    def __init__(self, sw_batch_size: int = 8) -> None:
        super().__init__()
        self.sw_batch_size = sw_batch_size

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the network's output for the whole image or volume."""
        if inputs.ndim == 4:
            return network(inputs, *args, **kwargs)
        if inputs.ndim != 5:
            raise ValueError(
                f"PlanarInferer: input of shape {tuple(inputs.shape)}, expected (B, C, H, W) or (B, C, H, W, D). "
                "A 4-D image holds several volumes; give one of them."
            )
        slices = SliceInferer(
            roi_size=inputs.shape[2:4], spatial_dim=2, sw_batch_size=self.sw_batch_size, progress=False
        )
        return slices(inputs, network, *args, **kwargs)
