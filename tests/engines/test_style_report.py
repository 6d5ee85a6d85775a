"""Tests of the report on fitted flows."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.data import RegionEncoding, SliceDataset
from mixstyleflow_monai.engines import StyleFlowReport, StylePanels
from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.styles import FlowStyleMix


def test_report_has_likelihoods_spreads_and_the_fate_of_the_anatomy(
    tmp_path: Path,
    dataset: SliceDataset,
    network: DualDecoderNet,
    stylizer: FlowStyleMix,
    statistics: dict[int, tuple[Tensor, Tensor]],
) -> None:
    engine = SimpleNamespace(state=SimpleNamespace(metrics={}))
    encoding = RegionEncoding({"blob": [1]})
    StyleFlowReport(stylizer.bank, network, dataset, encoding, tmp_path, statistics=statistics)(engine)
    report = json.loads((tmp_path / "style_report.json").read_text())
    assert set(report["levels"]) == {"2", "3", "4"}
    level = report["levels"]["2"]
    assert level["spread_of_means_temperature_3.5"] > level["spread_of_means_temperature_1"]
    with torch.no_grad():
        loss = stylizer.bank.negative_log_likelihood({2: statistics[2]})[2, "mean"]
    assert level["nll_mean_nats_a_dimension"] == pytest.approx(float(loss) / 32, rel=1e-4)
    assert {"reconstruction_psnr", "plain_dice", "in_domain_dice", "stylised_dice"} <= set(engine.state.metrics)
    assert (tmp_path / "panels" / "styles.png").is_file()


def test_panels_are_numbered_by_batch(tmp_path: Path, network: DualDecoderNet, stylizer: FlowStyleMix) -> None:
    engine = SimpleNamespace(state=SimpleNamespace(iteration=3, output={"image": torch.rand(2, 1, 32, 32)}))
    StylePanels(stylizer, network, tmp_path)(engine)
    assert [path.name for path in tmp_path.iterdir()] == ["styles_0003.png"]
