"""Where a new data set may be written."""

from __future__ import annotations

import os
from pathlib import Path


def empty_output(output: str | os.PathLike[str]) -> Path:
    """Return the real path of a folder to make, after making the folders above it.

    Raises:
        ValueError: ``output`` exists and is not an empty folder, is a link that leads nowhere, or the folders above it
            cannot be made.
    """
    path = Path(output)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"--output {path}: exists and is not an empty folder; choose another or remove it first.")
    if path.is_symlink() and not path.exists():
        raise ValueError(
            f"--output {path}: is a link that leads nowhere ({os.readlink(path)}); make the folder that it points to, "
            "or remove the link."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output {path}: its folder cannot be made ({error}); choose another.") from error
    return Path(os.path.realpath(path))
