"""Commands that make data sets: ``python -m data_prep COMMAND ...``; without a command, the list of them.

To add a command, write a function here that imports what it needs when it is called, and enter it in ``COMMANDS``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import fire

from mixstyleflow_monai.bundle_errors import worded
from mixstyleflow_monai.command_line import HELP, checked_words, print_commands


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

ON_FULL = "Nothing half-made was kept: make room, or give a folder on another disk, and run the same command again."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 1 for a mistake, 130 if it was interrupted (Ctrl-C).

    `check` has the status 1 for a data set with errors.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in (*HELP, "help"):
        print_commands("data_prep", COMMANDS)
        return 0
    try:
        words = checked_words(words, COMMANDS)
        # Fire would print what a command returns: its exit status, if it has one.
        status = fire.Fire(COMMANDS, command=words, name="data_prep", serialize=lambda _: None)
    # OSError: a full disk, a folder that may not be written, a file that went away.
    except (ValueError, OSError) as error:
        print(f"error: {worded(error, ON_FULL)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; no half-made folder was kept. Run the same command again.", file=sys.stderr)
        return 130
    return status if isinstance(status, int) else 0


def _whole_number(option: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{option}: found {value!r}, allowed: a whole number from 0, such as 1")
    return value


def _say_written(path: object) -> None:
    print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(main())
