"""Fixtures for all tests."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.small_dataset import SMALL, make_dataset

# In the background of a script Ctrl-C is ignored, and under nohup SIGHUP, by all that is started from there; the tests
# of stopping send them.
for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    number = getattr(signal, name, None)  # Windows has no SIGHUP
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


def pytest_report_header() -> str:
    """Tell the free space, for a full disk fails tests in ways that do not name it."""
    folder = tempfile.gettempdir()
    return f"free space in {folder}: {shutil.disk_usage(folder).free / 2**30:.1f} GiB"


@pytest.fixture(scope="session", autouse=True)
def _own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have what other libraries leave in the system's temporary folder removed with the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
        patch.setattr(tempfile, "tempdir", None)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images; they are not part of the repository, so the test may be skipped."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("REAL_IMAGES", beside)).absolute()
    if not folder.is_dir():
        pytest.skip(f"real images are not at {folder}; the test needs them (REAL_IMAGES names their folder)")
    return folder


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data set that `finished_run` was trained on."""
    return make_dataset(tmp_path_factory.mktemp("data") / "discs")


@pytest.fixture(scope="session")
def finished_run(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run with the baseline; to be copied before anything in it is changed."""
    from mixstyleflow_monai import pipeline

    output = tmp_path_factory.mktemp("run") / "a run"
    pipeline.run(str(discs), str(output), seed=3, baseline=True, **SMALL)
    return output


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """A list that gets the folder, configuration and settings of each bundle that runs."""
    from mixstyleflow_monai import bundle_runs

    ran: list[tuple[str, dict[str, Any]]] = []
    original = bundle_runs.run_bundle

    def spy(files: list[str], settings: dict[str, Any]) -> None:
        ran.append((f"{Path(settings['output_dir']).name}/{Path(files[0]).stem}", settings))
        original(files, settings)

    monkeypatch.setattr(bundle_runs, "run_bundle", spy)
    return ran
