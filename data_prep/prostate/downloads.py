"""Downloads of public releases: resumed after an interruption, verified, and not repeated.

Addresses and checksums are those of MONAI. Its own downloader starts anew after every interruption, so the transfer is
made here.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from monai.apps import DecathlonDataset, check_hash
from tqdm import tqdm

DECATHLON_TASK = "Task05_Prostate"
DECATHLON_PAGE = "http://medicaldecathlon.com"
SILENCE_SECONDS = 60.0
"""A server that sends nothing for so long is given up; without a limit a dropped connection would wait for ever."""
_PIECE = 2**18
_OF_THE_DISK = [
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EISDIR")
    if hasattr(errno, name)  # not every system has all of them
]
"""Errors of writing, which another network would not mend."""


def download_decathlon(folder: str | os.PathLike[str], task: str = DECATHLON_TASK) -> Path:
    """Fetch the tar file of a Medical Decathlon task, from the address and with the MD5 sum that MONAI knows.

    A file that is there already is verified and not fetched again. A new one appears under its name only when it is
    complete and verified; until then it is ``<task>.tar.part``, from whose end the same command goes on after an
    interruption.

    Args:
        folder: where the file goes; made if absent.
        task: a task of ``monai.apps.DecathlonDataset``, about 240 MB for ``Task05_Prostate``.

    Returns:
        Path of the verified ``<task>.tar``.

    Raises:
        ValueError: no network, a download that does not have the known sum, a damaged file of that name, a full disk,
            or a folder that cannot be written.
    """
    return fetch(DecathlonDataset.resource[task], Path(folder) / f"{task}.tar", md5=DecathlonDataset.md5[task])


def fetch(url: str, path: Path, *, md5: str, page: str = DECATHLON_PAGE) -> Path:
    """Fetch one file unless a verified copy is at ``path``.

    Args:
        url: address of the file.
        path: where it goes.
        md5: its MD5 sum, 32 hexadecimal digits.
        page: page that offers the file, for those who must fetch it by hand.

    Returns:
        ``path``.

    Raises:
        ValueError: as in :func:`download_decathlon`.
    """
    _check_folder(path.parent)
    part = path.with_name(f"{path.name}.part")
    if path.exists():
        if not _has_md5(path, md5):
            raise ValueError(f"{path}: its MD5 sum is not {md5}: damaged, or another file. Remove it first.")
        return path
    try:
        _transfer(url, part, path.name)
    except (OSError, HTTPException) as error:  # URLError, HTTPError and time-outs are OSErrors
        if isinstance(error, OSError) and not isinstance(error, URLError) and error.errno in _OF_THE_DISK:
            raise ValueError(
                f"{part}: {error.strerror}. "
                + ("Remove it" if part.is_dir() else "Make room, or give --download a folder that can be written to")
                + ", and run the same command; what has come of the file is kept."
            ) from error
        if isinstance(error, HTTPError):
            error.close()
        reason = str(getattr(error, "reason", error)).replace("\n", " ") or type(error).__name__
        kept = f" {part.name} keeps what has come; run the same command to go on." if part.exists() else ""
        raise ValueError(
            f"{url}: cannot be downloaded ({reason}).{kept} Check the network, or fetch {path.name} from {page} on "
            "another machine and give it with --decathlon."
        ) from error
    if not _has_md5(part, md5):
        part.unlink()
        raise ValueError(f"{url}: the download does not have the MD5 sum {md5}; nothing was kept. Try again.")
    part.replace(path)
    return path


def _transfer(url: str, part: Path, name: str) -> None:
    """Fetch what is missing of ``part``; a server that cannot send the rest alone sends the whole.

    Raises:
        OSError, HTTPException: no network, an error of the server, or an end before the length that it told; what
            has come is kept.
    """
    have = part.stat().st_size if part.exists() else 0
    # Without `identity`, a server may pack what it sends, and offsets would be others.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urlopen(Request(url, headers=headers), timeout=SILENCE_SECONDS)
    except HTTPError as error:
        if error.code != 416 or not have:
            raise
        # Nothing is behind the end of `part`: it is complete, or of something else; its checksum tells which.
        error.close()
        return
    with response:
        start, total = _offered(response)
        if start not in (0, have):
            raise OSError(f"the server sent bytes from {start:,}, asked for from {have:,}")
        with (
            open(part, "ab" if start else "wb") as stream,
            tqdm(desc=name, initial=start, total=total, unit="B", unit_scale=True, unit_divisor=1024) as bar,
        ):
            while piece := response.read1(_PIECE):
                stream.write(piece)
                bar.update(len(piece))
    found = part.stat().st_size
    if total is not None and found < total:
        raise OSError(f"retrieval incomplete: {found:,} of {total:,} bytes")


def _offered(response: Any) -> tuple[int, int | None]:
    """Return the offset of the first byte that a response sends, and the length of the whole file if it is told."""
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None:
            raise OSError("the server sent a part of the file and does not say which")
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length")
    return 0, None if length is None else int(length)


def _has_md5(path: Path, md5: str) -> bool:
    with _silence():
        return bool(check_hash(path, md5, "md5"))


def _check_folder(folder: Path) -> None:
    """Make the folder, so that an unusable one is told before the download."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot be made ({error.strerror}). Choose a folder that you may write to."
        ) from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{folder}: cannot be written to. Choose a folder that you may write to.")


@contextmanager
def _silence() -> Iterator[None]:
    """Keep MONAI's log lines out of the one line that we say."""
    logger = logging.getLogger("monai.apps")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
