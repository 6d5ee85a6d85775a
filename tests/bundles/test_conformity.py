"""A bundle without data and weights can be opened by every consumer, and refuses to run with one clear message."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel
import numpy as np
import pytest
import torch

from mixstyleflow_monai.artifacts import manifest_path, sha256_file, write_json
from mixstyleflow_monai.bundle_errors import root_cause
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.inspection import UNTRAINED_TASK, is_missing
from mixstyleflow_monai.networks import DualDecoderNet

ROOT = Path(__file__).resolve().parents[2]
Call = Callable[..., Any]
WORKFLOWS = {"train": "train", "inference": "inference"}


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The three bundles as they are in git, in a folder without anything else; the working directory is another one."""
    for name in PHASE_BUNDLES.values():
        for part in ("configs", "docs"):
            shutil.copytree(ROOT / "bundles" / name / part, tmp_path / "bundles" / name / part)
        shutil.copy(ROOT / "bundles" / name / "LICENSE", tmp_path / "bundles" / name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "bundles"


def files(folder: Path) -> list[Path]:
    """All files of a folder; MONAI's checkpoint handler makes an empty folder where it would write."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def workflow(bundles: Path, phase: int, config: str, **options: Any) -> monai.bundle.ConfigWorkflow:
    """The workflow of a configuration, opened as the Model Zoo opens it."""
    folder = bundles / PHASE_BUNDLES[phase]
    made = monai.bundle.create_workflow(
        config_file=str(folder / "configs" / f"{config}.json"),
        workflow_type=WORKFLOWS[config],
        logging_file=False,
        bundle_root=str(folder),
        **options,
    )
    assert isinstance(made, monai.bundle.ConfigWorkflow)
    return made


@pytest.mark.parametrize("config", WORKFLOWS)
@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_properties_of_a_bare_bundle_are_complete_and_nothing_is_written(phase: int, config: str, bare: Path) -> None:
    before = files(bare)
    assert workflow(bare, phase, config).check_properties() == []
    assert files(bare) == before
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("phase", "config", "missing"),
    [
        (1, "train", "dataset.json: no such file. Make a data set"),
        (2, "train", "dataset.json: no such file. Make a data set"),
        (3, "train", "dataset.json: no such file. Make a data set"),
        (1, "inference", "model.pt: no such file. Train the phase"),
        (2, "inference", "model.pt: no such file. Train the phase"),
        (3, "inference", "model.pt: no such file. Train the phase"),
    ],
)
def test_bare_bundle_refuses_to_run(phase: int, config: str, missing: str, bare: Path, user_error: Call) -> None:
    before = files(bare)
    text = user_error(lambda: workflow(bare, phase, config).run(), FileNotFoundError)
    assert missing in text
    assert files(bare) == before


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_network_of_a_bare_bundle_refuses_images(phase: int, bare: Path, volumes: Path, user_error: Call) -> None:
    """Whoever takes the evaluator out of the workflow must not get label maps of random weights."""
    made = workflow(bare, phase, "inference", dataset_dir=str(volumes))
    assert "model.pt: no such file" in user_error(made.evaluator.run, FileNotFoundError, RuntimeError)


def test_images_are_segmented_without_a_data_set(volume_chain: Any, run_bundle: Call, tmp_path: Path) -> None:
    shutil.copytree(volume_chain.phase3 / "models", tmp_path / "models")
    image = volume_chain.dataset / "site_b_0.nii.gz"
    run_bundle(3, "inference", input=str(image), dataset_dir=str(tmp_path / "none"), output_dir=str(tmp_path))
    written = sorted(path.name for path in (tmp_path / "predictions").iterdir())
    assert written == ["label_map_sources.json", "site_b_0_seg.nii.gz"]


def test_data_set_that_cannot_be_read_is_not_taken_for_a_missing_one(bare: Path) -> None:
    (Path.cwd() / "dataset").mkdir()
    (Path.cwd() / "dataset" / "dataset.json").write_text("{")
    with pytest.raises(RuntimeError) as caught:
        workflow(bare, 1, "train").check_properties()
    assert "not valid JSON" in str(root_cause(caught.value))


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_untrained_task_is_the_same_everywhere(phase: int) -> None:
    path = ROOT / "bundles" / PHASE_BUNDLES[phase] / "configs" / "inference.json"
    assert json.loads(path.read_text())["untrained_task"] == UNTRAINED_TASK


def test_what_is_there_is_no_placeholder() -> None:
    assert not is_missing([])
    assert not is_missing(None)
    assert not is_missing(DualDecoderNet())


def with_models(source: Path, target: Path, state: dict[str, torch.Tensor] | None = None) -> Path:
    """A copy of an output folder's models; other weights get a manifest with their own hash."""
    shutil.copytree(source / "models", target / "models")
    model = target / "models" / "model.pt"
    if state is not None:
        torch.save(state, model)
        manifest = json.loads(manifest_path(model).read_text())
        write_json(manifest_path(model), {**manifest, "sha256": sha256_file(model)})
    return target


@pytest.mark.parametrize("config", ["evaluate", "inference"])
@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_missing_weights_are_one_clear_error(
    phase: int, config: str, volume_chain: Any, run_bundle: Call, user_error: Call, tmp_path: Path
) -> None:
    options = {"dataset_dir": str(volume_chain.dataset), "output_dir": str(tmp_path)}
    text = user_error(lambda: run_bundle(phase, config, **options), FileNotFoundError)
    assert ".pt: no such file." in text
    assert "or give its folder" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("config", ["evaluate", "inference"])
@pytest.mark.parametrize("phase", [1, 3])
def test_weights_with_another_number_of_regions_are_refused(
    phase: int, config: str, volume_chain: Any, run_bundle: Call, user_error: Call, tmp_path: Path
) -> None:
    output = with_models(volume_chain.output(phase), tmp_path, DualDecoderNet(1, 3).state_dict())
    options = {"dataset_dir": str(volume_chain.dataset), "output_dir": str(output)}
    text = user_error(lambda: run_bundle(phase, config, **options), ValueError)
    assert "weights of another network" in text
    assert "segmentation_decoder.output.weight: file (3, 16, 1, 1), network (1, 16, 1, 1)" in text
    assert sorted(path.name for path in output.iterdir()) == ["models"]


@pytest.mark.parametrize("config", ["evaluate", "inference"])
def test_flows_beside_another_network_are_refused(
    config: str, volume_chain: Any, run_bundle: Call, user_error: Call, tmp_path: Path
) -> None:
    output = with_models(volume_chain.phase2, tmp_path, DualDecoderNet(1, 1).state_dict())
    options = {"dataset_dir": str(volume_chain.dataset), "output_dir": str(output)}
    text = user_error(lambda: run_bundle(2, config, **options), ValueError)
    assert "style_flows.pt: its styles describe the network" in text


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_image_of_four_dimensions_is_refused_with_its_name(
    phase: int, volume_chain: Any, run_bundle: Call, user_error: Call, tmp_path: Path
) -> None:
    output = with_models(volume_chain.output(phase), tmp_path)
    image = np.random.default_rng(0).random((48, 48, 4, 3), dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), output / "many.nii.gz")
    options = {"input": str(output / "many.nii.gz"), "output_dir": str(output)}
    text = user_error(lambda: run_bundle(phase, "inference", **options), ValueError)
    assert "many.nii.gz: has shape (48, 48, 4, 3), expected three axes" in text
    written = {path.name for path in output.rglob("*") if path.is_file() and path.parent.name != "models"}
    assert written == {"many.nii.gz"}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """MONAI logs the settings of every workflow it opens."""
    caplog.set_level(logging.ERROR)
