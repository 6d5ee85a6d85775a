"""Networks. They know nothing of styles, data or engines."""

from mixstyleflow_monai.networks.batch_norm import running_batch_norm, untracked_batch_norm
from mixstyleflow_monai.networks.dual_decoder import DualDecoderNet, LevelHook

__all__ = ["DualDecoderNet", "LevelHook", "running_batch_norm", "untracked_batch_norm"]
