"""The file loader."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixstyleflow_monai.data.loading import image_loader


def test_loader_reads_a_picture_and_says_nothing_of_readers_that_are_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    logger = logging.getLogger("monai.data.nvimgcodec_pydicom_plugin")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = image_loader("image", None)({"image": str(tmp_path / "a.png")})["image"]
    assert caplog.records == []
    assert logger.level == level
    assert loaded.dtype.itemsize == 1
    # MONAI's readers have the horizontal axis first.
    assert np.array_equal(loaded.numpy(), pixels.T)
