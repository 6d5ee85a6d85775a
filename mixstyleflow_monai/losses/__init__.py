"""Losses of the phases."""

from mixstyleflow_monai.losses.consistency import prediction_divergence
from mixstyleflow_monai.losses.segmentation import (
    SegmentationLoss,
    peak_signal_to_noise_ratio,
    reconstruction_loss,
)

__all__ = ["SegmentationLoss", "peak_signal_to_noise_ratio", "prediction_divergence", "reconstruction_loss"]
