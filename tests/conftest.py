"""Fixtures for all tests."""

from __future__ import annotations

import locale
from collections.abc import Iterator
from pathlib import Path

import pytest

LOCALE = locale.setlocale(locale.LC_CTYPE)


@pytest.fixture(autouse=True)
def same_locale() -> Iterator[None]:
    """Put back the locale, which decoding a damaged JPEG sets to C: torch, later, reads its own sources by it."""
    yield
    locale.setlocale(locale.LC_CTYPE, LOCALE)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images beside the checkout; they are not part of the repository, so the test may be skipped."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real images are not at {folder}; the test needs them")
    return folder
