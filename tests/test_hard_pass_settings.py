"""The hard pass of a configuration, built before there are flows."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from mixstyleflow_monai.benchmark import known_methods
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir
from mixstyleflow_monai.data import Task
from mixstyleflow_monai.engines import HardPass, SemanticLosses
from mixstyleflow_monai.hard_pass_settings import check_hard_pass, configured_hard_pass
from mixstyleflow_monai.styles import FlowStyleMix

LEVELS = (2, 3, 4, 5)


def settings_of(method: str) -> dict[str, Any]:
    configs = bundles_dir() / PHASE_BUNDLES[3] / "configs"
    paths = [configs / "train.json", configs / "methods" / f"{method}.json"]
    merged: dict[str, Any] = {}
    for path in paths:
        merged |= json.loads(path.read_text()) if path.is_file() else {}
    return merged


def task_of(settings: dict[str, Any], **options: Any) -> Task:
    return Task(1, {"blob": [1]}, (32, 32), normalization=settings["normalization"], **options)


@pytest.mark.parametrize("method", known_methods(bundles_dir()))
def test_every_shipped_method_is_built_and_passes(method: str) -> None:
    settings = settings_of(method)
    statistics = torch.rand(5, 2) + 0.1
    built = configured_hard_pass(settings, task_of(settings), dict.fromkeys(LEVELS, (statistics, statistics)))
    expected = {"no_stylizer": type(None), "san_saw": SemanticLosses}.get(method, HardPass)
    assert type(built) is expected
    check_hard_pass(settings, task_of(settings), LEVELS)


def test_settings_reach_the_stylizer() -> None:
    settings = {**settings_of("mixstyleflow"), "style_levels": [3], "probability": "$0.5 / 2", "hard_weight": 2.0}
    statistics = torch.rand(5, 2) + 0.1
    built = configured_hard_pass(settings, task_of(settings), dict.fromkeys(LEVELS, (statistics, statistics)))
    assert isinstance(built, HardPass)
    assert isinstance(built.stylizer, FlowStyleMix)
    assert (built.stylizer.levels, built.stylizer.probability, built.weight) == ((3,), 0.25, 2.0)


@pytest.mark.parametrize(
    ("method", "changed", "message"),
    [
        ("tri_d", {"probability": 1.5}, r"probability=1\.5"),
        ("flow_styles_or_rand_conv", {"alpha": 0.0}, r"alpha=0\.0"),
        ("gaussian_styles", {"style_levels": [1]}, r"style_levels=\[1\]: expected some of \[2, 3, 4, 5\]"),
        ("mixstyleflow", {"stylizer#probability": 3}, r"probability=3"),
        ("mixstyleflow", {"hard_batch_norm": "separate", "freeze_hard_affine": True}, r"goes with 'batch' alone"),
    ],
)
def test_values_that_a_part_refuses_are_told(method: str, changed: dict[str, Any], message: str) -> None:
    settings = {**settings_of(method), **changed}
    with pytest.raises(ValueError, match=message):
        check_hard_pass(settings, task_of(settings), LEVELS)


def test_methods_for_images_from_0_to_1_refuse_z_scored_ones() -> None:
    for method, refused in (("max_style", True), ("flow_styles_and_big_aug", True), ("rand_conv", False)):
        settings = settings_of(method)
        task = task_of(settings, intensity="z_score", image_activation="instance_norm")
        if refused:
            with pytest.raises(ValueError, match=r"with intensity='z_score'"):
                check_hard_pass(settings, task, LEVELS)
        else:
            check_hard_pass(settings, task, LEVELS)


@pytest.mark.parametrize(
    "stylizer",
    [
        {"_target_": "mixstyleflow_monai.styles.BigAug", "probability": "@of_an_item_to_come"},
        {"_target_": "mixstyleflow_monai.styles.BigAug", "probability": "$open('nowhere.json')"},
    ],
)
def test_what_only_the_training_has_is_passed_over(stylizer: dict[str, Any]) -> None:
    settings = {**settings_of("big_aug"), "stylizer": stylizer}
    check_hard_pass(settings, task_of(settings), LEVELS)
