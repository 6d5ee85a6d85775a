"""docs/scaling.md: what it names exists, its commands are well formed, its sums are right."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.run import get_args_parser

from benchmarks import gpu, scaling
from benchmarks.allocator import KEEP
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
PROGRAMS = {"benchmarks.scaling": scaling.main, "benchmarks.gpu": gpu.main}


def blocks(language: str) -> list[str]:
    """Fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = "".join(blocks("console")).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


def options_of(words: list[str]) -> set[str]:
    return {word[2:].split("=")[0] for word in words if word.startswith("--")}


@pytest.mark.parametrize("command", [c for c in commands() if c[0] == "torchrun"], ids=lambda c: " ".join(c[1:3]))
def test_torchrun_commands_are_valid_and_name_files_and_options_that_exist(command: list[str]) -> None:
    parsed = get_args_parser().parse_args(command[1:])
    assert (parsed.module, parsed.training_script) == (True, "monai.bundle")
    files = [ROOT / name for name in re.findall(r"'([^']+\.json)'", " ".join(command))]
    assert files[-1].stem == f"multi_gpu_{files[0].stem}"
    known = set(json.loads(files[0].read_text()))
    given = options_of(parsed.training_script_args) - {"config_file"}
    assert given <= known
    assert all(file.is_file() for file in files)


@pytest.mark.parametrize("command", [c for c in commands() if c[0] == "python"], ids=lambda c: c[2])
def test_programs_take_their_arguments(command: list[str]) -> None:
    parameters = inspect.signature(PROGRAMS[command[2]]).parameters
    assert options_of(command) <= set(parameters)
    needed = [p for p in parameters.values() if p.default is inspect.Parameter.empty]
    assert len([word for word in command[3:] if not word.startswith("--")]) == len(needed)


def test_all_commands_are_tested() -> None:
    assert {command[0] for command in commands()} == {"torchrun", "python", "export"}


def test_the_environment_is_the_one_that_was_measured() -> None:
    (words,) = (command[1:] for command in commands() if command[0] == "export")
    assert dict(word.split("=") for word in words) == KEEP


def test_batch_script_is_valid_shell() -> None:
    (script,) = blocks("sh")
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("no bash here")
    assert subprocess.run([shell, "-n"], input=script, text=True, check=False).returncode == 0
    for name in re.findall(r"\$configs/(\w+\.json)", script):
        assert (ROOT / "bundles" / PHASE_BUNDLES[1] / "configs" / name).is_file()


def cell(label: str, column: int = 1) -> float:
    row = re.search(rf"^\| {re.escape(label)} \|.*$", TEXT, flags=re.MULTILINE)
    assert row is not None, label
    return float(row[0].split("|")[column + 1].split()[0])


def test_sums_for_ten_thousand_volumes_follow_from_the_measured_figures() -> None:
    text = " ".join(TEXT.split("## 10,000 volumes")[1].split())
    volumes, slices, mebibytes = 10_000, 200_000, cell("in the cache, 20 slices of 224 x 224")
    memory = volumes * mebibytes / 1024
    assert f"{memory:.0f} GiB a process" in text
    assert f"{8 * memory:.0f} GiB on a node with eight" in text
    assert f"it is {2 * memory:.0f} GiB" in text
    assert f"{volumes * cell('load and preprocess') / 60:.0f} CPU minutes" in text
    cached = cell("a slice, augmented, its volume in the cache") / 1000
    uncached = cell("a slice, augmented, its volume not in the cache") / 1000
    assert f"{slices * cached / 3600:.1f} CPU hours" in text
    assert f"{slices * uncached / 3600:.0f} without any" in text
    hours = [
        f"{2 * slices * cell(name, k) / 3600:.0f}" for name in ("float32", "`amp` true (bfloat16)") for k in (1, 2)
    ]
    assert "{} hours in phase 1 and {} in phase 3, in bfloat16 {} and {}.".format(*hours) in text
    assert f"of {500 * cached:.0f} cores" in text
    assert f"of {500 * uncached:.0f} without" in text


@pytest.mark.parametrize("options", [{"volumes": 4}, {"steps": 0}, {"batch_size": 3}])
def test_sizes_that_cannot_be_measured_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected at least 8, at least 1, and an even number"):
        scaling.main(**options)


def test_gpu_report_of_a_device_that_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.main(str(tmp_path), device="cpu", parts="same", size=32, batch_size=2)
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["same"]["phase 3, float32"] == {"loss": 0.0, "gradient": 0.0}
    assert 0 < report["same"]["phase 1, mixed"]["loss"] <= gpu.LIMITS["mixed"]
    monkeypatch.setitem(gpu.LIMITS, "mixed", 0.0)
    with pytest.raises(SystemExit, match="phase 1, mixed, phase 3, mixed"):
        gpu.main(str(tmp_path), device="cpu", parts="same", size=32, batch_size=2)


def test_unknown_parts_of_the_gpu_report_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--parts 'all': expected some of same, steps, phases"):
        gpu.main(str(tmp_path), parts="all")
