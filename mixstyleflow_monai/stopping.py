"""Ending in good order, and one process at a time in a folder."""

from __future__ import annotations

import logging
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TextIO

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)
LOCK_FILE = ".lock"
PATIENCE = 20.0
"""Seconds that a program which was asked to end is given before it is killed."""

# A closed terminal ends its programs by SIGHUP, which Windows does not have.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


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
    """Hold a folder for this process, so that no other trains in it at the same time.

    The operating system lets go of it when the process ends, however it ends; the file ``.lock`` stays and means
    nothing by itself. Where the file system has no locks, a warning takes their place.

    Args:
        folder: made if it is not there.

    Raises:
        ValueError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"--output_dir {folder}: another process is at work in it. Wait for it or stop it, or give another folder."
        ) from error
    except NotImplementedError:
        logger.warning("%s: no locks on this file system; do not start a second command in this folder.", folder)
    try:
        yield
    finally:
        lock.release()


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
            program = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, text=True)
            self._running.add(program)
        try:
            return program.wait()
        finally:
            with self._guard:
                self._running.discard(program)

    def stop(self) -> None:
        """Ask all programs to end, and kill those that have not after a while; no further one will start."""
        with self._guard:
            self._stopped = True
            running = tuple(self._running)
        for program in running:
            program.terminate()
        for program in running:
            try:
                program.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()
