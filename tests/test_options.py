"""Options that are sorted by phase; how a command refuses wrong ones is tested with the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir
from mixstyleflow_monai.data import load_dataset
from mixstyleflow_monai.options import check_settings, overrides_by_phase
from mixstyleflow_monai.pipeline import run
from tests.benchmark.squares import tiny_dataset


def test_overrides_go_to_the_phases_that_know_them() -> None:
    found = overrides_by_phase(
        bundles_dir(), {"max_epochs": 2, "phase2:max_epochs": 7, "levels": [2], "probability": 1.0}, run
    )
    assert found == {
        1: {"max_epochs": 2},
        2: {"max_epochs": 7, "levels": [2]},
        3: {"max_epochs": 2, "probability": 1.0},
    }


@pytest.mark.parametrize(
    ("phase", "name", "value", "message"),
    [
        (2, "joint_statistics", "maybe", "joint_statistics='maybe': expected true or false"),
        (3, "views", 0, "views=0: expected a whole number of at least 1"),
        (3, "views", 1.5, r"views=1\.5: expected a whole number"),
        (3, "hard_weight", -1.0, r"hard_weight=-1\.0: expected a number of at least 0"),
        (3, "hard_weight", float("inf"), "hard_weight=inf: expected a number of at least 0"),
        (3, "hard_weight", "much", "hard_weight='much': expected a number of at least 0"),
        (3, "consistency_weight", float("nan"), "consistency_weight=nan: expected a number of at least 0"),
        (3, "hard_batch_norm", "seperate", "hard_batch_norm='seperate': expected one of"),
        (3, "freeze_hard_affine", "x", "freeze_hard_affine='x': expected true or false"),
        (3, "warm_start", 2, "warm_start=2: expected true or false"),
        (3, "stylized_output", "decode", "output='decode': expected one of"),
        (1, "preview_interval", 0, r"preview_interval=0 \(phase 1\): expected a whole number of at least 1"),
        (1, "batch_size", 7, r"batch_size=7 \(phase 1\): expected an even number of at least 2"),
        (2, "statistics_batch_size", 7, r"statistics_batch_size=7 \(phase 2\): expected an even number"),
        (2, "statistics_passes", 0, r"statistics_passes=0 \(phase 2\): expected a whole number of at least 1"),
        (2, "gradient_clip", "abc", r"gradient_clip='abc' \(phase 2\): expected a number above 0"),
        (2, "temperatures", [3, 2, 1], r"temperatures=\[3, 2, 1\]: expected a number a level, as in"),
        (3, "lr_schedule", "cosin", "lr_schedule='cosin': expected one of 'constant', 'cosine'"),
        (3, "max_epochs", 0, r"max_epochs=0 \(phase 3\)"),
        (3, "num_workers", "abc", r"num_workers='abc' \(phase 3\): expected a whole number of at least 0"),
        (3, "learning_rate", float("nan"), r"learning_rate=nan \(phase 3\): expected a number above 0"),
        (3, "seed", 1.5, r"seed=1\.5 \(phase 3\): expected a whole number"),
        (3, "optimizer#lr", "foo", "--phase3:optimizer#lr foo: expected a number"),
    ],
)
def test_values_that_a_later_phase_refuses_are_told_first(
    tmp_path: Path, phase: int, name: str, value: Any, message: str
) -> None:
    description = load_dataset(tiny_dataset(tmp_path / "squares"))
    settings = json.loads((bundles_dir() / PHASE_BUNDLES[phase] / "configs" / "train.json").read_text())
    check_settings(phase, settings, description)
    with pytest.raises(ValueError, match=message):
        check_settings(phase, {**settings, name: value}, description)


@pytest.mark.parametrize(
    "changed",
    [
        {"hard_weight": "$0.5 * 2"},
        {"max_epochs": "$3 * 2", "lr_schedule": "@schedule", "epoch_length": "null"},
        {"consistency_weight": "@hard_weight"},
        {"freeze_hard_affine": "$True"},
        {"warm_start": "$not @fine_tuning"},
        {"stylizer": None, "hard_batch_norm": "running", "freeze_hard_affine": True},
    ],
)
def test_expressions_and_passes_that_there_are_not_are_left_alone(tmp_path: Path, changed: dict[str, Any]) -> None:
    description = load_dataset(tiny_dataset(tmp_path / "squares"))
    settings = json.loads((bundles_dir() / PHASE_BUNDLES[3] / "configs" / "train.json").read_text())
    check_settings(3, {**settings, **changed}, description)
