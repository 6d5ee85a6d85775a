"""Downloads of public releases with MONAI's downloader: progress, checksum, and no second fetch of a verified file."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

from monai.apps import DecathlonDataset, download_url
from monai.apps.utils import HashCheckError

DECATHLON_TASK = "Task05_Prostate"
DECATHLON_PAGE = "http://medicaldecathlon.com"
SILENCE_SECONDS = 60.0
"""A server that sends nothing for so long is given up; without a limit a dropped connection would wait for ever."""


def download_decathlon(folder: str | os.PathLike[str], task: str = DECATHLON_TASK) -> Path:
    """Fetch the tar file of a Medical Decathlon task, from the address and with the MD5 sum that MONAI knows.

    A file that is there already is verified and not fetched again. A new one appears under its name only when it is
    complete and verified, so that an interrupted download is repeated by running the same command.

    Args:
        folder: where the file goes; made if absent.
        task: a task of ``monai.apps.DecathlonDataset``, about 240 MB for ``Task05_Prostate``.

    Returns:
        Path of the verified ``<task>.tar``.

    Raises:
        ValueError: no network, a download that does not have the known sum, a damaged file of that name, or a folder
            that cannot be written.
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
    existed = path.exists()
    _check_folder(path.parent)
    try:
        with _patience_and_silence():
            download_url(url, path, hash_val=md5, hash_type="md5")
    except HashCheckError as error:
        if existed:
            raise ValueError(f"{path}: its MD5 sum is not {md5}: damaged, or another file. Remove it first.") from error
        raise ValueError(
            f"{url}: the download does not have the MD5 sum {md5}; nothing was kept. Try again."
        ) from error
    except (OSError, RuntimeError) as error:  # URLError, HTTPError and time-outs are OSErrors
        if isinstance(error, HTTPError):
            error.close()
        reason = str(getattr(error, "reason", error)).replace("\n", " ") or type(error).__name__
        raise ValueError(
            f"{url}: cannot be downloaded ({reason}). Check the network, or fetch {path.name} from {page} on another "
            "machine and give it with --decathlon."
        ) from error
    if not path.is_file():  # MONAI lets a refused permission pass in silence
        raise ValueError(f"{path}: could not be written. Choose a folder that you may write to.")
    return path


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
def _patience_and_silence() -> Iterator[None]:
    """Limit the wait for a silent server, and keep MONAI's log lines out of the one line that we say."""
    logger = logging.getLogger("monai.apps")
    level, limit = logger.level, socket.getdefaulttimeout()
    logger.setLevel(logging.CRITICAL)
    socket.setdefaulttimeout(SILENCE_SECONDS)
    try:
        yield
    finally:
        logger.setLevel(level)
        socket.setdefaulttimeout(limit)
