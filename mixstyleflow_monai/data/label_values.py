"""Label values as whole numbers, where a file has them with a scale factor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_NEAR = 1e-7
"""Relative; a scale factor of 1/n is rounded to single precision, so that n times it is up to 6e-8 beside 1."""


def whole_labels(values: NDArray[Any]) -> NDArray[Any]:
    """Return label values, those rounded that a scale factor of their file left beside a whole number.

    Args:
        values: of any shape and type; integers are returned as they are, and so is what is farther from a whole one.
    """
    if values.dtype.kind != "f":
        return values
    nearest = np.rint(values)
    with np.errstate(invalid="ignore"):  # infinity less itself
        near = np.abs(values - nearest) <= _NEAR * np.abs(nearest)
    return np.where(near, nearest, values)
