"""Making a folder as a whole or not at all."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mixstyleflow_monai.data.output_folder import empty_output
from mixstyleflow_monai.stopping import signals_as_exit


@contextmanager
def building(output: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``output`` when the block ends without an error.

    It lies beside the folder that ``output`` really is, links followed, because a rename is atomic within one file
    system only. See :func:`scratch_folder` for what happens when the process is stopped.

    Raises:
        ValueError: ``output`` exists and is not an empty folder, cannot be replaced by another folder (the working
            folder, a mounted one), or its folder cannot be made. Nothing was made then. Or another process filled it
            in the meantime.
    """
    target = empty_output(output)
    if target == Path(os.path.realpath(os.curdir)) or os.path.ismount(target):
        what = "a mounted folder" if os.path.ismount(target) else "the working folder"
        raise ValueError(
            f"--output {output}: is {what}, which cannot be replaced by a finished one; give a new folder in it, such "
            f"as --output {Path(output) / 'dataset'}"
        )
    with scratch_folder(target.parent, target.name) as partial:
        yield partial
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o777 & ~umask)
        try:
            if target.exists():
                target.rmdir()
            partial.rename(target)
        except OSError as error:
            if not target.is_dir() or not any(target.iterdir()):
                raise
            raise ValueError(
                f"--output {output}: another process filled it meanwhile, and its content was left as it is. Look at "
                "it, or give another folder."
            ) from error


@contextmanager
def scratch_folder(place: Path, name: str) -> Iterator[Path]:
    """Yield a new hidden folder in ``place`` that is gone after the block, unless the block renamed it.

    It is also removed when the process is asked to end (SIGTERM, SIGHUP): these raise ``SystemExit`` in the main
    thread, where they have no handler of another's. What a process left that was killed at once is removed, and named,
    when the next one begins with the same ``name`` on the same computer.

    Raises:
        ValueError: the folder cannot be made.
    """
    _remove_left_behind(place, name)
    with signals_as_exit():
        try:
            partial = Path(tempfile.mkdtemp(prefix=f"{_prefix(name)}{os.getpid()}-", dir=place))
        except OSError as error:
            raise ValueError(f"--output: no folder can be made in {place} ({error.strerror}); give another.") from error
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _prefix(name: str) -> str:
    """Return how the folders of this computer begin: a process number of another tells nothing about this one."""
    return f".partial-{name}-{zlib.crc32(platform.node().encode()):08x}-"


def _remove_left_behind(place: Path, name: str) -> None:
    """Remove the folders of processes that are gone."""
    pattern = re.compile(re.escape(_prefix(name)) + r"(\d+)-\w+")
    for folder in sorted(place.iterdir()) if place.is_dir() else []:
        match = pattern.fullmatch(folder.name)
        if match and folder.is_dir() and not folder.is_symlink() and not _is_running(int(match[1])):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                print(f"note: removed {folder}, left by a run that was stopped.", file=sys.stderr)


def _is_running(process: int) -> bool:
    """Say whether there is such a process; yes where it cannot be told without harm."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
