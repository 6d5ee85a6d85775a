"""Fixtures of all tests of data preparation."""

from __future__ import annotations

import pytest

from data_prep import check_description


@pytest.fixture(autouse=True)
def volumes_of_a_few_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take volumes far smaller than the network's input without a warning, since those of the tests are."""
    monkeypatch.setattr(check_description, "MIN_SHARE_FILLED", 0.0)
