"""Only weights that are what the bundle is for are packed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mixstyleflow_monai.artifacts import write_json
from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.packing.weights import find_weights
from tests.packing.conftest import TASK, sealed


@pytest.mark.parametrize("given", ["", "models", "models/model.pt"])
def test_weights_are_found_by_file_and_by_folder(given: str, outputs: dict[int, Path]) -> None:
    weights = find_weights(3, outputs[3] / given)
    assert [path.name for path in weights.files] == ["model.pt", "model.manifest.json"]
    assert weights.task == TASK
    assert weights.evaluation["source_mean_dice"] == 85.0


def test_flows_come_with_the_network_that_they_describe(outputs: dict[int, Path]) -> None:
    names = [path.name for path in find_weights(2, outputs[2]).files if path.suffix == ".pt"]
    assert names == ["model.pt", "style_flows.pt"]


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"weights: no file .*models/model\.pt or .*model\.pt\. Train phase 3"):
        find_weights(3, tmp_path)


def test_weights_without_a_manifest_are_refused(own_outputs: dict[int, Path]) -> None:
    (own_outputs[3] / "models" / "model.manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.manifest\.json: no such file"):
        find_weights(3, own_outputs[3])


def test_weights_that_the_manifest_does_not_describe_are_refused(own_outputs: dict[int, Path]) -> None:
    model = own_outputs[3] / "models" / "model.pt"
    model.write_bytes(model.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"differs from .* in model\.manifest\.json"):
        find_weights(3, own_outputs[3])


def test_weights_of_another_phase_are_refused(outputs: dict[int, Path]) -> None:
    with pytest.raises(
        ValueError, match="weights of phase 1, but phase3_mixstyleflow_segmentation holds those of phase 3"
    ):
        find_weights(3, outputs[1])


def test_network_is_not_taken_for_flows(outputs: dict[int, Path]) -> None:
    with pytest.raises(ValueError, match="this is a 'segmentation_network', expected a 'style_flows'"):
        find_weights(2, outputs[1] / "models" / "model.pt")


def test_weights_of_another_network_are_refused(own_outputs: dict[int, Path]) -> None:
    model = own_outputs[3] / "models" / "model.pt"
    torch.save(DualDecoderNet(3, 5).state_dict(), model)
    sealed(model)
    with pytest.raises(ValueError, match=r"weights of another network.*file \(5, 16, 1, 1\), network \(2, 16, 1, 1\)"):
        find_weights(3, own_outputs[3])


def test_flows_of_another_network_are_refused(own_outputs: dict[int, Path]) -> None:
    model = own_outputs[2] / "models" / "model.pt"
    torch.save(DualDecoderNet(3, 2).state_dict(), model)
    sealed(model)
    with pytest.raises(ValueError, match="its styles describe the network"):
        find_weights(2, own_outputs[2])


def test_checkpoint_is_no_bare_state_dict(own_outputs: dict[int, Path]) -> None:
    model = own_outputs[3] / "models" / "model.pt"
    torch.save({"model": torch.load(model, weights_only=True), "epoch": 3}, model)
    sealed(model)
    with pytest.raises(ValueError, match="expected a bare state dict of CPU tensors, found something else"):
        find_weights(3, own_outputs[3])


def test_evaluation_of_other_weights_is_refused(own_outputs: dict[int, Path]) -> None:
    path = own_outputs[3] / "evaluation.json"
    write_json(path, {**json.loads(path.read_text()), "model_sha256": "f" * 64})
    with pytest.raises(
        ValueError, match=r"evaluation\.json: evaluates the weights ffffffffffff\.\.\., but model\.pt is"
    ):
        find_weights(3, own_outputs[3])
