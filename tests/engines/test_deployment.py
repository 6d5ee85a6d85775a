"""Tests of the checks that a deployed network carries with it."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Invertd, LoadImaged

from mixstyleflow_monai.artifacts import manifest_path, write_manifest
from mixstyleflow_monai.data import Task
from mixstyleflow_monai.engines import save_state_dict
from mixstyleflow_monai.engines.deployment import (
    CheckChannelsd,
    CheckModeld,
    check_model,
    inference_preprocessing,
    strict_network,
)
from mixstyleflow_monai.networks import DualDecoderNet

TASK = Task(1, {"organ": [1, 2], "core": [2]}, (32, 32), spatial_dims=3, pixel_spacing=(1.5, 1.5))
ROOT = Path(__file__).resolve().parents[2]


def write_network(path: Path, task: Task = TASK, kind: str = "segmentation_network") -> Path:
    torch.manual_seed(0)
    save_state_dict(DualDecoderNet(**task.network_settings()), path)
    write_manifest(path, kind, facts={"task": task.to_json()})
    return path


def write_volume(path: Path, shape: tuple[int, ...] = (20, 24, 3)) -> str:
    affine = np.array([[0, -1.2, 0, 5], [1.1, 0, 0, -7], [0, 0, 3, 1], [0, 0, 0, 1]], dtype=float)
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).random(shape).astype(np.float32), affine), path)
    return str(path)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: {}, r"72 missing|\d+ missing"),
        (lambda s: {**s, "head.weight": torch.ones(1)}, r"1 unknown \['head.weight'\]"),
        (lambda s: dict(list(s.items())[1:]), "1 missing"),
        (lambda s: DualDecoderNet(1, 1).state_dict(), r"output.weight: file \(1, 16, 1, 1\), network \(2, 16, 1, 1\)"),
    ],
    ids=["nothing", "unknown", "missing", "other region count"],
)
def test_weights_of_another_network_are_refused_strict_or_not(strict: bool, change: Any, expected: str) -> None:
    network = strict_network(in_channels=1, out_channels=2)
    with pytest.raises(ValueError, match=f"weights of another network.*{expected}"):
        network.load_state_dict(change(network.state_dict()), strict=strict)


@pytest.mark.parametrize("wrap", [False, True])
def test_own_weights_are_loaded_also_into_a_copy_and_inside_another_module(wrap: bool) -> None:
    network = copy.deepcopy(strict_network(in_channels=1, out_channels=2))
    state = DualDecoderNet(1, 2).state_dict()
    module = torch.nn.ModuleDict({"module": network}) if wrap else network
    module.load_state_dict({f"module.{key}": value for key, value in state.items()} if wrap else state)
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())
    with pytest.raises(ValueError, match="another network"):
        module.load_state_dict({}, strict=False)


def test_check_runs_once_a_version_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_network(tmp_path / "model.pt")
    calls: list[Path] = []
    monkeypatch.setattr("mixstyleflow_monai.engines.deployment.check_model", lambda path, task: calls.append(path))
    check = CheckModeld(path, TASK)
    assert check({"image": "x"}) == {"image": "x"}
    check({"image": "y"})
    assert len(calls) == 1
    path.write_bytes(b"x")
    check({"image": "y"})
    assert len(calls) == 2


def test_weights_exchanged_while_a_server_runs_are_refused(tmp_path: Path) -> None:
    path = write_network(tmp_path / "model.pt")
    check = CheckModeld(path, TASK)
    check({})
    save_state_dict(DualDecoderNet(1, 2), path)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"model.pt: SHA-256 .* differs"):
            check({})
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.pt: no such file"):
        check({})


@pytest.mark.parametrize("named", ["earlier.pt", ["earlier.pt", "model.pt"]])
def test_model_that_a_request_names_is_the_one_checked(named: Any, tmp_path: Path) -> None:
    path = write_network(tmp_path / "model.pt")
    earlier = write_network(tmp_path / "earlier.pt")
    check = CheckModeld(path, TASK)
    check({"model_filename": named})
    manifest_path(earlier).unlink()
    with pytest.raises(FileNotFoundError, match=r"earlier\.manifest\.json: no such file"):
        CheckModeld(path, TASK)({"model_filename": named})


def test_flows_are_no_segmentation_network(tmp_path: Path) -> None:
    write_network(tmp_path / "model.pt")
    write_network(tmp_path / "style_flows.pt", kind="style_flows")
    with pytest.raises(ValueError, match="this is a 'style_flows', expected a 'segmentation_network'"):
        CheckModeld(tmp_path / "model.pt", TASK)({"model_filename": "style_flows.pt"})


def test_network_of_another_task_is_refused_with_what_differs(tmp_path: Path) -> None:
    path = write_network(tmp_path / "model.pt", Task(1, {"organ": [1]}, (32, 32), spatial_dims=3))
    with pytest.raises(ValueError, match=r"trained for regions \{'organ': \[1\]\}.*open for regions .*'core': \[2\]"):
        check_model(path, TASK)
    assert check_model(path).regions == {"organ": [1]}


@pytest.mark.parametrize("shape", [(4, 8, 8, 3), (1, 8, 8, 3, 1), (1, 8)])
def test_image_that_the_network_cannot_take_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"image: \d channels of shape .* the network takes 1"):
        CheckChannelsd("image", 1)({"image": torch.zeros(shape)})


def test_four_dimensional_file_is_refused_by_its_name(tmp_path: Path) -> None:
    steps = inference_preprocessing(TASK, write_network(tmp_path / "model.pt"))
    with pytest.raises(Exception, match="applying transform") as caught:
        steps({"image": write_volume(tmp_path / "four.nii.gz", (20, 24, 3, 5))})
    assert isinstance(caught.value.__cause__, ValueError)
    assert "four.nii.gz: 5 channels of shape (20, 24, 3), but the network takes 1" in str(caught.value.__cause__)


def test_preprocessing_needs_the_weights_and_their_manifest(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.pt: no such file"):
        inference_preprocessing(TASK, tmp_path / "model.pt")
    manifest_path(write_network(tmp_path / "model.pt")).unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.manifest\.json: no such file"):
        inference_preprocessing(TASK, tmp_path / "model.pt")


def test_result_is_that_of_the_task_s_preprocessing_and_can_be_inverted_beside_a_server_s_entries(
    tmp_path: Path,
) -> None:
    steps = inference_preprocessing(TASK, write_network(tmp_path / "model.pt"))
    path = write_volume(tmp_path / "volume.nii.gz")
    for step in steps.transforms:
        if isinstance(step, LoadImaged):
            step._loader.image_only = False  # as MONAI Label does
    request = {"image": path, "image_path": path, "model": "m"}
    data: dict[Any, Any] = dict(request)
    for step in steps.transforms:
        data = step(data)  # type: ignore[operator]
    plain = TASK.inference_preprocessing()({"image": path})
    assert torch.equal(torch.as_tensor(data["image"]), torch.as_tensor(plain["image"]))
    assert data["image_path"] == path
    data["pred"] = data["image"].clone()
    back = Invertd("pred", orig_keys="image", transform=steps, nearest_interp=False)(data)["pred"]
    original = nibabel.load(path)
    assert back.shape[1:] == original.shape
    np.testing.assert_allclose(back.affine, original.affine, atol=1e-6)


def test_process_that_monai_label_trains_in_prints_one_message(tmp_path: Path) -> None:
    script = tmp_path / "monailabel" / "interfaces" / "utils" / "app.py"
    script.parent.mkdir(parents=True)
    script.write_text(
        "import mixstyleflow_monai.engines.deployment\n"
        "try:\n    raise ValueError('the cause')\n"
        "except ValueError as error:\n    raise RuntimeError('around it') from error\n"
    )
    command = [sys.executable, "-W", "ignore", str(script)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: the cause"
    assert "around it" not in done.stderr
