"""Data: the dataset description, regions, transforms and training slices."""

from mixstyleflow_monai.data.augmentation import augmentation
from mixstyleflow_monai.data.dataset_description import Case, DatasetDescription, load_dataset, save_dataset
from mixstyleflow_monai.data.inference import ImageSlices, SaveLabeld, common_folder, inference_datalist
from mixstyleflow_monai.data.regions import RegionEncoding
from mixstyleflow_monai.data.slices import SliceDataset, TrainingLoader, epoch_seed
from mixstyleflow_monai.data.task import Task
from mixstyleflow_monai.data.transforms import LabelMapd, RegionMasksd, RegionProbabilitiesd, preprocessing

__all__ = [
    "Case",
    "DatasetDescription",
    "ImageSlices",
    "LabelMapd",
    "RegionEncoding",
    "RegionMasksd",
    "RegionProbabilitiesd",
    "SaveLabeld",
    "SliceDataset",
    "Task",
    "TrainingLoader",
    "augmentation",
    "common_folder",
    "epoch_seed",
    "inference_datalist",
    "load_dataset",
    "preprocessing",
    "save_dataset",
]
