"""Commands that make data sets: ``python -m data_prep COMMAND ...``; without a command, the list of them.

To add a command, write a function here that imports what it needs when it is called, and enter it in ``COMMANDS``.
"""

from __future__ import annotations

import errno
import inspect
import re
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
    from mixstyleflow_monai.data.resplit import resplit_dataset

    checked = None if seed is None else _whole_number("--seed", seed)
    _say_written(resplit_dataset(str(dataset), str(source), str(output), seed=checked))


def prostate(
    output: str,
    decathlon: str | None = None,
    sites: str | None = None,
    download: str | None = None,
    train_fraction: float = 1.0,
    resample: bool = False,
    spacing: tuple[float, ...] = (0.625, 0.625, 3.6),
) -> None:
    """Make the paper's prostate data set: train on the Medical Decathlon, test on six other sites.

    Args:
        output: folder to make; must be absent or empty.
        decathlon: Task05_Prostate as it is released, a folder or the tar file.
        sites: folder of the six-site release.
        download: folder to download Task05_Prostate to, in place of --decathlon.
        train_fraction: share of the 22 training patients, for example 0.1 or 0.3.
        resample: write volumes resampled to --spacing, in place of the original ones.
        spacing: millimetres along left-right, front-back and head-foot for --resample.
    """
    from data_prep.prostate.dataset import make_prostate_dataset

    _say_written(
        make_prostate_dataset(
            str(output),
            decathlon=decathlon,
            sites=sites,
            download=download,
            train_fraction=train_fraction,
            resample=resample,
            spacing=spacing,
        )
    )


def fundus(root: str, source: str, output: str, release: str = "auto", rater: int = 1, seed: int = 0) -> None:
    """Make the optic disc and cup data set from a public release.

    Args:
        root: folder of the release.
        source: the domain to train on; the others are unseen.
        output: folder to make; must be absent or empty.
        release: which release it is; auto recognises it by its files, or says what it could be.
        rater: whose masks to take, from 1, where there are several.
        seed: seed of the division of the source domain.
    """
    from data_prep.fundus.dataset import make_fundus_dataset

    made = make_fundus_dataset(
        str(root), str(source), str(output), release=str(release), rater=rater, seed=_whole_number("--seed", seed)
    )
    _say_written(made)


def dicom(input: str, output: str, series: str | None = None) -> None:
    """Turn DICOM series and their segmentations into NIfTI.

    Args:
        input: folder of DICOM files, searched with its subfolders.
        output: folder to make; must be absent or empty.
        series: SeriesInstanceUID, or several separated by commas, or "all", where the folder holds more than one.
    """
    from data_prep.dicom.convert import convert_dicom

    _say_written(convert_dicom(str(input), str(output), series=None if series is None else series))


def check(
    dataset: str,
    fix_report: str | None = None,
    workers: int | None = None,
    image_size: tuple[int, ...] = (224, 224),
    pixel_spacing: tuple[float, ...] | None = (0.625, 0.625),
) -> int:
    """Check everything about a data set at once: files, geometry, values, labels, splits, duplicates.

    Args:
        dataset: folder of the data set.
        fix_report: JSON file to write the problems and their remedies to.
        workers: processes; one a core by default.
        image_size: for volumes, the image_size that training is to be given: labels outside of it are told.
        pixel_spacing: likewise, in mm; null if whole slices are to be resized.
    """
    from data_prep.check import check_dataset

    return check_dataset(
        str(dataset), fix_report=fix_report, workers=workers, image_size=image_size, pixel_spacing=pixel_spacing
    )


def preview(dataset: str, output: str | None = None) -> None:
    """Draw the cases of each domain with their outlines, and the intensity histograms of all domains.

    Args:
        dataset: folder of the data set.
        output: folder for the PNG files; "preview" in the data set by default.
    """
    from data_prep.preview import preview_dataset

    for path in preview_dataset(str(dataset), None if output is None else str(output)):
        _say_written(path)


def download_links() -> None:
    """List the public data sets: where they are, how large, under which licence, what has to be accepted by hand."""
    from data_prep.download_links import print_links

    print_links()


