"""Label values that a scale factor left beside whole numbers."""

from __future__ import annotations

import numpy as np
import pytest

from mixstyleflow_monai.data.label_values import whole_labels


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_values_of_any_factor_of_one_over_n_become_whole(kind: type) -> None:
    for n in range(1, 1001):
        stored = np.array([0, n, 2 * n, 200 * n])
        scaled = (stored.astype(kind) * np.float32(1 / n)).astype(kind)
        assert whole_labels(scaled).tolist() == [0, 1, 2, 200], n


def test_other_values_stay() -> None:
    values = np.array([0.5, 0.9999, 1.0000002, -1.0, np.nan, np.inf])
    assert np.array_equal(whole_labels(values), values, equal_nan=True)
    whole = np.array([0, 255], np.uint8)
    assert whole_labels(whole) is whole
