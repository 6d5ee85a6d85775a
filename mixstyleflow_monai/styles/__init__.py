"""Styles: what a stylizer is, and MixStyleFlow's own.

A stylizer is a module called as ``stylizer(network, images, latent) -> images``.
"""

from mixstyleflow_monai.styles.flow_mix import PRESETS, DrawnStyle, FlowStyleMix, LevelStyle
from mixstyleflow_monai.styles.statistics import channel_statistics, mix_statistics

__all__ = ["PRESETS", "DrawnStyle", "FlowStyleMix", "LevelStyle", "channel_statistics", "mix_statistics"]
