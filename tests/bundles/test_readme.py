"""The bundles' READMEs: every command runs, every option is described with its default."""

from __future__ import annotations

import json
import logging
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fire
import monai.bundle
import pytest
import torch
from monai.utils import set_determinism

from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {"run": monai.bundle.run, "verify_net_in_out": monai.bundle.verify_net_in_out}
# Ids of train.json that are components, and not options to give a value.
COMPONENTS = ("_target_", "train", "validate", "images")
ROW = re.compile(r"^\| `(\w+)` \| (computed|`.*?`) \| (.+) \| (.+) \|$", re.MULTILINE)


def readme(phase: int) -> str:
    """Text of a bundle's README."""
    return (ROOT / "bundles" / PHASE_BUNDLES[phase] / "docs" / "README.md").read_text(encoding="utf-8")


def commands(phase: int) -> list[list[str]]:
    """The commands of the fenced bash blocks, as argument lists."""
    blocks = re.findall(r"^```bash\n(.*?)^```", readme(phase), flags=re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


def made_small(arguments: list[str], small: dict[str, Any]) -> list[str]:
    """A training made small: options that the command gives stay, but sizes and lengths are cut."""
    if not any("/configs/train.json" in part for part in arguments):
        return arguments
    result = list(arguments)
    for name, value in small.items():
        if f"--{name}" not in result:
            result += [f"--{name}", str(value)]
        elif name == "max_epochs":
            # One epoch more than the plain training, where the README goes on with it.
            result[result.index("--max_epochs") + 1] = str(value + 1)
        elif name == "image_size":
            result[result.index("--image_size") + 1] = str(value)
    return result


@pytest.fixture
def workplace(volume_chain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a copy of the bundles, those of the earlier phases trained; logging is put back afterwards."""
    for phase, name in PHASE_BUNDLES.items():
        for part in ("configs", "docs"):
            shutil.copytree(ROOT / "bundles" / name / part, tmp_path / "bundles" / name / part)
        shutil.copytree(volume_chain.output(phase) / "models", tmp_path / "bundles" / name / "models")
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield tmp_path
    root.handlers[:], root.level = handlers, level
    set_determinism(seed=None)


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_every_command_runs(
    phase: int,
    workplace: Path,
    volume_chain: Any,
    small: dict[int, dict[str, Any]],
    empty_store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {
        "DATASET": str(volume_chain.dataset),
        "IMAGES": str(volume_chain.dataset / "site_b_0.nii.gz"),
        "PHASE1": str(volume_chain.phase1),
        "PHASE2": str(volume_chain.phase2),
    }
    shutil.rmtree(workplace / "bundles" / PHASE_BUNDLES[phase] / "models")
    (workplace / "RUNS" / "tracked").mkdir(parents=True)
    shutil.copy(empty_store, workplace / "RUNS" / "tracked")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = commands(phase)
    assert len(found) >= 8
    for command in found:
        assert command[:3] == ["python", "-m", "monai.bundle"]
        arguments = made_small([values.get(part, part) for part in command[3:]], small[phase])
        monkeypatch.setattr(sys, "argv", ["monai.bundle", *arguments])
        with torch.random.fork_rng():
            fire.Fire(COMMANDS, command=arguments)
    written = {path.name for path in (workplace / "bundles" / PHASE_BUNDLES[phase]).iterdir()}
    assert {"models", "checkpoints", "panels", "styles" if phase == 2 else "predictions"} <= written
    assert {path.name for path in (workplace / "RUNS").iterdir()} >= {"demo", "fundus", "tracked"}


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_every_option_is_described_with_its_default(phase: int) -> None:
    described = {name: default for name, default, _, _ in ROW.findall(readme(phase))}
    content = json.loads((ROOT / "bundles" / PHASE_BUNDLES[phase] / "configs" / "train.json").read_text())
    literal = {
        name: f"`{json.dumps(value)}`"
        for name, value in content.items()
        if not (isinstance(value, str) and value[:1] in "$@")
        and name not in ("imports", "initialize", "run")
        and not (isinstance(value, dict) and (set(value) & {*COMPONENTS, "dataset"} or name in COMPONENTS))
        and name != "made_from"
    }
    assert {name: described.get(name) for name in literal} == literal
    assert {name for name in described if name not in literal} <= {
        name for name, value in content.items() if isinstance(value, str) and value[:1] in "$@"
    }


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_options_of_evaluation_and_inference_are_described(phase: int) -> None:
    table = readme(phase).split("Options of `evaluate.json` and `inference.json`")[1].split("\n## ")[0]
    described: dict[str, str] = {}
    for names, of in re.findall(r"^\| (`.+?`) \| (\w+) \|", table, flags=re.MULTILINE):
        described |= dict.fromkeys(re.findall(r"`(\w+)`", names), of)
    # Those of tracking are in the table of the training; the others are no values to give.
    elsewhere = {"bundle_root", "experiment_name", "run_name", "tracking_uri", "save_execute_config", "is_not_rank0"}
    found: dict[str, set[str]] = {}
    for config, of in (("evaluate", "evaluation"), ("inference", "inference")):
        content = json.loads((ROOT / "bundles" / PHASE_BUNDLES[phase] / "configs" / f"{config}.json").read_text())
        for name, value in content.items():
            given = isinstance(value, bool | int | float | str | None) and not str(value).startswith("$")
            if name not in elsewhere and (given or name.endswith(("_dir", "_path")) or name == "device"):
                found.setdefault(name, set()).add(of)
    assert described == {name: "both" if len(of) == 2 else next(iter(of)) for name, of in found.items()}


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_sections_of_the_model_zoo_are_there(phase: int) -> None:
    headings = re.findall(r"^#+ \**(.+?)\**$", readme(phase), flags=re.MULTILINE)
    expected = ["Authors", "Tags", "Model Description", "Data", "Performance", "Additional Usage Steps"]
    expected += ["System Configuration", "Limitations", "Citation Info", "References", "License"]
    assert [name for name in headings if name in expected] == expected
    assert "Not for clinical use" in readme(phase)
