"""Commands of ``python -m mixstyleflow_monai``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import fire

from mixstyleflow_monai.benchmark import benchmark
from mixstyleflow_monai.bundle_errors import MISTAKES, root_cause
from mixstyleflow_monai.packing import pack
from mixstyleflow_monai.pipeline import run

COMMANDS: dict[str, Callable[..., Any]] = {"run": run, "benchmark": benchmark, "pack": pack}

# Fire reads values as Python: "a#1" as a, 2026 as a number, "a,b" as a tuple. A path is what it says.
PATHS = ("dataset_dir", "output_dir", "bundles_dir", "bundle", "weights", "output", "data_license")


def quote_paths(words: Sequence[str]) -> list[str]:
    """Return the words of a command line with the values of path options quoted for Fire."""
    result = list(words)
    for position, word in enumerate(result):
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name.replace("-", "_") not in PATHS:
            continue
        if equals:
            result[position] = f"--{name}={value!r}"
        elif position + 1 < len(result) and not result[position + 1].startswith("--"):
            result[position + 1] = repr(result[position + 1])
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    A mistake of the user's is one message on standard error and exit code 1, without a traceback.
    """
    try:
        words = quote_paths(sys.argv[1:] if arguments is None else arguments)
        status = fire.Fire(COMMANDS, command=words, name="python -m mixstyleflow_monai", serialize=lambda _: None)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130
    except Exception as error:
        cause = root_cause(error)
        if isinstance(cause, MISTAKES):
            print(f"error: {cause}", file=sys.stderr)
            return 1
        raise
    return status if isinstance(status, int) else 0
