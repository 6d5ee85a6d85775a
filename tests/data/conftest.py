"""Small images and volumes, written to disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform
from numpy.typing import NDArray
from PIL import Image

Writer = Callable[..., str]


@pytest.fixture
def write_volume() -> Writer:
    """Return a function that writes a RAS-ordered array as NIfTI with its axes in another order."""

    def write(
        path: Path, array: NDArray[np.generic], *, axes: str = "RAS", spacing: Sequence[float] = (1.0, 1.0, 4.0)
    ) -> str:
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = (-7.0, 11.0, 23.0)
        image = nib.Nifti1Image(array, affine)
        image = image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(tuple(axes))))
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(image, path)
        return str(path)

    return write


@pytest.fixture
def write_image() -> Writer:
    """Return a function that writes an array (rows, columns[, 3]) as an image of the format that the suffix says."""

    def write(path: Path, array: NDArray[np.uint8]) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        return str(path)

    return write
