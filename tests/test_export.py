"""Exported networks give what the network gives."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch

from mixstyleflow_monai.export import FORMATS, TOLERANCE, check_export, export_network, load_exported
from mixstyleflow_monai.networks import DualDecoderNet

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def network() -> DualDecoderNet:
    """A network whose batch norms have seen images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = DualDecoderNet(in_channels=3, out_channels=2).train()
        for _ in range(3):
            made(torch.rand(4, 3, 32, 32))
    return made.eval()


@pytest.fixture(scope="module", params=FORMATS)
def exported(request: pytest.FixtureRequest, network: DualDecoderNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network in one of the forms."""
    if request.param == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxscript")
    path = tmp_path_factory.mktemp("exported") / "model"
    return export_network(network, path.with_suffix(f".{request.param}"), metadata={"version": "9"}, config={"a": 1})


@pytest.mark.parametrize("seed", range(3))
def test_exported_network_equals_the_network_at_random_sizes(
    exported: Path, network: DualDecoderNet, seed: int
) -> None:
    function = load_exported(exported)
    generator = torch.Generator().manual_seed(seed)
    batch, rows, columns = (int(torch.randint(1, 6, (), generator=generator)) for _ in range(3))
    images = torch.rand(batch, 3, 16 * (rows + 1), 16 * (columns + 1), generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(function(images), network(images), atol=TOLERANCE, rtol=0)
    assert check_export(network, exported, seed) <= TOLERANCE


def test_export_of_other_weights_is_found_out(exported: Path) -> None:
    with torch.random.fork_rng():
        other = DualDecoderNet(in_channels=3, out_channels=2)
    with pytest.raises(ValueError, match=r"model\.\w+: logits differ by"):
        check_export(other, exported)


def test_no_path_of_this_machine_is_in_the_file(exported: Path, tmp_path: Path) -> None:
    if exported.suffix != ".onnx":
        with zipfile.ZipFile(exported) as archive:
            archive.extractall(tmp_path)
            assert {name.split("/")[0] for name in archive.namelist()} == {"model"}
    else:
        (tmp_path / "model.onnx").write_bytes(exported.read_bytes())
    marked = [path.name for path in tmp_path.rglob("*") if path.is_file() and str(ROOT).encode() in path.read_bytes()]
    assert marked == []


def test_torchscript_file_keeps_metadata_and_configuration(network: DualDecoderNet, tmp_path: Path) -> None:
    """As MONAI's own export does, so that the file can be served alone."""
    path = export_network(network, tmp_path / "model.ts", metadata={"version": "9"}, config={"a": 1})
    files = {"metadata.json": "", "inference.json": ""}
    torch.jit.load(str(path), _extra_files=files)
    assert json.loads(files["metadata.json"]) == {"version": "9"}
    assert json.loads(files["inference.json"]) == {"a": 1}


def test_unknown_form_is_refused(network: DualDecoderNet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no export form ends in '\.h5'; expected \.ts, \.pt2, \.onnx"):
        export_network(network, tmp_path / "model.h5")
    assert list(tmp_path.iterdir()) == []


def test_failed_export_leaves_no_file(network: DualDecoderNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(torch.export, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        export_network(network, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []
