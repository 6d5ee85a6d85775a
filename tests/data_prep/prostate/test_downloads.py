"""Downloads: verified, not repeated, and one line where there is no network. No test leaves this machine."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlparse

import pytest
from monai.apps import DecathlonDataset

from data_prep.prostate import downloads
from data_prep.prostate.downloads import DECATHLON_TASK, download_decathlon, fetch

CONTENT = bytes(range(256)) * 512
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT, from an offset where one is asked for; the path says how.

    ``/short`` breaks off after 1000 bytes, ``/plain`` knows no offsets and ``/plain-short`` breaks off as well,
    ``/shifted`` sends from another offset, ``/gone`` is not found, ``/silent`` says nothing until it is released.
    """

    asked: ClassVar[list[str]] = []
    sent: ClassVar[list[int]] = []
    release: ClassVar[threading.Event] = threading.Event()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/silent":
            self.release.wait(10)
            return
        if self.path == "/gone":
            self.send_error(404)
            return
        start = 0
        if "Range" in self.headers and not self.path.startswith("/plain"):
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(CONTENT):
                self.send_error(416)
                return
            start += self.path == "/shifted"
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = start + 1000 if self.path.endswith("short") else len(CONTENT)
        self.sent.append(len(CONTENT[start:end]))  # before the client can see the end and a test look
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a server on this machine; proxies are not asked."""
    monkeypatch.setenv("no_proxy", "*")
    Handler.asked.clear()
    Handler.sent.clear()
    Handler.release.clear()
    serving = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}"
    Handler.release.set()
    serving.shutdown()
    thread.join()
    serving.server_close()


def test_a_file_is_fetched_once_and_progress_is_shown(
    server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "folder" / "file.tar"
    assert fetch(f"{server}/file", path, md5=MD5) == path
    assert path.read_bytes() == CONTENT
    shown = capfd.readouterr()
    assert "file.tar: 100%" in shown.err
    assert shown.out == ""
    fetch(f"{server}/file", path, md5=MD5)
    assert Handler.asked == ["/file"]


def test_the_decathlon_comes_from_where_monai_has_it_with_its_checksum(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert urlparse(DecathlonDataset.resource[DECATHLON_TASK]).path == "/Task05_Prostate.tar"
    assert len(DecathlonDataset.md5[DECATHLON_TASK]) == 32
    monkeypatch.setitem(DecathlonDataset.resource, DECATHLON_TASK, f"{server}/tar")
    with pytest.raises(ValueError, match=r"the download does not have the MD5 sum"):
        download_decathlon(tmp_path)
    monkeypatch.setitem(DecathlonDataset.md5, DECATHLON_TASK, MD5)
    assert download_decathlon(tmp_path) == tmp_path / "Task05_Prostate.tar"


def test_a_damaged_file_is_named_and_left_alone(server: str, tmp_path: Path) -> None:
    path = tmp_path / "file.tar"
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(
        ValueError, match=r"file\.tar: its MD5 sum is not .*: damaged, or another file\. Remove it first"
    ):
        fetch(f"{server}/file", path, md5=MD5)
    assert path.read_bytes() == CONTENT[:-1]
    assert Handler.asked == []
    path.unlink()
    assert fetch(f"{server}/file", path, md5=MD5).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("what", "reason"),
    [("gone", "Not Found"), ("short", "retrieval incomplete: 1,000 of 131,072"), ("silent", "timed out")],
)
def test_a_failed_download_is_one_line_and_leaves_nothing_under_the_name(
    what: str,
    reason: str,
    server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if what == "silent":
        monkeypatch.setattr(downloads, "SILENCE_SECONDS", 0.2)
    with pytest.raises(
        ValueError, match=rf"/{what}: cannot be downloaded \(.*{reason}.*\)\. .*--decathlon\.$"
    ) as caught:
        fetch(f"{server}/{what}", tmp_path / "file.tar", md5=MD5)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == (["file.tar.part"] if what == "short" else [])
    assert ("run the same command to go on" in str(caught.value)) == (what == "short")
    assert capfd.readouterr().out == ""


def test_an_interrupted_download_goes_on_where_it_stopped(
    server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file.tar"
    for kept in (1000, 2000):
        with pytest.raises(
            ValueError, match=rf"retrieval incomplete: {kept:,} of 131,072 bytes\)\. file\.tar\.part keeps"
        ):
            fetch(f"{server}/short", path, md5=MD5)
        assert (tmp_path / "file.tar.part").read_bytes() == CONTENT[:kept]
    assert fetch(f"{server}/file", path, md5=MD5).read_bytes() == CONTENT
    assert Handler.sent == [1000, 1000, len(CONTENT) - 2000]
    assert list(tmp_path.iterdir()) == [path]
    assert "file.tar: 100%" in capfd.readouterr().err


def test_a_server_without_offsets_sends_the_whole_again(server: str, tmp_path: Path) -> None:
    path = tmp_path / "file.tar"
    with pytest.raises(ValueError, match="retrieval incomplete"):
        fetch(f"{server}/plain-short", path, md5=MD5)
    assert fetch(f"{server}/plain", path, md5=MD5).read_bytes() == CONTENT
    assert Handler.sent == [1000, len(CONTENT)]


def test_a_server_that_sends_another_part_is_not_believed(server: str, tmp_path: Path) -> None:
    (tmp_path / "file.tar.part").write_bytes(CONTENT[:500])
    with pytest.raises(ValueError, match=r"the server sent bytes from 501, asked for from 500"):
        fetch(f"{server}/shifted", tmp_path / "file.tar", md5=MD5)
    assert (tmp_path / "file.tar.part").read_bytes() == CONTENT[:500]


def test_a_complete_part_is_taken_and_a_wrong_one_is_not_gone_on_with(server: str, tmp_path: Path) -> None:
    path, part = tmp_path / "file.tar", tmp_path / "file.tar.part"
    part.write_bytes(CONTENT)
    assert fetch(f"{server}/file", path, md5=MD5).read_bytes() == CONTENT
    assert Handler.sent == []
    for wrong in (b"x" * 100, CONTENT + b"x"):
        path.unlink(missing_ok=True)
        part.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"does not have the MD5 sum .*; nothing was kept\. Try again"):
            fetch(f"{server}/file", path, md5=MD5)
        assert list(tmp_path.iterdir()) == []
    assert fetch(f"{server}/file", path, md5=MD5).read_bytes() == CONTENT


def test_no_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(
        ValueError, match=r"Task05_Prostate\.tar: cannot be downloaded .*name resolution\)\. Check the net"
    ):
        download_decathlon(tmp_path)


def test_a_folder_that_cannot_be_is_told_before_the_download(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file: cannot be made \(File exists\)\. Choose a folder"):
        fetch(f"{server}/file", tmp_path / "file" / "file.tar", md5=MD5)
    with pytest.raises(ValueError, match=r"deep: cannot be made \(Not a directory\)\. Choose a folder"):
        fetch(f"{server}/file", tmp_path / "file" / "deep" / "file.tar", md5=MD5)
    assert Handler.asked == []


def test_settings_of_the_process_are_put_back(server: str, tmp_path: Path) -> None:
    logger = logging.getLogger("monai.apps")
    before = logger.level, socket.getdefaulttimeout()
    fetch(f"{server}/file", tmp_path / "file.tar", md5=MD5)
    with pytest.raises(ValueError, match="cannot be downloaded"):
        fetch(f"{server}/gone", tmp_path / "other.tar", md5=MD5)
    assert (logger.level, socket.getdefaulttimeout()) == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_is_not_taken_for_the_network(
    number: int, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(downloads, "_transfer", refuse)
    with pytest.raises(ValueError, match=rf"file\.tar\.part: {os.strerror(number)}\. Make room, or give --download"):
        fetch(f"{server}/file", tmp_path / "file.tar", md5=MD5)


def test_a_folder_in_the_place_of_the_partial_file_is_told(server: str, tmp_path: Path) -> None:
    (tmp_path / "file.tar.part").mkdir()
    with pytest.raises(ValueError, match=r"file\.tar\.part: Is a directory\."):
        fetch(f"{server}/plain", tmp_path / "file.tar", md5=MD5)
