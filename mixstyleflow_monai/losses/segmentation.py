"""Segmentation loss on region logits or on exclusive classes."""

from __future__ import annotations

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from mixstyleflow_monai.processes import sum_over_processes, world_size

ACTIVATIONS = ("sigmoid", "softmax")
LOSSES = ("bce_dice", "cross_entropy")


class SegmentationLoss(nn.Module):
    """Mean binary cross-entropy plus Dice pooled over the whole batch and all channels, or plain cross-entropy.

    ``bce_dice``: BCE-with-logits, mean, plus 1 - (2 sum(p y) + 1) / (sum(p) + sum(y) + 1) with the sums over the
    batch and all channels at once (MixStyleFlow, MICCAI 2025). ``cross_entropy``: softmax cross-entropy, mean, as the
    official prostate configuration has it.

    In several processes the sums of the Dice are over the images of all of them, so all must compute the loss at the
    same time (or inside `mixstyleflow_monai.processes.alone`); the cross-entropy is of this process's images.
    Computed in float32 at least.

    Args:
        activation: "sigmoid" (one channel a region, may overlap) or "softmax" (exclusive classes).
        loss: "bce_dice", or "cross_entropy" which needs "softmax".

    Shape:
        logits and target (B, K, H, W), target in {0, 1} -> scalar.

    Raises:
        ValueError: unknown names, or a combination that does not exist.
    """

    def __init__(self, activation: str = "sigmoid", loss: str = "bce_dice") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r}: expected one of {ACTIVATIONS}.")
        if loss not in LOSSES:
            raise ValueError(f"loss={loss!r}: expected one of {LOSSES}.")
        if (loss == "cross_entropy") != (activation == "softmax"):
            raise ValueError(
                f"loss={loss!r} with activation={activation!r}: 'cross_entropy' goes with 'softmax' and 'bce_dice' "
                "with 'sigmoid'. Change one of the two keys."
            )
        self.activation = activation
        # MONAI's batch=True averages channels; one flat channel pools them as the paper does.
        self.dice = DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the scalar loss."""
        if logits.shape != target.shape:
            raise ValueError(
                f"SegmentationLoss: logits {tuple(logits.shape)} and target {tuple(target.shape)} differ in shape. "
                "The network's out_channels must equal the number of regions (sigmoid) or classes (softmax)."
            )
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        target = target.to(logits.dtype)
        if self.activation == "softmax":
            return F.cross_entropy(logits, target)
        loss: Tensor = F.binary_cross_entropy_with_logits(logits, target) + self._dice_loss(logits, target)
        return loss

    def _dice_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        if world_size() == 1:
            loss: Tensor = self.dice(logits.reshape(1, 1, -1), target.reshape(1, 1, -1))
            return loss
        p = logits.sigmoid()
        overlap, size = sum_over_processes(torch.stack([(p * target).sum(), p.sum() + target.sum()]))
        return 1.0 - (2.0 * overlap + 1.0) / (size + 1.0)


def reconstruction_loss(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Half the mean squared error, ½·mean((x̂ - x)²); the paper writes the plain sum, the official code this."""
    return 0.5 * F.mse_loss(reconstruction, image)


def peak_signal_to_noise_ratio(reconstruction: Tensor, image: Tensor) -> Tensor:
    """PSNR in dB an image, (B,), for images whose range is 1."""
    error = (reconstruction - image).square().flatten(1).mean(1)
    return -10.0 * torch.log10(error.clamp_min(1e-10))
