"""The three phases, trained for MONAI Label's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.label.label_server import train_phases


@pytest.fixture(scope="session")
def phases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``phase1``, ``phase2`` and ``phase3``, trained for a few steps. Tests must not write to it."""
    return train_phases(tmp_path_factory.mktemp("label"), steps=2).parent


@pytest.fixture(scope="session")
def trained_phases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with a first phase that finds the organ and its core."""
    return train_phases(tmp_path_factory.mktemp("label_trained"), steps=100).parent
