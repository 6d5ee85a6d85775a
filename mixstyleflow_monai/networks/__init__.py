"""Networks. They know nothing of styles, data or engines."""

from mixstyleflow_monai.networks.batch_norm import untracked_batch_norm
from mixstyleflow_monai.networks.dual_decoder import DualDecoderNet, LevelHook

__all__ = ["DualDecoderNet", "LevelHook", "untracked_batch_norm"]
