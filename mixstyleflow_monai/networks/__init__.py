"""Networks. They know nothing of styles, data or engines."""

from mixstyleflow_monai.networks.batch_norm import (
    STYLE_BATCH_NORMS,
    running_batch_norm,
    style_batch_norm,
    untracked_batch_norm,
)
from mixstyleflow_monai.networks.dual_decoder import NORMALIZATIONS, DualDecoderNet, LevelHook
from mixstyleflow_monai.networks.semantic_normalization import SemanticNormalization

__all__ = [
    "NORMALIZATIONS",
    "STYLE_BATCH_NORMS",
    "DualDecoderNet",
    "LevelHook",
    "SemanticNormalization",
    "running_batch_norm",
    "style_batch_norm",
    "untracked_batch_norm",
]
