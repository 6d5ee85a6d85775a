"""Commands of ``python -m mixstyleflow_monai``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import fire

from mixstyleflow_monai.benchmark import benchmark
from mixstyleflow_monai.bundle_errors import MISTAKES, root_cause
from mixstyleflow_monai.data.schema_checks import did_you_mean
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


def check_words(words: Sequence[str]) -> list[str]:
    """Return the words of a command line with switches as Fire reads them, if every word has a place.

    Fire would call a command first and complain of a word that is left over afterwards; and of a list with spaces it
    would give the first value to the option, and the others to whatever option comes next.

    Raises:
        ValueError: an unknown option, one too many words, or a switch that is neither true nor false.
    """
    result = list(words)
    if not result or result[0] not in COMMANDS or any(word in ("--help", "-h", "--") for word in result):
        return result
    options = inspect.signature(COMMANDS[result[0]]).parameters
    takes_all = any(option.kind is inspect.Parameter.VAR_KEYWORD for option in options.values())
    known = [name for name, option in options.items() if option.kind is not inspect.Parameter.VAR_KEYWORD]
    given, free, position = set(), [], 1
    while position < len(result):
        word = result[position]
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("--"):
            free.append(word)
        elif not takes_all and name not in known:
            raise ValueError(f"--{name}: no such option, allowed: {', '.join(known)}{did_you_mean(name, known)}")
        else:
            given.add(name)
            follows = not equals and position + 1 < len(result) and not result[position + 1].startswith("--")
            if name in known and "bool" in str(options[name].annotation) and (equals or follows):
                at = position + follows
                result[at] = f"--{name}={_switch(name, value or result[at])}" if equals else _switch(name, result[at])
            position += follows
        position += 1
    places = [name for name in known if options[name].default is inspect.Parameter.empty and name not in given]
    if len(free) > len(places):
        raise ValueError(
            f"{' '.join(map(repr, free[len(places) :]))}: to which option? Separate the values of a list by commas "
            "without spaces, as in 0,1,2."
        )
    return result


def _switch(name: str, value: str) -> str:
    if value.lower() not in ("true", "false"):
        raise ValueError(f"--{name}: found {value!r}; it stands alone, or with true or false.")
    return value.capitalize()


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    A mistake of the user's is one message on standard error and exit code 1, without a traceback.
    """
    try:
        words = quote_paths(check_words(sys.argv[1:] if arguments is None else arguments))
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
