"""Fixtures for all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# In the background of a script Ctrl-C is ignored, and under nohup SIGHUP, by all that is started from there; the tests
# of stopping send them.
for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    number = getattr(signal, name, None)  # Windows has no SIGHUP
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images; they are not part of the repository, so the test may be skipped."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("REAL_IMAGES", beside)).absolute()
    if not folder.is_dir():
        pytest.skip(f"real images are not at {folder}; the test needs them (REAL_IMAGES names their folder)")
    return folder
