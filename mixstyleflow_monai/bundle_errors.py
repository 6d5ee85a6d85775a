"""One clear message for a user's mistake when a bundle is run with ``python -m monai.bundle``.

MONAI wraps an error once for every configuration item that it passes through, and Python prints all of them: some sixty
lines, with the message that helps near the top. The bundles import this module; in a ``python -m monai.bundle`` process
it prints the first cause of such an error alone. Anywhere else it changes nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

MISTAKES = (ValueError, FileNotFoundError, FileExistsError)


def root_cause(error: BaseException) -> BaseException:
    """Return what to tell the user of a chain of errors.

    That is the outermost mistake in it, which has our own message and may in turn have a library's as its cause; the
    innermost error if there is no mistake in it.
    """
    while not isinstance(error, MISTAKES) and error.__cause__ is not None:
        error = error.__cause__
    return error


def show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Print a mistake of the user's as one message, anything else with its traceback. A ``sys.excepthook``."""
    cause = root_cause(error)
    if isinstance(cause, MISTAKES):
        print(f"error: {cause}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


def is_bundle_process(program: str) -> bool:
    """True for the path that ``python -m monai.bundle`` has in ``sys.argv[0]``."""
    return Path(program).parts[-3:] == ("monai", "bundle", "__main__.py")


if is_bundle_process(sys.argv[0]):
    sys.excepthook = show
