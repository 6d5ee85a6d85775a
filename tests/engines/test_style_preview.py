"""Tests of previews of styles."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from mixstyleflow_monai.data import RegionEncoding, SliceDataset
from mixstyleflow_monai.data.transforms import StandardizeSlicesd
from mixstyleflow_monai.engines import StylePreview, style_preview
from mixstyleflow_monai.engines.style_preview import batch_dice, choose_slices, stylised_rows
from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.styles import BigAug, ChainedStylizer, FlowStyleMix, RandConv, RandomStylizer
from mixstyleflow_monai.styles.combined import CombinedStylizer

ENCODING = RegionEncoding({"blob": [1]})


def engine_at(epoch: int, last: int) -> Any:
    return SimpleNamespace(state=SimpleNamespace(epoch=epoch, max_epochs=last, metrics={}))


def test_only_slices_with_foreground_are_chosen(dataset: SliceDataset) -> None:
    images, target = choose_slices(dataset, 3, torch.device("cpu"))
    assert images.shape == (3, 1, 32, 32)
    assert bool(target.flatten(1).any(1).all())


@pytest.mark.parametrize(("total", "count", "last"), [(31, 16, 29), (47, 16, 44), (5, 16, 4), (16, 16, 15)])
def test_slices_are_spread_over_the_whole_data_set(total: int, count: int, last: int) -> None:
    label = torch.eye(2)[None]
    items = [{"image": torch.full((1, 2, 2), float(k)), "label": label} for k in range(total)]
    images, _ = choose_slices(items, count, torch.device("cpu"))  # type: ignore[arg-type]
    numbers = [int(value) for value in images[:, 0, 0, 0]]
    assert len(numbers) == min(total, count) == len(set(numbers))
    assert (numbers[0], numbers[-1]) == (0, last)
    gaps = [b - a for a, b in pairwise(numbers)]
    assert max(gaps) - min(gaps) <= 1


def test_dice_of_perfect_and_of_empty_predictions() -> None:
    target = torch.zeros(2, 1, 8, 8)
    target[0, 0, :4] = 1
    perfect = torch.nn.Identity()
    assert batch_dice(perfect, target * 20 - 10, target, ENCODING) == 100.0
    assert batch_dice(perfect, torch.full_like(target, -10.0), target, ENCODING) == 50.0


def test_preview_without_flows_measures_the_reconstruction(
    tmp_path: Path, dataset: SliceDataset, network: DualDecoderNet
) -> None:
    engine = engine_at(2, 10)
    preview = StylePreview(network, dataset, ENCODING, tmp_path, interval=2)
    preview(engine)
    assert set(engine.state.metrics) == {"reconstruction_psnr"}
    with Image.open(tmp_path / "panels" / "epoch_0002.png") as panel:
        assert min(panel.size) > 100
    preview(engine_at(3, 10))
    assert len(list((tmp_path / "panels").iterdir())) == 1
    preview(engine_at(3, 3))
    assert (tmp_path / "panels" / "epoch_0003.png").is_file()


def test_z_scored_images_are_shown_and_measured_in_the_unit_range(
    tmp_path: Path, dataset: SliceDataset, stylizer: FlowStyleMix, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = DualDecoderNet(1, 1, image_activation="instance_norm")
    preview = StylePreview(network, dataset, ENCODING, tmp_path, stylizer=stylizer)
    preview.images = StandardizeSlicesd("image")({"image": preview.images.flatten(0, 1)})["image"].view_as(
        preview.images
    )
    assert float(preview.images.amin()) < -0.2
    judged: list[Tensor] = []
    monkeypatch.setattr(style_preview, "batch_dice", lambda network, images, *_: judged.append(images) or 50.0)
    numbers, rows = preview.measure()
    assert (float(rows["image"].amin()), float(rows["image"].amax())) == (0.0, 1.0)
    error = (rows["reconstruction"] - rows["image"]).square().flatten(1).mean(1)
    assert numbers["reconstruction_psnr"] == pytest.approx(float((-10 * error.log10()).mean()), rel=1e-5)
    # Anatomy is judged on what the network is used to.
    assert torch.equal(judged[0], preview.images)
    low, high = preview.images.amin((2, 3), keepdim=True), preview.images.amax((2, 3), keepdim=True)
    torch.testing.assert_close(rows["out of domain"], (judged[1] - low) / (high - low))


def test_preview_with_flows_judges_with_the_network_it_started_from(
    tmp_path: Path, dataset: SliceDataset, network: DualDecoderNet, stylizer: FlowStyleMix
) -> None:
    preview = StylePreview(network, dataset, ENCODING, tmp_path, stylizer=stylizer)
    first, rows = preview.measure()
    assert set(first) == {"reconstruction_psnr", "plain_dice", "stylised_dice"}
    assert list(rows) == ["image", "reconstruction", "in domain", "out of domain"]
    with torch.no_grad():
        for parameter in network.segmentation_decoder.parameters():
            parameter.zero_()
    second, _ = preview.measure()
    assert second["plain_dice"] == first["plain_dice"]


def test_preview_changes_neither_network_nor_stylizer(
    tmp_path: Path, dataset: SliceDataset, network: DualDecoderNet, stylizer: FlowStyleMix
) -> None:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = stylizer.generator.get_state()
    StylePreview(network, dataset, ENCODING, tmp_path, stylizer=stylizer).measure()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    assert torch.equal(stylizer.generator.get_state(), state)
    assert stylizer.temperatures == {}


@pytest.mark.parametrize("kind", [ChainedStylizer, RandomStylizer])
def test_parts_of_a_combined_stylizer_are_seeded_and_left_as_they_were(
    kind: type[CombinedStylizer], network: DualDecoderNet
) -> None:
    combined = kind([BigAug(), RandConv()], seed=3)
    states = [part.generator.get_state() for part in (combined, *combined.stylizers)]
    images = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        first, second = (stylised_rows(combined, network, images, network.encode(images), seed=7) for _ in range(2))
    assert torch.equal(first["hard examples"], second["hard examples"])
    assert not torch.equal(first["hard examples"], images)
    for part, state in zip((combined, *combined.stylizers), states, strict=True):
        assert torch.equal(part.generator.get_state(), state)


def test_out_of_domain_styles_are_wider(network: DualDecoderNet, stylizer: FlowStyleMix) -> None:
    images = torch.rand(16, 1, 32, 32)
    with torch.no_grad():
        rows = stylised_rows(stylizer, network, images, network.encode(images))
    moved = {name: float((row - images).abs().mean()) for name, row in rows.items()}
    assert moved["out of domain"] > moved["in domain"] > 0


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"reconstruction_psnr": 5.0}, "reconstruction PSNR 5.0 dB is below"),
        ({"reconstruction_psnr": float("nan")}, "is not finite: training diverged. Look at"),
        ({"reconstruction_psnr": 35.0, "plain_dice": 90.0, "stylised_dice": 40.0}, "Dice of 40.0 on stylised images"),
        ({"reconstruction_psnr": 35.0, "plain_dice": 90.0, "stylised_dice": 80.0}, ""),
    ],
)
def test_poor_styles_are_reported(
    tmp_path: Path,
    dataset: SliceDataset,
    network: DualDecoderNet,
    caplog: pytest.LogCaptureFixture,
    numbers: dict[str, float],
    expected: str,
) -> None:
    engine = engine_at(1, 1)
    engine.state.metrics.update(numbers)
    with caplog.at_level(logging.WARNING):
        StylePreview(network, dataset, ENCODING, tmp_path).warn_if_poor(engine)
    assert expected in caplog.text
    assert bool(expected) == bool(caplog.text)
