"""Engines: MONAI trainers of the phases and the Ignite handlers they use."""

from mixstyleflow_monai.artifacts import check_writable
from mixstyleflow_monai.engines.computation import SegmentationEvaluator, check_computation, flag, place_network
from mixstyleflow_monai.engines.distributed import (
    end_processes,
    leave_to_first_process,
    process_device,
    start_processes,
)
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
    check_resumed_network,
    check_training_data,
    copy_network,
    load_style_flows,
    training_facts,
)
from mixstyleflow_monai.engines.resuming import check_resumable
from mixstyleflow_monai.engines.schedules import learning_rate_schedule
from mixstyleflow_monai.engines.segmentation_trainer import DualDecoderTrainer, denoising_input
from mixstyleflow_monai.engines.semantic_losses import SemanticLosses
from mixstyleflow_monai.engines.shifted_validation import ShiftedValidation
from mixstyleflow_monai.engines.style_flow_trainer import (
    StyleFlowEvaluator,
    StyleFlowTrainer,
    StyleStatisticsLoader,
    mean_log_likelihood,
)
from mixstyleflow_monai.engines.style_preview import StylePreview
from mixstyleflow_monai.engines.style_report import StyleFlowReport, StylePanels
from mixstyleflow_monai.engines.style_statistics import (
    StyleStatisticsDataset,
    gather_statistics,
    load_gaussian_styles,
    style_statistics_file,
)
from mixstyleflow_monai.engines.stylized_validation import StylizedValidation
from mixstyleflow_monai.engines.weight_average import AverageWeights, WeightAverage
from mixstyleflow_monai.option_numbers import check_numbers

__all__ = [
    "AverageWeights",
    "BestModel",
    "DualDecoderTrainer",
    "EpochSeeding",
    "HardPass",
    "LossProgressBar",
    "PublishModel",
    "ResumableCheckpoint",
    "ResumeCheckpoint",
    "SegmentationEvaluator",
    "SemanticLosses",
    "ShiftedValidation",
    "StyleFlowEvaluator",
    "StyleFlowReport",
    "StyleFlowTrainer",
    "StylePanels",
    "StylePreview",
    "StyleStatisticsDataset",
    "StyleStatisticsLoader",
    "StylizedValidation",
    "TrainingIdentity",
    "WeightAverage",
    "check_computation",
    "check_numbers",
    "check_resumable",
    "check_resumed_network",
    "check_training_data",
    "check_writable",
    "copy_network",
    "denoising_input",
    "end_processes",
    "flag",
    "gather_statistics",
    "latest_checkpoint",
    "learning_rate_schedule",
    "leave_to_first_process",
    "load_gaussian_styles",
    "load_network",
    "load_style_flows",
    "mean_log_likelihood",
    "place_network",
    "process_device",
    "save_state_dict",
    "start_processes",
    "style_statistics_file",
    "training_facts",
]
