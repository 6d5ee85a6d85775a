"""Tests of what a run checks of trainings that are finished already."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mixstyleflow_monai import pipeline
from mixstyleflow_monai.artifacts import manifest_path, sha256_file, write_json
from tests.small_dataset import SMALL


@pytest.fixture
def copy(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run to change."""
    shutil.copytree(finished_run, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.slow
def test_finished_trainings_of_other_settings_are_not_taken_for_ones_own(copy: Path, discs: Path) -> None:
    for name in ("run.json", "evaluation.json", "evaluation.csv", "report.html"):
        (copy / name).unlink()
    refused = r"copy.phase1: holds a finished training with other settings \(seed: was 3, now 4\).*another --output_dir"
    with pytest.raises(ValueError, match=refused):
        pipeline.run(str(discs), str(copy), seed=4, **SMALL)
    with pytest.raises(
        ValueError, match=r"phase1.*image_size: was \[32, 32\], now \[48, 48\]; max_epochs: was 1, now 2"
    ):
        pipeline.run(str(discs), str(copy), seed=3, **{**SMALL, "image_size": [48, 48], "max_epochs": 2})
    assert not (copy / "run.json").exists(), "nothing is asked for by a refused command"
    # Of the same settings they may have been trained one by one.
    pipeline.run(str(discs), str(copy), seed=3, baseline=True, **SMALL)
    assert len(json.loads((copy / "evaluation.json").read_text())) == 3


@pytest.mark.slow
def test_a_phase_one_that_the_others_did_not_start_from_is_not_in_their_table(copy: Path) -> None:
    path = copy / "phase1" / "evaluation.json"
    record = json.loads(path.read_text())
    dataset_sha256 = record["dataset_sha256"]
    assert pipeline._evaluated(copy, dataset_sha256) == ["phase1", "phase3", "baseline"]
    model = copy / "phase1" / "models" / "model.pt"
    with model.open("ab") as stream:
        stream.write(b"0")
    write_json(path, {**record, "model_sha256": sha256_file(model)})
    assert pipeline._evaluated(copy, dataset_sha256) == ["phase3", "baseline"]
    for name in ("phase3", "baseline"):
        shutil.rmtree(copy / name)
    assert pipeline._evaluated(copy, dataset_sha256) == ["phase1"]


@pytest.mark.slow
def test_damaged_network_with_its_checkpoint_is_made_anew_and_fits_what_was_made_from_it(
    copy: Path, discs: Path, watched: list[tuple[str, dict[str, Any]]]
) -> None:
    model = copy / "phase1" / "models" / "model.pt"
    before = model.read_bytes()
    model.write_bytes(before[:1000])
    pipeline.run(str(discs), str(copy), seed=3, baseline=True, **SMALL)
    assert [name for name, _ in watched] == ["phase1/train"]
    assert model.read_bytes() == before


@pytest.mark.slow
def test_what_was_made_from_another_training_is_not_put_beside_this_one(
    copy: Path, discs: Path, tmp_path: Path
) -> None:
    before = (copy / "run.json").read_bytes()
    (copy / "phase1").rename(tmp_path / "away")
    with pytest.raises(ValueError, match=r"copy.phase2: was made from .*phase1.models.model.pt, which is not there or"):
        pipeline.run(str(discs), str(copy), seed=3, **SMALL, **{"phase1:learning_rate": 0.003})
    assert (copy / "run.json").read_bytes() == before
    # Another network with a manifest of its own, as a training with other epochs leaves it.
    (tmp_path / "away").rename(copy / "phase1")
    model = copy / "phase1" / "models" / "model.pt"
    with model.open("ab") as stream:
        stream.write(b"0")
    manifest = json.loads(manifest_path(model).read_text())
    write_json(manifest_path(model), {**manifest, "sha256": sha256_file(model)})
    with pytest.raises(
        ValueError, match=r"copy.phase2: was made from another .*model.pt \(.*remove .*phase2 to make it"
    ):
        pipeline.run(str(discs), str(copy), seed=3, baseline=True, **SMALL)
    # From elsewhere, a baseline would start from another network than the Phase III beside it.
    elsewhere, alone = tmp_path / "elsewhere", tmp_path / "alone"
    shutil.copytree(copy / "phase1", elsewhere)
    shutil.copytree(copy / "phase3", alone / "phase3")
    phase3 = {name: SMALL[name] for name in ("batch_size", "epoch_length", "max_epochs")}
    with pytest.raises(ValueError, match=r"alone.phase3: was made from another .*elsewhere.models.model.pt"):
        pipeline.run(str(discs), str(alone), phases=3, seed=3, baseline=True, phase1_dir=str(elsewhere), **phase3)
