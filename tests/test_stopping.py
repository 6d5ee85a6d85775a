"""Tests of ending in good order and of one process at a time in a folder."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mixstyleflow_monai.stopping import Programs, only_one, signals_as_exit

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
        with pytest.raises(ValueError, match=r"run: another command is at work in this folder"), only_one(folder):
            raise AssertionError
        other.kill()
    with only_one(folder):
        pass
    with only_one(folder):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO])
def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with only_one(tmp_path):
        pass
    assert f"no locks on this file system ({os.strerror(number)})" in caplog.text


def test_a_training_that_outlives_its_command_still_holds_the_folder(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from mixstyleflow_monai.stopping import Programs, only_one\n"
        "with only_one(Path(sys.argv[1])), open(sys.argv[2], 'w') as log:\n"
        "    Programs().run([sys.executable, '-c', sys.argv[3]], log, os.environ)"
    )
    log = tmp_path / "log.txt"
    sleeper = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run"), str(log), sleeper]) as command:
        until(lambda: log.is_file() and log.read_text().strip())
        command.kill()
    with pytest.raises(ValueError, match="or a training that one left"), only_one(tmp_path / "run"):
        raise AssertionError
    os.kill(int(log.read_text()), signal.SIGKILL)
    until(lambda: is_free(tmp_path / "run"))


def is_free(folder: Path) -> bool:
    try:
        with only_one(folder):
            return True
    except ValueError:
        return False


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


TIDY = (
    "import sys, time\ntry:\n    print('up', flush=True)\n    time.sleep(60)\n"
    "except KeyboardInterrupt:\n    time.sleep(0.5)\n    print('tidied', flush=True)\n    sys.exit(7)"
)
DEAF = "import signal\nfor n in (signal.SIGTERM, signal.SIGINT): signal.signal(n, signal.SIG_IGN)\n"


def stopped(code: str, log: Path, **options: bool) -> tuple[int, str]:
    """Start a program, stop it when it is up, and return its exit code and what it said."""
    programs = Programs()
    with ThreadPoolExecutor(1) as pool, log.open("w", encoding="utf-8") as file:
        future = pool.submit(programs.run, [sys.executable, "-c", code], file, os.environ)
        until(lambda: log.read_text() == "up\n")
        programs.stop(**options)
        return future.result(timeout=20), log.read_text()


def test_programs_are_given_time_to_tidy_up(tmp_path: Path) -> None:
    assert stopped(TIDY, tmp_path / "log.txt") == (7, "up\ntidied\n")


def test_programs_that_were_asked_already_are_not_interrupted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixstyleflow_monai.stopping.PATIENCE", 1.0)
    code, said = stopped(TIDY, tmp_path / "log.txt", asked=True)
    assert (code, said) == (-signal.SIGTERM, "up\n")  # no Ctrl-C reached it, so it is told to end after a while


def test_a_program_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixstyleflow_monai.stopping.PATIENCE", 0.3)
    code, _ = stopped(DEAF + SLEEPER[2], tmp_path / "log.txt")
    assert code == -signal.SIGKILL


def test_asked_a_second_time_programs_are_killed_at_once(tmp_path: Path) -> None:
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        stopped(DEAF + SLEEPER[2], tmp_path / "log.txt")


def test_the_exit_code_and_output_of_a_program_are_kept(tmp_path: Path) -> None:
    with (tmp_path / "log.txt").open("w", encoding="utf-8") as log:
        code = Programs().run([sys.executable, "-c", "print('said'); raise SystemExit(3)"], log, os.environ)
    assert code == 3
    assert (tmp_path / "log.txt").read_text() == "said\n"
