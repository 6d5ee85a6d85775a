"""Finding files below a folder, through links to folders too, which `pathlib` does not follow."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)


def folders_below(folder: Path, *, hidden: bool = True, skip_closed: bool = False) -> Iterator[Path]:
    """Yield a folder and all folders below it, each once, however many links lead to it; circles of links end.

    Where a link and the folder itself are there, the folder comes by its own path.

    Args:
        folder: an existing folder.
        hidden: also those whose names start with a dot.
        skip_closed: tell of folders that may not be searched in a warning.

    Raises:
        PermissionError: a folder that may not be searched.
    """
    seen: set[str] = set()

    def is_open(path: Path) -> bool:
        # Asked before `os.walk` goes there, which would pass over a closed folder without a word.
        try:
            _searchable(path)
        except PermissionError as error:
            if not skip_closed:
                raise
            logger.warning("%s; it is passed over.", error)
            return False
        return True

    links = [folder] if is_open(folder) else []
    while links:
        start = links.pop(0)
        for parent, names, _ in os.walk(start):
            place = os.path.realpath(parent)
            if place in seen:
                names.clear()
                continue
            seen.add(place)
            wanted = sorted(name for name in names if hidden or not name.startswith("."))
            names[:] = [name for name in wanted if is_open(Path(parent, name))]
            links += [path for path in (Path(parent, name) for name in names) if path.is_symlink()]
            yield Path(parent)


def search(root: Path, pattern: str) -> set[Path]:
    """Return what a glob pattern finds below a folder; ``**`` stands for any folders, links to folders among them.

    Args:
        root: an existing folder.
        pattern: relative, with / between folders.

    Raises:
        ValueError: an absolute pattern, or one that `pathlib` refuses.
        PermissionError: a folder on the way, which `pathlib` itself would skip.
    """
    *above, last = pattern.split("/")
    if pattern.startswith("/"):
        raise ValueError("it is absolute, and has to start from the folder")
    folders = {root}
    for part in above:
        if part == "**":
            folders = {found for folder in folders for found in folders_below(folder)}
        elif any(letter in part for letter in "*?["):
            folders = {found for folder in folders for found in _searchable(folder).glob(part) if os.path.isdir(found)}
        else:
            folders = {folder / part for folder in folders if os.path.isdir(folder / part)}
    if last in ("", "."):
        return folders
    return {found for folder in folders for found in _searchable(folder).glob(last)}


def _searchable(folder: Path) -> Path:
    if not os.access(folder, os.R_OK | os.X_OK):
        raise PermissionError(f"{folder}: permission denied, chmod u+rx gives it")
    return folder
