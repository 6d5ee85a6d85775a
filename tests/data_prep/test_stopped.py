"""A command that is stopped, or that the system refuses a file: one message, no rest, and no process left over."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import data_prep.preview as preview
from data_prep.__main__ import main
from data_prep.building import building
from data_prep.check import _mapping
from tests.data_prep import bad_files as bad

ROOT = Path(__file__).resolve().parents[2]
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
SLOW_PREVIEW = """
import sys, time
import data_prep.preview as module
from data_prep.__main__ import main

def wait(*arguments, **options):
    print("ready", flush=True)
    time.sleep(60)

module.domain_sheet = wait
sys.exit(main(["preview", sys.argv[1]]))
"""
SLOW_CHECK = """
import multiprocessing, time
import data_prep.check as module

if __name__ == "__main__":
    module.check_case = time.sleep
    with module._mapping([0.5] * 400, 2) as results:
        next(results)
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        list(results)
"""
INTERRUPTED = {
    "folder": """
import sys, time
import data_prep.folder
from data_prep.__main__ import main

def wait(*arguments):
    print("ready", flush=True)
    time.sleep(60)

data_prep.folder.load_spec = wait
sys.exit(main(["folder", "spec.yaml", "--output", "out"]))
""",
    "check": """
import sys, time
import data_prep.check as module
from data_prep.__main__ import main

def run(*arguments, **options):
    with module._mapping([0.5] * 400, 2) as results:
        next(results)
        print("ready", flush=True)
        list(results)

if __name__ == "__main__":
    module.check_case = time.sleep
    module.check_dataset = run
    sys.exit(main(["check", "data"]))
""",
}


def start(script: Path, program: str, *arguments: object) -> tuple[subprocess.Popen[str], str]:
    """Run a program, and return its process and the first line that it prints."""
    script.write_text(program)
    process = subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline()


def is_gone(process: int) -> bool:
    """Wait up to 20 seconds until there is no such process; one that has ended and is not waited for counts as gone."""
    for _ in range(200):
        try:
            os.kill(process, 0)
            with open(f"/proc/{process}/stat") as stream:
                if stream.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        threading.Event().wait(0.1)
    return False


@POSIX
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_preview_that_is_stopped_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    assert bad.run("folder", bad.make_pictures(tmp_path / "root"), "--output", tmp_path / "out") == 0
    before = bad.contents(tmp_path)
    process, line = start(tmp_path / "program.py", SLOW_PREVIEW, tmp_path / "out")
    with process:
        assert line == "ready\n"
        assert any(path.name.startswith(".partial-preview-") for path in (tmp_path / "out").iterdir())
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    (tmp_path / "program.py").unlink()
    assert bad.contents(tmp_path) == before
    assert not any(path.name.startswith(".") for path in (tmp_path / "out").iterdir())


@POSIX
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes by /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_of_a_check_end_with_it(number: signal.Signals, tmp_path: Path) -> None:
    process, line = start(tmp_path / "program.py", SLOW_CHECK)
    with process:
        workers = [int(word) for word in line.split()]
        assert len(workers) == 2
        process.send_signal(number)
        status = process.wait(30)
        assert status == (-number if number == signal.SIGKILL else 128 + number)
        assert all(is_gone(worker) for worker in workers)


@POSIX
@pytest.mark.parametrize("program", ["folder", "check"])
def test_ctrl_c_is_one_line(program: str, tmp_path: Path) -> None:
    process, line = start(tmp_path / "program.py", INTERRUPTED[program])
    with process:
        assert line == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        _, printed = process.communicate(timeout=30)
    assert process.returncode == 130
    lines = [text for text in printed.splitlines() if text]
    assert lines == ["interrupted; no half-made folder was kept. Run the same command again."]


def test_in_a_thread_the_workers_are_started_all_the_same() -> None:
    found: list[Any] = []

    def work() -> None:
        with _mapping([], 2) as results:
            found.extend(results)
        found.append("done")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["done"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/d/a.png"),
            "/d/a.png: No space left on device. Nothing half-made was kept: make room, or give a folder on another",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device. Nothing half-made was kept"),
        (
            OSError(errno.EIO, "Input/output error", "/d/a"),
            "/d/a: Input/output error. Check that the file is there and",
        ),
        (FileNotFoundError("spec.yaml: no such spec."), "spec.yaml: no such spec."),
    ],
)
def test_errors_of_the_system_have_a_file_and_a_remedy(
    error: OSError, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(preview, "preview_dataset", fail)
    assert main(["preview", "data"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_an_output_that_another_process_filled_is_told_and_kept(tmp_path: Path) -> None:
    def build() -> None:
        with building(tmp_path / "out") as folder:
            (folder / "file").write_text("ours")
            with building(tmp_path / "out") as other:
                (other / "file").write_text("theirs")

    with pytest.raises(ValueError, match=r"out: another process filled it meanwhile, and its content was left"):
        build()
    assert (tmp_path / "out" / "file").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_report_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bad.run("folder", bad.make_pictures(tmp_path / "root"), "--output", tmp_path / "out") == 0

    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("data_prep.check.tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("data_prep.check._check_cases", lambda *_: pytest.fail("checked all the same"))
    capsys.readouterr()
    assert main(["check", str(tmp_path / "out"), "--fix-report", str(tmp_path / "r.json")]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(
        f"error: --fix-report {tmp_path}/r.json: nothing can be written to {tmp_path} (Permission"
    )
