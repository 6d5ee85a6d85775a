"""MONAI's file loader."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from monai.config import KeysCollection
from monai.transforms import LoadImaged

_DECODER_LOGGER = "monai.data.nvimgcodec_pydicom_plugin"


def image_loader(keys: KeysCollection, dtype: Any = float) -> LoadImaged:
    """Return MONAI's loader of files, which chooses the reader by a file's suffix.

    Where pydicom is installed, MONAI 1.6 also registers a reader that decodes DICOM on a GPU, and warns twice a loader
    if its packages are missing. No DICOM is loaded by it here, so the messages would only mislead.

    Args:
        keys: what to load.
        dtype: of the arrays; None keeps that of the file.
    """
    logger = logging.getLogger(_DECODER_LOGGER)
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
            return LoadImaged(keys, image_only=True, dtype=dtype)
    finally:
        logger.setLevel(level)
