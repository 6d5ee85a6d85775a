"""Tests of ending in good order and of one process at a time in a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from mixstyleflow_monai.stopping import LOCK_FILE, Programs, only_one, signals_as_exit

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]


def until(condition: object, seconds: float = 20.0) -> None:
    """Wait until a callable is true."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_second_process_in_a_folder_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    code = (
        "import sys, time; from pathlib import Path; from mixstyleflow_monai.stopping import only_one\n"
        "with only_one(Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(ValueError, match=r"run: another process is at work in it\. Wait for it"), only_one(folder):
            raise AssertionError
        other.kill()
    with only_one(folder):
        pass
    with only_one(folder):
        pass


def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: FileLock) -> None:
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "_acquire", refuse)
    with only_one(tmp_path):
        pass
    assert "no locks on this file system" in caplog.text
    assert (tmp_path / LOCK_FILE).name == ".lock"


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_being_asked_to_end_is_an_exit(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, signals_as_exit():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_programs_end_together_and_no_further_one_starts(tmp_path: Path) -> None:
    programs = Programs()
    logs = [tmp_path / f"{k}.txt" for k in range(2)]

    def start(path: Path) -> int:
        with path.open("w", encoding="utf-8") as log:
            return programs.run(SLEEPER, log, os.environ)

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(start, path) for path in logs]
        until(lambda: all(path.is_file() and path.read_text() == "up\n" for path in logs))
        programs.stop()
        codes = [future.result(timeout=20) for future in futures]
    assert 0 not in codes
    with pytest.raises(RuntimeError, match="stopped"):
        start(tmp_path / "late.txt")


def test_a_program_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixstyleflow_monai.stopping.PATIENCE", 0.3)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    command = [*SLEEPER[:2], deaf + SLEEPER[2]]
    programs = Programs()
    path = tmp_path / "log.txt"
    with ThreadPoolExecutor(1) as pool, path.open("w", encoding="utf-8") as log:
        future = pool.submit(programs.run, command, log, os.environ)
        until(lambda: path.read_text() == "up\n")
        programs.stop()
        assert future.result(timeout=20) != 0


def test_the_exit_code_and_output_of_a_program_are_kept(tmp_path: Path) -> None:
    with (tmp_path / "log.txt").open("w", encoding="utf-8") as log:
        code = Programs().run([sys.executable, "-c", "print('said'); raise SystemExit(3)"], log, os.environ)
    assert code == 3
    assert (tmp_path / "log.txt").read_text() == "said\n"
