"""A folder is made as a whole or not at all, whatever its path and however the process ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from data_prep.building import building

ROOT = Path(__file__).resolve().parents[2]
STUCK = """
import signal, sys, time
from data_prep.building import building
with building(sys.argv[1]) as folder:
    (folder / "half").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


def fill(output: str | Path) -> None:
    with building(output) as folder:
        (folder / "file").write_text("whole")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stuck(output: Path) -> subprocess.Popen[str]:
    """Start a process that is in the middle of building `output`."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, str(output)], stdout=subprocess.PIPE, encoding="utf-8", cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_link_to_an_empty_folder_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "real")
    with building(tmp_path / "link") as folder:
        assert folder.parent == tmp_path / "far"
        (folder / "file").write_text("whole")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "real" / "file").read_text() == "whole"
    assert names(tmp_path) == ["far", "link"]


@pytest.mark.parametrize("output", [".", "", "../here", "link"])
def test_the_working_folder_is_refused_before_the_work(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    wanted = str(tmp_path / "link") if output == "link" else output
    with pytest.raises(ValueError, match=r"is the working folder, which cannot be replaced .* new folder in it, such"):
        fill(wanted)
    assert names(tmp_path / "here") == []
    fill("dataset")
    assert names(tmp_path / "here" / "dataset") == ["file"]


@pytest.mark.parametrize("target", ["nowhere", "link"])
def test_a_dead_link_is_refused_before_the_work(target: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / target)
    with pytest.raises(ValueError, match=rf"link: is a link that leads nowhere \(.*{target}\); make the folder"):
        fill(tmp_path / "link")
    assert names(tmp_path) == ["link"]


def test_a_failed_block_leaves_nothing_and_a_rerun_works(tmp_path: Path) -> None:
    def fail() -> None:
        with building(tmp_path / "deep" / "out") as folder:
            (folder / "file").write_text("half")
            raise ArithmeticError("in the middle")

    with pytest.raises(ArithmeticError, match="in the middle"):
        fail()
    assert names(tmp_path / "deep") == []
    fill(tmp_path / "deep" / "out")
    assert names(tmp_path / "deep") == ["out"]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("kind", ["SIGTERM", "SIGHUP"])
def test_a_process_that_is_asked_to_end_leaves_nothing(kind: str, tmp_path: Path) -> None:
    number = getattr(signal, kind)
    with stuck(tmp_path / "out") as process:
        assert len(names(tmp_path)) == 1
        process.send_signal(number)
        assert process.wait(20) == 128 + number
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_what_a_killed_process_left_is_removed_by_the_next_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = [".partial-out-x", ".partial-out-ffffffff-99-abc", "out-2", ".partial-out.txt"]
    for name in kept:
        (tmp_path / name).mkdir()
    with stuck(tmp_path / "out") as running, stuck(tmp_path / "out") as killed, stuck(tmp_path / "other") as third:
        killed.kill()
        killed.wait(20)
        third.kill()
        third.wait(20)
        (left,) = [name for name in names(tmp_path) if f"-{killed.pid}-" in name]
        (working,) = [name for name in names(tmp_path) if f"-{running.pid}-" in name]
        (others,) = [name for name in names(tmp_path) if f"-{third.pid}-" in name]
        assert (tmp_path / left / "half").exists()
        fill(tmp_path / "out")
        assert names(tmp_path) == sorted([*kept, working, others, "out"])
        assert re.fullmatch(rf"note: removed .*{re.escape(left)}, left by .*\n", capsys.readouterr().err)
        running.terminate()


def test_handlers_are_as_before_and_those_of_others_are_left_alone(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    fill(tmp_path / "first")
    assert signal.getsignal(signal.SIGTERM) == before
    try:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with building(tmp_path / "second"):
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_can_build(tmp_path: Path) -> None:
    thread = threading.Thread(target=fill, args=(tmp_path / "out",))
    thread.start()
    thread.join()
    assert names(tmp_path / "out") == ["file"]
