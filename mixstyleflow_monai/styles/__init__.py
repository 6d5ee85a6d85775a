"""Styles: what makes examples hard, MixStyleFlow's own and those of the methods it is compared with.

A stylizer is a module called as ``stylizer(network, images, latent) -> images``; one with ``needs_objective`` is called
with the segmentation loss as well. A perturbation changes features: see `FeaturePerturbation`.
"""

from mixstyleflow_monai.styles.big_aug import BigAug
from mixstyleflow_monai.styles.combined import ChainedStylizer, RandomStylizer
from mixstyleflow_monai.styles.dsu import DSU
from mixstyleflow_monai.styles.efd_mix import EFDMix
from mixstyleflow_monai.styles.feature_perturbation import ENCODER_LAYERS, FeaturePerturbation
from mixstyleflow_monai.styles.flow_mix import PRESETS, FlowStyleMix
from mixstyleflow_monai.styles.gaussian_styles import GaussianStyleBank
from mixstyleflow_monai.styles.level_mix import IMAGE_LEVEL, DrawnStyle, LevelStyle, LevelStyleMix
from mixstyleflow_monai.styles.max_style import MaxStyle
from mixstyleflow_monai.styles.mix_style import MixStyle
from mixstyleflow_monai.styles.permuted_style_mix import PermutedStyleMix
from mixstyleflow_monai.styles.rand_conv import RandConv
from mixstyleflow_monai.styles.statistics import channel_statistics, mix_statistics
from mixstyleflow_monai.styles.tri_d import TriD

__all__ = [
    "DSU",
    "ENCODER_LAYERS",
    "IMAGE_LEVEL",
    "PRESETS",
    "BigAug",
    "ChainedStylizer",
    "DrawnStyle",
    "EFDMix",
    "FeaturePerturbation",
    "FlowStyleMix",
    "GaussianStyleBank",
    "LevelStyle",
    "LevelStyleMix",
    "MaxStyle",
    "MixStyle",
    "PermutedStyleMix",
    "RandConv",
    "RandomStylizer",
    "TriD",
    "channel_statistics",
    "mix_statistics",
]
