"""Small images and label maps of them, as inference writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from mixstyleflow_monai.data import SaveLabeld, preprocessing

SIZE = (48, 32)


def grey(seed: int = 0, shape: tuple[int, ...] = (30, 44)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, shape, np.uint8)


def predict_ones(image: Path, output_dir: Path) -> None:
    data = preprocessing(SIZE)({"image": str(image)})
    data["pred"] = MetaTensor(torch.ones(1, *data["image"].shape[1:]), meta=data["image"].meta)
    SaveLabeld("pred", output_dir, data_root_dir=str(image.parent))(data)
