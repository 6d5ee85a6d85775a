"""Device, precision and words of the command line, given as options of the bundles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mixstyleflow_monai.artifacts import read_manifest
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@without_cuda
@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_training_on_a_gpu_that_is_not_there_is_one_message(
    phase: int, volume_chain: Any, train_phase: Callable[..., Path], user_error: Callable[..., str], tmp_path: Path
) -> None:
    text = user_error(lambda: train_phase(phase, volume_chain, device="cuda"))
    assert "device='cuda': torch finds 0 CUDA devices here" in text
    assert "--device cpu" in text
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@without_cuda
@pytest.mark.parametrize("config", ["evaluate", "inference"])
@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_using_a_gpu_that_is_not_there_is_one_message(
    phase: int, config: str, volume_chain: Any, run_bundle: Callable[..., None], user_error: Callable[..., str]
) -> None:
    output = {"output_dir": str(volume_chain.output(phase)), "dataset_dir": str(volume_chain.dataset)}
    text = user_error(lambda: run_bundle(phase, config, device="cuda:1", **output))
    assert "device='cuda:1': torch finds 0 CUDA devices here" in text


@pytest.mark.parametrize("phase", [1, 3])
def test_options_that_the_machine_cannot_do_are_refused_before_anything_is_written(
    phase: int, volume_chain: Any, train_phase: Callable[..., Path], user_error: Callable[..., str], tmp_path: Path
) -> None:
    for options in ({"amp": "float16"}, {"compile": "fast"}, {"sync_batch_norm": True}):
        text = user_error(lambda options=options: train_phase(phase, volume_chain, device="cpu", **options))
        assert f"{next(iter(options))}=" in text
        assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("phase", [1, 3])
def test_phases_run_in_mixed_precision_on_a_named_device(
    phase: int, volume_chain: Any, train_phase: Callable[..., Path], run_bundle: Callable[..., None], tmp_path: Path
) -> None:
    folder = train_phase(phase, volume_chain, device="cpu", amp="true", channels_last="false")
    manifest = read_manifest(folder / "models" / "model.pt")
    assert manifest["settings"]["amp"] == "true"
    state = torch.load(folder / "models" / "model.pt", weights_only=True)
    assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}
    assert all(bool(torch.isfinite(value).all()) for value in state.values())
    output = {"output_dir": str(folder), "dataset_dir": str(volume_chain.dataset), "device": "cpu", "amp": True}
    run_bundle(phase, "evaluate", **output)
    run_bundle(phase, "inference", **output)
    assert (folder / "evaluation.json").is_file()
    assert len(list((folder / "predictions").rglob("*_seg.nii.gz"))) == 3


def test_words_of_the_command_line_mean_what_they_say(volume_chain: Any, train_phase: Callable[..., Path]) -> None:
    options = {"epoch_length": "null", "selection": "last"}
    folder = train_phase(1, volume_chain, **options)
    first = (folder / "models" / "model.pt").read_bytes()
    # A training of another seed is refused as a checkpoint to resume, but not where it starts anew.
    train_phase(1, volume_chain, resume="false", seed=1, **options)
    assert read_manifest(folder / "models" / "model.pt")["seed"] == 1
    assert (folder / "models" / "model.pt").read_bytes() != first


@pytest.mark.slow
def test_switches_of_phase_two_and_three_take_the_words_of_a_command_line(
    volume_chain: Any, train_phase: Callable[..., Path]
) -> None:
    flows = read_manifest(train_phase(2, volume_chain, clip_to_envelope="false") / "models" / "style_flows.pt")
    assert flows["settings"]["clip_to_envelope"] is False
    model = read_manifest(train_phase(3, volume_chain, warm_start="false") / "models" / "model.pt")
    assert model["settings"]["warm_start"] is False
