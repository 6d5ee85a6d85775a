"""Commands that make data sets: ``python -m data_prep COMMAND ...``; without a command, the list of them.

To add a command, write a function here that imports what it needs when it is called, and enter it in ``COMMANDS``.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import fire

from mixstyleflow_monai.data.schema_checks import did_you_mean


def folder(spec: str, output: str, root: str | None = None) -> None:
    """Turn anyone's labelled images, described by a YAML spec, into a data set.

    Args:
        spec: YAML file; commented examples are in data_prep/examples.
        output: folder to make; must be absent or empty.
        root: folder that the paths in the spec start from; the folder of the spec by default.
    """
    from data_prep.folder import make_folder_dataset

    _say_written(make_folder_dataset(str(spec), str(output), None if root is None else str(root)))


def phantom(task: str, output: str, seed: int = 0) -> None:
    """Make the synthetic multi-site data set of a task, to try everything without data.

    Args:
        task: prostate or fundus.
        output: folder to make.
        seed: seed of anatomy and appearance.
    """
    from data_prep.phantom import make_phantom

    make_phantom(str(task), str(output), seed=_whole_number("--seed", seed))
    _say_written(output)


def resplit(dataset: str, source: str, output: str, seed: int | None = None) -> None:
    """Make another domain the source of a data set; images are referenced, not copied.

    Args:
        dataset: folder of the existing data set.
        source: the domain to train on.
        output: folder for the new dataset.json; must be absent or empty.
        seed: seed of the division; that of the data set by default.
    """
    from data_prep.resplit import resplit_dataset

    checked = None if seed is None else _whole_number("--seed", seed)
    _say_written(resplit_dataset(str(dataset), str(source), str(output), seed=checked))


COMMANDS: dict[str, Callable[..., None]] = {"folder": folder, "phantom": phantom, "resplit": resplit}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 1 for a mistake in the input, 2 for one in the command line."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        _list_commands()
        return 0
    try:
        _check_words(words)
        fire.Fire(COMMANDS, command=words, name="data_prep")
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _check_words(words: Sequence[str]) -> None:
    """Refuse unknown commands and flags beforehand: Fire would call the function first and complain afterwards."""
    if words[0] not in COMMANDS:
        hint = did_you_mean(words[0], COMMANDS)
        raise ValueError(f"no command {words[0]!r}, allowed: {', '.join(COMMANDS)}{hint}")
    allowed = list(inspect.signature(COMMANDS[words[0]]).parameters)
    for word in words[1:]:
        if word == "--":
            break
        flag = word[2:].split("=")[0].replace("-", "_")
        if word.startswith("--") and flag not in (*allowed, "help"):
            flags = ", ".join(f"--{name}" for name in allowed)
            raise ValueError(f"{words[0]} has no option {word!r}, allowed: {flags}{did_you_mean(flag, allowed)}")


def _list_commands() -> None:
    print("usage: python -m data_prep COMMAND ...\n\ncommands:")
    for name, function in COMMANDS.items():
        print(f"  {name:12} {(inspect.getdoc(function) or '').splitlines()[0]}")
    print("\n`python -m data_prep COMMAND --help` describes the options of a command.")


def _whole_number(option: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{option}: found {value!r}, allowed: a whole number from 0, such as 1")
    return value


def _say_written(path: object) -> None:
    print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(main())
