"""Engines: MONAI trainers of the phases and the Ignite handlers they use."""

from mixstyleflow_monai.engines.handlers import (
    BestModel,
    EpochSeeding,
    LossProgressBar,
    PublishModel,
    ResumableCheckpoint,
    ResumeCheckpoint,
    latest_checkpoint,
    load_network,
    save_state_dict,
)
from mixstyleflow_monai.engines.hard_pass import HardPass
from mixstyleflow_monai.engines.lineage import (
    TrainingIdentity,
    check_training_data,
    copy_network,
    load_style_flows,
    training_facts,
)
from mixstyleflow_monai.engines.schedules import learning_rate_schedule
from mixstyleflow_monai.engines.segmentation_trainer import DualDecoderTrainer, denoising_input
from mixstyleflow_monai.engines.style_flow_trainer import (
    StyleFlowEvaluator,
    StyleFlowTrainer,
    StyleStatisticsLoader,
    mean_log_likelihood,
)
from mixstyleflow_monai.engines.style_preview import StylePreview
from mixstyleflow_monai.engines.style_report import StyleFlowReport, StylePanels
from mixstyleflow_monai.engines.style_statistics import StyleStatisticsDataset, gather_statistics, style_statistics_file

__all__ = [
    "BestModel",
    "DualDecoderTrainer",
    "EpochSeeding",
    "HardPass",
    "LossProgressBar",
    "PublishModel",
    "ResumableCheckpoint",
    "ResumeCheckpoint",
    "StyleFlowEvaluator",
    "StyleFlowReport",
    "StyleFlowTrainer",
    "StylePanels",
    "StylePreview",
    "StyleStatisticsDataset",
    "StyleStatisticsLoader",
    "TrainingIdentity",
    "check_training_data",
    "copy_network",
    "denoising_input",
    "gather_statistics",
    "latest_checkpoint",
    "learning_rate_schedule",
    "load_network",
    "load_style_flows",
    "mean_log_likelihood",
    "save_state_dict",
    "style_statistics_file",
    "training_facts",
]
