"""A trained and evaluated chain to pack."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from mixstyleflow_monai.artifacts import sha256_file, write_json, write_manifest
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.data import Task
from mixstyleflow_monai.engines import save_state_dict
from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.networks import DualDecoderNet

TASK = Task(in_channels=3, regions={"disc": [1, 2], "cup": [2]}, image_size=(32, 32), intensity="data_range")
EVALUATED = {
    "phase": 3,
    "seed": 0,
    "domains": {
        "site_a": {
            "role": "source",
            "n": 2,
            "regions": {
                "disc": {"dice": {"mean": 90.0, "sd": 1.5}, "asd_px": {"mean": 2.0, "sd": 0.25, "n": 2}},
                "cup": {"dice": {"mean": 80.0, "sd": None}, "asd_px": {"mean": None, "sd": None, "n": 0}},
            },
        }
    },
    "source_mean_dice": 85.0,
    "unseen_mean_dice": None,
    "dice_unit": "percent",
    "split": "test",
    "dataset": "discs and another clinic",
    "dataset_sha256": "1" * 64,
}


def make_outputs(root: Path) -> dict[int, Path]:
    """Output folders of the three phases, with untrained weights and an evaluation of the segmentation networks."""
    folders = {phase: root / f"phase{phase}" for phase in PHASE_BUNDLES}
    facts = {"seed": 0, "source_domain": "site_a", "dataset": {"name": "discs", "sha256": "0" * 64}}
    facts["task"] = TASK.to_json()
    facts["cases"] = {"train": ["site_a_Muster_Anna", "site_a_02"], "validation": ["site_a_03"]}
    for phase in (1, 3):
        model = folders[phase] / "models" / "model.pt"
        save_state_dict(DualDecoderNet(**TASK.network_settings()), model)
        manifest = write_manifest(model, "segmentation_network", facts={"phase": phase, **facts})
        record = {**EVALUATED, "phase": phase, "model_sha256": manifest["sha256"]}
        write_json(folders[phase] / "evaluation.json", record)
    shutil.copytree(folders[1] / "models", folders[2] / "models")
    flows = folders[2] / "models" / "style_flows.pt"
    bank = StyleFlowBank()
    bank.initialize({level: (torch.rand(20, c), torch.rand(20, c) + 0.1) for level, c in bank.channels.items()})
    bank.save(flows)
    made_from = {"network": folders[2] / "models" / "model.pt"}
    write_manifest(flows, "style_flows", made_from=made_from, facts={"phase": 2, **facts})
    return folders


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """`make_outputs`. Tests must not write to it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_outputs(tmp_path_factory.mktemp("outputs"))


@pytest.fixture
def own_outputs(outputs: dict[int, Path], tmp_path: Path) -> dict[int, Path]:
    """A copy of `outputs` to be changed."""
    return {phase: Path(shutil.copytree(folder, tmp_path / folder.name)) for phase, folder in outputs.items()}


def sealed(model: Path) -> None:
    """Write the present hash of an artifact into its manifest."""
    path = model.with_suffix(".manifest.json")
    write_json(path, {**json.loads(path.read_text()), "sha256": sha256_file(model)})
