"""Commands of ``python -m mixstyleflow_monai``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import fire

from mixstyleflow_monai.benchmark import benchmark
from mixstyleflow_monai.bundle_errors import is_mistake, root_cause, worded
from mixstyleflow_monai.command_line import HELP, checked_words, print_commands
from mixstyleflow_monai.evaluate_run import evaluate, report
from mixstyleflow_monai.packing import pack
from mixstyleflow_monai.pipeline import run

COMMANDS: dict[str, Callable[..., Any]] = {
    "run": run,
    "evaluate": evaluate,
    "report": report,
    "benchmark": benchmark,
    "pack": pack,
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    A mistake of the user's is one message on standard error and exit code 1, without a traceback.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in (*HELP, "help"):
        print_commands("mixstyleflow_monai", COMMANDS)
        return 0
    try:
        words = checked_words(words, COMMANDS)
        status = fire.Fire(COMMANDS, command=words, name="python -m mixstyleflow_monai", serialize=lambda _: None)
    except SystemExit as ended:
        # Fire ends with 2 where it shows the help of a command that takes any option.
        if "--help" in words:
            return 0
        return ended.code if isinstance(ended.code, int) else 1
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130
    except Exception as error:
        cause = root_cause(error)
        if is_mistake(cause):
            print(f"error: {worded(cause)}", file=sys.stderr)
            return 1
        raise
    return status if isinstance(status, int) else 0
