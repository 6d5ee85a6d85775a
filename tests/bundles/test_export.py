"""MONAI's own export commands on every bundle, with trained weights; in phase 2 of the network that it carries."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fire
import monai.bundle
import pytest
import torch

from mixstyleflow_monai.artifacts import read_manifest
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.data import Task
from mixstyleflow_monai.engines import load_network
from mixstyleflow_monai.export import check_export, export_network
from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.packing import pack

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """MONAI's commands configure the root logger."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture(params=PHASE_BUNDLES)
def phase(request: pytest.FixtureRequest) -> int:
    """Every phase."""
    number: int = request.param
    return number


@pytest.fixture
def model(phase: int, chain: Any) -> Path:
    """The trained network that a bundle carries, its hash checked."""
    path: Path = chain.output(phase) / "models" / "model.pt"
    read_manifest(path, kind="segmentation_network")
    return path


@pytest.fixture
def network(model: Path) -> DualDecoderNet:
    """The same as a module."""
    made = load_network(DualDecoderNet(**Task.from_model(model).network_settings()), model)
    assert isinstance(made, DualDecoderNet)
    return made.eval()


def export_options(phase: int, model: Path, target: Path) -> dict[str, Any]:
    """Arguments of MONAI's export commands. The task, and with it the network, is that of the weights' manifest."""
    configs = BUNDLES / PHASE_BUNDLES[phase] / "configs"
    return {
        "net_id": "network_def",
        "filepath": str(target),
        "ckpt_file": str(model),
        "meta_file": str(configs / "metadata.json"),
        "config_file": str(configs / "inference.json"),
        "ckpt_path": str(model),
    }


def test_ckpt_export_equals_the_network(phase: int, model: Path, network: DualDecoderNet, tmp_path: Path) -> None:
    monai.bundle.ckpt_export(**export_options(phase, model, tmp_path / "model.ts"))
    assert check_export(network, tmp_path / "model.ts") <= 1e-4


def test_onnx_export_equals_the_network(phase: int, model: Path, network: DualDecoderNet, tmp_path: Path) -> None:
    """MONAI's command fixes the input's size. Run in onnx's reference evaluator."""
    pytest.importorskip("onnxscript")
    reference = pytest.importorskip("onnx.reference")
    size = (1, network.in_channels, 48, 32)
    monai.bundle.onnx_export(**export_options(phase, model, tmp_path / "model.onnx"), input_shape=list(size))
    evaluator = reference.ReferenceEvaluator(str(tmp_path / "model.onnx"))
    images = torch.rand(size, generator=torch.Generator().manual_seed(0))
    found = evaluator.run(None, {evaluator.input_names[0]: images.numpy()})[0]
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), network(images), atol=1e-4, rtol=0)


def test_program_of_torch_export_equals_the_network(network: DualDecoderNet, tmp_path: Path) -> None:
    assert check_export(network, export_network(network, tmp_path / "model.pt2")) <= 1e-4


COMMANDS = {
    "ckpt_export": monai.bundle.ckpt_export,
    "onnx_export": monai.bundle.onnx_export,
    "verify_metadata": monai.bundle.verify_metadata,
    "pack": pack,
}


def readme_commands(phase: int) -> list[list[str]]:
    """Commands of the README that export, check or pack, as argument lists."""
    readme = BUNDLES / PHASE_BUNDLES[phase] / "docs" / "README.md"
    blocks = re.findall(r"^```console\n(.*?)^```", readme.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    words = [shlex.split(line) for line in lines if line.startswith("python -m ")]
    return [line[3:] for line in words if line[3] in COMMANDS]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:No hash value provided:UserWarning")  # the README names no hash of the schema
def test_commands_of_the_readme_run(
    phase: int, volume_chain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    for name in PHASE_BUNDLES.values():
        for part in ("configs", "docs", "LICENSE"):
            source, target = BUNDLES / name / part, tmp_path / "bundles" / name / part
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    (tmp_path / "RUNS").mkdir()
    shutil.copy(Path(__file__).with_name("meta_schema_20240725.json"), tmp_path / "RUNS" / "schema.json")
    monkeypatch.chdir(tmp_path)
    output = volume_chain.output(phase)
    values = {"MODEL": str(output / "models" / "model.pt"), "OUTPUT": str(output)}
    found = readme_commands(phase)
    assert [words[0] for words in found] == ["ckpt_export", "onnx_export", "verify_metadata", "pack"]
    for words in found:
        arguments = [values.get(word, word) for word in words]
        fire.Fire(COMMANDS, command=arguments, serialize=lambda _: None)
    assert {path.name for path in (tmp_path / "RUNS").iterdir()} == {"model.ts", "model.onnx", "schema.json"}
    (packed,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(packed) as archive:
        assert f"{PHASE_BUNDLES[phase]}/models/model.pt2" in archive.namelist()
