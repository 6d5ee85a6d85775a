"""One clear message for a user's mistake when a bundle is run with ``python -m monai.bundle``.

MONAI wraps an error once for every configuration item that it passes through, and Python prints all of them: some sixty
lines, with the message that helps near the top. The bundles import this module; in a ``python -m monai.bundle`` process
it prints the first cause of such an error alone. Anywhere else it changes nothing.
"""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeGuard

_FILES = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError)
# A full disk, a used-up quota and a file beyond the limit; Windows has not all of them.
_FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))


def _is_full(error: BaseException | None) -> TypeGuard[OSError]:
    return isinstance(error, OSError) and error.errno in _FULL


def is_mistake(error: BaseException) -> bool:
    """Tell what a user can mend, a full disk too, from what needs its traceback."""
    full = isinstance(error, OSError) and error.errno in (*_FULL, errno.EROFS)
    return full or isinstance(error, (ValueError, *_FILES))


def root_cause(error: BaseException) -> BaseException:
    """Return what to tell the user of a chain of errors.

    That is the outermost mistake in it, which has our own message and may in turn have a library's as its cause; the
    innermost error if there is no mistake in it. A full disk counts also where a library raised another error while it
    cleaned up, as torch does when it saves.
    """
    while not is_mistake(error):
        if error.__cause__ is not None:
            error = error.__cause__
        elif not error.__suppress_context__ and _is_full(error.__context__):
            error = error.__context__
        else:
            break
    return error


def worded(error: BaseException, on_full: str = "Make room, and run the same command again: it goes on.") -> str:
    """Return what to say of a mistake; an error of the operating system has no remedy of its own.

    Args:
        error: the mistake.
        on_full: the remedy where there is no room left.
    """
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    where = f"{error.filename}: " if error.filename is not None else ""
    if error.errno in _FULL:
        return f"{where}{error.strerror}. {on_full}"
    return f"{where}{error.strerror}. Check that the file is there and its permissions, and run the same command again."


def show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Print a mistake of the user's as one message, anything else with its traceback. A ``sys.excepthook``."""
    cause = root_cause(error)
    if is_mistake(cause):
        print(f"error: {worded(cause)}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


def record_factory(is_short: Callable[[BaseException], bool]) -> Callable[..., logging.LogRecord]:
    """Return the present factory of log records, but without the traceback of errors of a kind.

    Args:
        is_short: says of an error whether its traceback is left out.
    """
    factory = logging.getLogRecordFactory()

    def record(*args: Any, **options: Any) -> logging.LogRecord:
        made = factory(*args, **options)
        error = made.exc_info[1] if made.exc_info else None
        if error is not None and is_short(error):
            made.exc_info = None
        return made

    return record


def is_bundle_process(program: str) -> bool:
    """True for the path that ``python -m monai.bundle`` has in ``sys.argv[0]``."""
    return Path(program).parts[-3:] == ("monai", "bundle", "__main__.py")


if is_bundle_process(sys.argv[0]):
    sys.excepthook = show
    # An engine logs the traceback of what ends it, before `show` prints the message.
    logging.setLogRecordFactory(record_factory(lambda error: is_mistake(root_cause(error))))
