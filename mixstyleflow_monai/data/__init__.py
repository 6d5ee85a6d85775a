"""Data: the dataset description, regions, transforms and training slices.

Names are loaded when they are first used: reading a dataset description needs neither torch nor MONAI, and importing
those two takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixstyleflow_monai.data.augmentations import augmentation
    from mixstyleflow_monai.data.case_checks import check_headers, check_images
    from mixstyleflow_monai.data.dataset_description import Case, DatasetDescription, load_dataset, save_dataset
    from mixstyleflow_monai.data.inference import ImageSlices, SaveLabeld, common_folder, inference_datalist
    from mixstyleflow_monai.data.label_field import warn_of_cut_labels
    from mixstyleflow_monai.data.regions import RegionEncoding
    from mixstyleflow_monai.data.slices import EpochOrder, ProcessSampler, SliceDataset, TrainingLoader, epoch_seed
    from mixstyleflow_monai.data.task import Task
    from mixstyleflow_monai.data.transforms import LabelMapd, RegionMasksd, RegionProbabilitiesd, preprocessing

__all__ = [
    "Case",
    "DatasetDescription",
    "EpochOrder",
    "ImageSlices",
    "LabelMapd",
    "ProcessSampler",
    "RegionEncoding",
    "RegionMasksd",
    "RegionProbabilitiesd",
    "SaveLabeld",
    "SliceDataset",
    "Task",
    "TrainingLoader",
    "augmentation",
    "check_headers",
    "check_images",
    "common_folder",
    "epoch_seed",
    "inference_datalist",
    "load_dataset",
    "preprocessing",
    "save_dataset",
    "warn_of_cut_labels",
]

# No module here may have the name of something it exports: importing it would put the module in the name's place.
_MODULE_OF = {
    "augmentation": "augmentations",
    **dict.fromkeys(("Case", "DatasetDescription", "load_dataset", "save_dataset"), "dataset_description"),
    **dict.fromkeys(("ImageSlices", "SaveLabeld", "common_folder", "inference_datalist"), "inference"),
    **dict.fromkeys(("check_headers", "check_images"), "case_checks"),
    "RegionEncoding": "regions",
    **dict.fromkeys(("EpochOrder", "ProcessSampler", "SliceDataset", "TrainingLoader", "epoch_seed"), "slices"),
    "Task": "task",
    "warn_of_cut_labels": "label_field",
    **dict.fromkeys(("LabelMapd", "RegionMasksd", "RegionProbabilitiesd", "preprocessing"), "transforms"),
}


def __getattr__(name: str) -> Any:
    """Load an exported name from its module."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the exported names as well as those that are loaded."""
    return sorted({*globals(), *__all__})
