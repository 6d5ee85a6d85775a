"""Command lines that Fire reads as they are meant.

Fire calls a function first and complains of unknown words afterwards; it reads a folder named 2024_05_01 as a number,
one named a,b as a tuple, "a#1" as a, and a flag without a value as True.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mixstyleflow_monai.data.schema_checks import did_you_mean

HELP = ("-h", "--help")


def print_commands(program: str, commands: Mapping[str, Callable[..., Any]]) -> None:
    """Print the commands of a program, a line each."""
    width = max(map(len, commands)) + 1
    print(f"usage: python -m {program} COMMAND ...\n\ncommands:")
    for name, function in commands.items():
        print(f"  {name:{width}} {(inspect.getdoc(function) or '').splitlines()[0]}")
    print(f"\n`python -m {program} COMMAND --help` describes the options of a command.")


def checked_words(words: Sequence[str], commands: Mapping[str, Callable[..., Any]]) -> list[str]:
    """Return the words of a command line with every value behind its flag, and text in quotes.

    Args:
        words: a command and what follows it.
        commands: functions by name. One with ``**options`` takes any option; values of these are left as they are.

    Raises:
        ValueError: an unknown command or option, one that is given twice, without a value or not at all, or words too
            many.
    """
    command, *rest = words
    if command not in commands:
        hint = did_you_mean(command, commands)
        raise ValueError(f"no command {command!r}, allowed: {', '.join(commands)}{hint}")
    if any(word in HELP for word in rest):
        return [command, "--help"]
    options = inspect.signature(commands[command]).parameters
    named = {name: option for name, option in options.items() if option.kind is not inspect.Parameter.VAR_KEYWORD}
    takes_all = len(named) < len(options)
    given, first, later = _divide(command, rest, named, takes_all=takes_all)
    needed = [name for name, option in named.items() if option.default is inspect.Parameter.empty]
    # Behind a flag a word is rather the second value of a list than an option that nobody named.
    places = [name for name in (needed if takes_all else named) if name not in given]
    given |= zip(places, first, strict=False)
    left = [name for name in needed if name not in given]
    surplus = [*first[len(places) :], *later[len(left) :]]
    if surplus:
        open_places = left if later else places
        takes = f"only {', '.join(open_places)}" if open_places else "nothing"
        raise ValueError(
            f"{command}: {' '.join(map(repr, surplus))} is too much: without a flag it takes {takes} here; put a name "
            "with spaces in quotes, and commas between the values of a list, as in 0,1,2"
        )
    given |= zip(left, later, strict=False)
    kinds = {name: str(option.annotation) for name, option in named.items()}
    result = [_for_fire(name, kinds.get(name), value) for name, value in given.items()]
    missing = [f"--{name}" for name in needed if name not in given]
    if missing:
        raise ValueError(f"{command}: {' and '.join(missing)} must be given; `{command} --help` tells of each option")
    return [command, *result]


def _divide(
    command: str, words: Sequence[str], named: Mapping[str, Any], *, takes_all: bool
) -> tuple[dict[str, str | None], list[str], list[str]]:
    """Return values by option, and the words without a flag: those before the first flag, and those behind it."""
    rest = list(words)
    given: dict[str, str | None] = {}
    first: list[str] = []
    later: list[str] = []
    while rest:
        word = rest.pop(0)
        if not _is_flag(word):
            (later if given else first).append(word)
            continue
        name, equals, text = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        known = name in named or (takes_all and name)
        if not word.startswith("--") or not known:
            flags = ", ".join(f"--{option}" for option in named) or "none"
            raise ValueError(f"{command} has no option {word!r}, allowed: {flags}{did_you_mean(name, named)}")
        if name in given:
            raise ValueError(f"--{name} is given twice; remove one")
        value = text if equals else None
        if not equals and rest and not _is_flag(rest[0]):
            value = rest.pop(0)
        given[name] = value
    return given, first, later


def _for_fire(name: str, kind: str | None, value: str | None) -> str:
    """Return an option so that Fire reads its value as what it is; one that no function names is Fire's to read."""
    if kind is None:
        # JSON's word for nothing, as the tables of options have it.
        return f"--{name}" if value is None else f"--{name}={'None' if value == 'null' else value}"
    first = kind.split(" ")[0]
    if first == "bool":
        value = "True" if value is None else value
        if value.lower() not in ("true", "false"):
            raise ValueError(f"--{name}: found {value!r}; it stands alone, or with true or false")
        return f"--{name}={value.capitalize()}"
    # Nothing may be meant where several names can be given.
    if value is None or (not value and "Sequence" not in kind):
        example = {"str": "NAME", "int": "1", "float": "0.3"}.get(first, "1,1,3")
        raise ValueError(f"--{name} has no value; give one, as in --{name} {example}")
    quoted = kind == "str" or (kind == "str | None" and value not in ("None", "null"))
    return f"--{name}={value!r}" if quoted else f"--{name}={'None' if value == 'null' else value}"


def _is_flag(word: str) -> bool:
    """Say whether a word is a flag for Fire; -1 is a number. A dash alone would divide the line for Fire."""
    return word == "-" or word.startswith("--") or re.match("-[a-zA-Z]", word) is not None
