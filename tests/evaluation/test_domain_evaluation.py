"""Tests of the per-domain evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from mixstyleflow_monai.data import RegionEncoding
from mixstyleflow_monai.evaluation import DomainEvaluation, compare_case

ENCODING = RegionEncoding({"disc": [1, 2], "cup": [2]})


def nested_label() -> torch.Tensor:
    label = torch.zeros(1, 20, 20)
    label[:, 4:16, 4:16] = 1
    label[:, 8:12, 8:12] = 2
    return label


def test_regions_are_compared_as_nested_masks() -> None:
    label = nested_label()
    prediction = label.clone()
    prediction[prediction == 2] = 1
    disc, cup = compare_case(prediction.to(torch.uint8), label, ENCODING, case_id="a", domain="x")
    assert (disc.region, disc.dice, disc.asd, disc.asd_unit) == ("disc", 100.0, 0.0, "px")
    assert (cup.region, cup.dice) == ("cup", 0.0)
    assert np.isnan(cup.asd)


def test_distances_of_volumes_are_in_millimetres() -> None:
    volume = nested_label()[..., None].repeat(1, 1, 1, 4)
    shifted = volume.roll(1, dims=1)
    affine = torch.diag(torch.tensor([0.5, 0.5, 3.0, 1.0], dtype=torch.float64))
    fine = compare_case(shifted, MetaTensor(volume, affine=affine), ENCODING, case_id="a", domain="x")[0]
    coarse = compare_case(shifted, MetaTensor(volume, affine=affine * 2), ENCODING, case_id="a", domain="x")[0]
    assert fine.asd_unit == "mm"
    assert coarse.asd == pytest.approx(2 * fine.asd)


def test_other_grids_are_refused_with_the_case() -> None:
    with pytest.raises(ValueError, match=r"case a7: prediction \(1, 20, 20\) and label \(1, 20, 21\)"):
        compare_case(nested_label(), torch.zeros(1, 20, 21), ENCODING, case_id="a7", domain="x")


def test_handler_writes_json_csv_and_metrics(tmp_path: Path) -> None:
    def step(engine: Engine, item: dict[str, str]) -> list[dict[str, torch.Tensor]]:
        engine.state.batch = [item]
        label = nested_label()
        return [{"pred": label if item["domain"] == "home" else torch.zeros_like(label), "label": label}]

    engine = Engine(step)
    handler = DomainEvaluation(
        ENCODING, "home", tmp_path, phase=3, seed=2, facts={"method": "mixstyleflow"}, show_table=False
    )
    handler.attach(engine)
    engine.run([{"case_id": "h1", "domain": "home"}, {"case_id": "f1", "domain": "far"}])
    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert record["source_mean_dice"] == 100.0
    assert record["unseen_mean_dice"] == 0.0
    assert record["method"] == "mixstyleflow"
    assert engine.state.metrics["unseen_dice"] == 0.0
    assert len((tmp_path / "evaluation.csv").read_text().splitlines()) == 5


def test_evaluation_of_other_data_is_not_replaced_unless_asked(tmp_path: Path) -> None:
    def start(facts: dict[str, str], *, replace: bool = False) -> None:
        engine = Engine(lambda engine, item: [])
        DomainEvaluation(ENCODING, "home", tmp_path, phase=3, facts=facts, replace=replace)._start(engine)

    start({"split": "test"})
    (tmp_path / "evaluation.json").write_text('{"split": "test", "dataset_sha256": "abc"}')
    start({"split": "test", "dataset_sha256": "abc"})
    start({"split": "train", "dataset_sha256": "other"}, replace=True)
    with pytest.raises(ValueError, match=r"evaluation\.json: holds another evaluation \(split: was test, now train\)"):
        start({"split": "train", "dataset_sha256": "abc"})
    (tmp_path / "evaluation.json").write_text("[]")
    with pytest.raises(ValueError, match="is no evaluation of one training"):
        start({"split": "test"})
