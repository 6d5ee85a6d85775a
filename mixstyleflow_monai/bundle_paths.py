"""Where the bundles are: beside this package in a checkout, inside it in a wheel, or around it in a packed bundle."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
PHASE_BUNDLES = {
    1: "phase1_base_segmentation",
    2: "phase2_style_flows",
    3: "phase3_mixstyleflow_segmentation",
}


def bundles_dir(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that holds the three bundles: the one given, the checkout's, or the packaged copy.

    Raises:
        FileNotFoundError: none of them is there.
    """
    candidates = [Path(given)] if given else [PACKAGE.parent / "bundles", PACKAGE / "bundles"]
    for candidate in candidates:
        if all((candidate / name / "configs" / "train.json").is_file() for name in PHASE_BUNDLES.values()):
            return candidate.resolve()
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise FileNotFoundError(
        f"bundles_dir: no folder with {', '.join(PHASE_BUNDLES.values())} at {looked}. Give --bundles_dir."
    )


def check_no_hash(**paths: str | os.PathLike[str]) -> None:
    """Refuse paths with ``#``, by the name of their option."""
    for name, path in paths.items():
        if "#" in str(path):
            raise ValueError(f"{name}={str(path)!r}: MONAI's configurations read # as ::, so use a path without it.")


def bundle_root(name: str) -> str:
    """Return the folder of the bundle whose configuration is being run, from any working directory.

    In this order: the bundle of a ``--config_file`` on the command line; the working directory, if it is a bundle
    (the habit of the Model Zoo); the bundle around a vendored package; the checkout's or the packaged bundle ``name``.

    Args:
        name: folder name of the bundle.
    """
    candidates = [*_config_folders(sys.argv), Path.cwd(), PACKAGE.parent]
    for candidate in candidates:
        if (candidate / "configs" / "metadata.json").is_file():
            return str(candidate.resolve())
    return str(bundles_dir() / name)


def _config_folders(arguments: list[str]) -> list[Path]:
    """Return the bundle folders of the config files that a command line names."""
    values: list[str] = []
    for position, argument in enumerate(arguments):
        if argument in ("--config_file", "-config_file") and position + 1 < len(arguments):
            values.append(arguments[position + 1])
        elif argument.startswith(("--config_file=", "-config_file=")):
            values.append(argument.split("=", 1)[1])
    folders: list[Path] = []
    for value in values:
        try:
            parsed = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            parsed = value
        files = parsed if isinstance(parsed, list | tuple) else [parsed]
        folders += [Path(str(file)).resolve().parent.parent for file in files]
    return folders