COMMANDS: dict[str, Callable[..., int | None]] = {
    "folder": folder,
    "prostate": prostate,
    "fundus": fundus,
    "dicom": dicom,
    "phantom": phantom,
    "resplit": resplit,
    "check": check,
    "preview": preview,
    "download-links": download_links,
}
_HELP = ("-h", "--help")
# A full disk, a used-up quota and a file beyond the limit; Windows has not all of them.
_FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 1 for a mistake, 130 if it was interrupted (Ctrl-C).

    `check` has the status 1 for a data set with errors.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in (*_HELP, "help"):
        _list_commands()
        return 0
    try:
        words = _checked(words)
        # Fire would print what a command returns: its exit status, if it has one.
        status = fire.Fire(COMMANDS, command=words, name="data_prep", serialize=lambda _: None)
    # OSError: a full disk, a folder that may not be written, a file that went away.
    except (ValueError, OSError) as error:
        print(f"error: {_worded(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; no half-made folder was kept. Run the same command again.", file=sys.stderr)
        return 130
    return status if isinstance(status, int) else 0


def _worded(error: Exception) -> str:
    """Return what to say of an error; one of the operating system has no remedy of its own."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    where = f"{error.filename}: " if error.filename is not None else ""
    if error.errno in _FULL:
        return (
            f"{where}{error.strerror}. Nothing half-made was kept: make room, or give a folder on another disk, and "
            "run the same command again."
        )
    return f"{where}{error.strerror}. Check that the file is there and its permissions, and run the same command again."


def _checked(words: Sequence[str]) -> list[str]:
    """Return the words with every value behind its flag, and text in quotes.

    Fire would call the function first and complain of unknown words afterwards; it would read a folder named
    2024_05_01 as a number, one named a,b as a tuple, and a flag without a value as True.

    Raises:
        ValueError: an unknown command or option, one that is given twice or without a value, or words too many.
    """
    command, *rest = words
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS)
        raise ValueError(f"no command {command!r}, allowed: {', '.join(COMMANDS)}{hint}")
    if any(word in _HELP for word in rest):
        return [command, "--help"]
    kinds = {name: str(option.annotation) for name, option in inspect.signature(COMMANDS[command]).parameters.items()}
    given: dict[str, str] = {}
    free: list[str] = []
    while rest:
        word = rest.pop(0)
        if not _is_flag(word):
            free.append(word)
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("--") or name not in kinds:
            flags = ", ".join(f"--{known}" for known in kinds) or "none"
            raise ValueError(f"{command} has no option {word!r}, allowed: {flags}{did_you_mean(name, kinds)}")
        if name in given:
            raise ValueError(f"--{name} is given twice; remove one")
        if not equals and rest and not _is_flag(rest[0]):
            value = rest.pop(0)
        elif not equals and kinds[name] == "bool":
            value = "True"
        given[name] = value
    places = [name for name in kinds if name not in given]
    if len(free) > len(places):
        surplus = " ".join(map(repr, free[len(places) :]))
        takes = f"only {', '.join(places)}" if places else "nothing"
        raise ValueError(
            f"{command}: {surplus} is too much: without a flag it takes {takes} here; put a name with spaces in quotes"
        )
    given |= zip(places, free, strict=False)
    return [command, *(f"--{name}={_for_fire(name, kinds[name], value)}" for name, value in given.items())]


def _for_fire(name: str, kind: str, value: str) -> str:
    """Return a value so that Fire reads it as what the option is."""
    kind = kind.split(" ")[0]
    if not value:
        example = {"str": "NAME", "int": "1", "float": "0.3", "bool": "true"}.get(kind, "1,1,3")
        raise ValueError(f"--{name} has no value; give one, as in --{name} {example}")
    if kind == "bool" and value.lower() not in ("true", "false"):
        raise ValueError(f"--{name}: found {value!r}; it stands alone, or with true or false")
    return repr(value) if kind == "str" else value.capitalize() if kind == "bool" else value


def _is_flag(word: str) -> bool:
    """Say whether a word is a flag for Fire; -1 is a number. A dash alone would divide the line for Fire."""
    return word == "-" or word.startswith("--") or re.match("-[a-zA-Z]", word) is not None


def _list_commands() -> None:
    print("usage: python -m data_prep COMMAND ...\n\ncommands:")
    for name, function in COMMANDS.items():
        print(f"  {name:15} {(inspect.getdoc(function) or '').splitlines()[0]}")
    print("\n`python -m data_prep COMMAND --help` describes the options of a command.")


def _whole_number(option: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{option}: found {value!r}, allowed: a whole number from 0, such as 1")
    return value


def _say_written(path: object) -> None:
    print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(main())
