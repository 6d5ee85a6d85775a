"""Ending in good order, and one command at a time in a folder."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn, TextIO

logger = logging.getLogger(__name__)
LOCK_FILE = ".lock"
PATIENCE = 20.0
"""Seconds that programs which were asked to end are given before they are told to, and then before they are killed."""

# A closed terminal ends its programs by SIGHUP, which Windows does not have.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))

_held: set[int] = set()
"""Open files of the folders that this process holds; programs that it starts hold them too."""


@contextmanager
def signals_as_exit() -> Iterator[None]:
    """Let the signals that ask a process to end raise ``SystemExit``, so that what must be undone is undone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A signal that is ignored (nohup) or that a caller handles stays so.
    replaced = [number for number in _SIGNALS if signal.getsignal(number) == signal.SIG_DFL]
    try:
        for number in replaced:
            signal.signal(number, _exit)
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)


def _exit(number: int, _: object) -> NoReturn:
    # The status that shells report for a process ended by the signal.
    raise SystemExit(128 + number)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold a folder for this process and the `Programs` that it starts, so that no other command trains in it.

    The operating system lets go of it when the last of these processes ends, however it ends; the file ``.lock`` stays
    and means nothing by itself. Where the file system has no locks, a warning takes their place; on Windows nothing is
    held.

    Args:
        folder: made if it is not there.

    Raises:
        ValueError: another process holds it, or it cannot be a folder.
    """
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"--output_dir {folder}: {place} is a file. Give a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    with (folder / LOCK_FILE).open("a", encoding="utf-8") as file:
        _lock(file, folder)
        _held.add(file.fileno())
        try:
            yield
        finally:
            _held.discard(file.fileno())


def _lock(file: TextIO, folder: Path) -> None:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(
            f"{folder}: another command is at work in this folder, or a training that one left. Wait for it or stop "
            "it, or give another --output_dir."
        ) from error
    except OSError as error:
        logger.warning(
            "%s: no locks on this file system (%s); do not start a second command in this folder.",
            folder,
            error.strerror,
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process is in a block of this kind for the same folder.

    Without effect on Windows and on file systems without locks.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    number = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


class Programs:
    """Programs that were started from several threads, to be ended together."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._guard = threading.Lock()
        self._stopped = False

    def run(self, command: Sequence[str], log: TextIO, environment: Mapping[str, str]) -> int:
        """Run a program with its output in a log, and return its exit code.

        Raises:
            RuntimeError: the programs were stopped.
        """
        with self._guard:
            if self._stopped:
                raise RuntimeError("stopped")
            program = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, text=True, pass_fds=tuple(_held)
            )
            self._running.add(program)
        try:
            return program.wait()
        finally:
            with self._guard:
                self._running.discard(program)

    def stop(self, *, asked: bool = False) -> None:
        """End all programs; no further one will start.

        They are asked as Ctrl-C asks, so that they can tidy up, then told to end, then killed; killed at once when this
        process is asked a second time.

        Args:
            asked: they were asked already: Ctrl-C reaches all programs of a terminal.
        """
        with self._guard:
            self._stopped = True
            running = tuple(self._running)
        try:
            if not asked:
                _send(running, signal.SIGINT if os.name == "posix" else signal.SIGTERM)
            if not _ended(running, PATIENCE):
                _send(running, signal.SIGTERM)
                _ended(running, PATIENCE)
        finally:
            for program in running:
                program.kill()


def _send(programs: Sequence[subprocess.Popen[str]], number: signal.Signals) -> None:
    for program in programs:
        program.send_signal(number)


def _ended(programs: Sequence[subprocess.Popen[str]], seconds: float) -> bool:
    """Wait for all of them, and say whether they ended in time."""
    end = time.monotonic() + seconds
    try:
        for program in programs:
            program.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True
