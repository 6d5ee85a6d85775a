"""Every command of docs/benchmark.md is taken as it stands; trainings pretend."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from mixstyleflow_monai.cli import main

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "benchmark.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
LINES = [line for line in "".join(BLOCKS).replace("\\\n", " ").splitlines() if line.strip()]


def test_there_are_commands() -> None:
    assert len(LINES) >= 3


@pytest.mark.parametrize("line", LINES)
def test_command_is_accepted(
    line: str, dataset: Path, tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(dataset, tmp_path / "DATASET")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "mixstyleflow_monai"]
    assert main([*words[3:], "--image_size", "[32,32]"]) == 0
    assert bool(commands) is ("--dry_run" not in words)
