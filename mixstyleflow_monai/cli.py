"""Commands of ``python -m mixstyleflow_monai``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import fire

from mixstyleflow_monai.benchmark import benchmark
from mixstyleflow_monai.bundle_errors import MISTAKES, root_cause
from mixstyleflow_monai.packing import pack
from mixstyleflow_monai.pipeline import run

COMMANDS: dict[str, Callable[..., Any]] = {"run": run, "benchmark": benchmark, "pack": pack}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; a mistake of the user's is one message on standard error and exit code 1, without a traceback."""
    try:
        fire.Fire(COMMANDS, command=arguments, name="python -m mixstyleflow_monai", serialize=lambda _: None)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130
    except Exception as error:
        cause = root_cause(error)
        if isinstance(cause, MISTAKES):
            print(f"error: {cause}", file=sys.stderr)
            return 1
        raise
    return 0
