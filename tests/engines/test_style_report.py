"""Tests of the report on fitted flows."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.data import RegionEncoding, SliceDataset
from mixstyleflow_monai.engines import StyleFlowReport, StylePanels, style_report
from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.styles import FlowStyleMix

README = Path(__file__).resolve().parents[2] / "bundles" / "phase2_style_flows" / "docs" / "README.md"


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
    explained = README.read_text(encoding="utf-8")
    for name in {*report, *level} - {"levels"}:
        assert f"`{name}`" in explained or "temperature_3.5" in name


def test_report_of_joint_flows_has_their_likelihood_a_dimension(
    tmp_path: Path, dataset: SliceDataset, network: DualDecoderNet, statistics: dict[int, tuple[Tensor, Tensor]]
) -> None:
    bank = StyleFlowBank(joint_statistics=True)
    bank.initialize(statistics)
    engine = SimpleNamespace(state=SimpleNamespace(metrics={}))
    StyleFlowReport(bank, network, dataset, RegionEncoding({"blob": [1]}), tmp_path, statistics=statistics)(engine)
    level = json.loads((tmp_path / "style_report.json").read_text())["levels"]["2"]
    with torch.no_grad():
        loss = bank.negative_log_likelihood({2: statistics[2]})[2, "joint"]
    assert level["nll_joint_nats_a_dimension"] == pytest.approx(float(loss) / 64, rel=1e-4)
    assert not [name for name in level if name.startswith(("nll_mean", "nll_spread"))]
    assert "`nll_joint_nats_a_dimension`" in README.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("cases", "seed", "name"),
    [
        ({}, 0, "styles_0003_seed0.png"),
        ({"case_id": ["a17", "b 03/x"]}, 0, "styles_0003_a17_to_b_03_x_seed0.png"),
        ({"case_id": ["a17", "a17"]}, 4, "styles_0003_a17_seed4.png"),
        ({"case_id": ["n" * 60, "a"]}, 0, f"styles_0003_{'n' * 18}...{'n' * 18}_to_a_seed0.png"),
    ],
)
def test_panels_are_named_by_number_cases_and_seed(
    cases: dict[str, list[str]],
    seed: int,
    name: str,
    tmp_path: Path,
    network: DualDecoderNet,
    stylizer: FlowStyleMix,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    titles: list[list[str]] = []
    save = style_report.save_panel

    def keep(*arguments: Any, column_titles: list[str], **options: Any) -> None:
        titles.append(column_titles)
        save(*arguments, column_titles=column_titles, **options)

    monkeypatch.setattr(style_report, "save_panel", keep)
    image = torch.rand(2, 1, 32, 32)
    state = SimpleNamespace(iteration=3, output={"image": image}, batch={"image": image, **cases})
    StylePanels(stylizer, network, tmp_path, seed=seed)(SimpleNamespace(state=state))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [title[:3] for title in titles[0]] == [case[:3] for case in cases.get("case_id", [])]
    assert all(len(title) <= 22 for title in titles[0])


def test_numbers_that_are_none_are_written_as_null_and_told(
    tmp_path: Path,
    dataset: SliceDataset,
    network: DualDecoderNet,
    stylizer: FlowStyleMix,
    statistics: dict[int, tuple[Tensor, Tensor]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    far = torch.full((1000, 32), 1e30)
    far[::2] *= -1  # whose squares are beyond a float
    monkeypatch.setattr(StyleFlowBank, "sample", lambda *_, **__: (far, far * float("inf")))
    bank, encoding = stylizer.bank, RegionEncoding({"blob": [1]})
    handler = StyleFlowReport(bank, network, dataset, encoding, tmp_path, statistics=statistics)
    level = style_report._finite(handler._level(2), 2)
    assert level["spread_of_means_temperature_1"] is not None
    assert level["spread_of_means_temperature_1"] > 1e29
    assert level["spread_of_stds_temperature_1"] is None
    assert "level 2: spread_of_stds_temperature_1" in caplog.text
    assert "clip_to_envelope" in caplog.text
