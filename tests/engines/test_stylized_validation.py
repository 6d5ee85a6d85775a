"""Tests of validation on stylised images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mixstyleflow_monai.data import RegionEncoding, RegionMasksd, SliceDataset, slices
from mixstyleflow_monai.engines import BestModel, PublishModel, StylizedValidation, save_state_dict
from mixstyleflow_monai.engines.stylized_validation import METRIC, check_stylizer, stylized_items
from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.styles import BigAug, ChainedStylizer, FlowStyleMix, MaxStyle, RandConv

POSTPROCESSING = RegionMasksd(RegionEncoding({"blob": [1]}))


def images_of(items: list[dict[str, Tensor]]) -> Tensor:
    return torch.stack([item["image"] for item in items])


def measured(network: Any, dataset: SliceDataset, stylizer: Any, **settings: Any) -> float:
    """The metric that a validation adds to an evaluator's."""
    engine = SimpleNamespace(state=SimpleNamespace(epoch=3, metrics={}))
    StylizedValidation(network, dataset, stylizer, postprocessing=POSTPROCESSING, **settings)(engine)
    assert set(engine.state.metrics) == {METRIC}
    return float(engine.state.metrics[METRIC])


@pytest.fixture
def phase1(network: DualDecoderNet, tmp_path: Path) -> Path:
    save_state_dict(network, tmp_path / "phase1.pt")
    return tmp_path / "phase1.pt"


def test_images_are_the_same_each_time_and_the_stylizer_stays_as_it_was(
    dataset: SliceDataset, network: DualDecoderNet, stylizer: FlowStyleMix
) -> None:
    before = stylizer.generator.get_state()
    stylizer.eval()
    first = stylized_items(dataset, stylizer, network)
    torch.rand(1)
    assert torch.equal(stylizer.generator.get_state(), before)
    assert (stylizer.training, stylizer.probability) == (False, 0.5)
    stylizer.reseed(5)
    second = stylized_items(dataset, stylizer, network)
    assert torch.equal(images_of(first), images_of(second))
    assert not torch.equal(images_of(first), images_of(stylized_items(dataset, stylizer, network, seed=1)))


def test_every_image_is_stylised_whatever_the_chance_in_training_and_labels_stay(
    dataset: SliceDataset, network: DualDecoderNet, stylizer: FlowStyleMix
) -> None:
    rare = ChainedStylizer([FlowStyleMix(stylizer.bank, probability=0.0001, weight_law="uniform")])
    for found, plain in zip(stylized_items(dataset, rare, network), dataset, strict=True):  # type: ignore[call-overload]
        assert found["image"].shape == plain["image"].shape
        assert not torch.allclose(found["image"], plain["image"])
        assert torch.equal(found["label"], plain["label"])


def test_batches_have_styles_of_their_own_and_are_even(dataset: SliceDataset) -> None:
    sizes = []

    def spy(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return images

    stylized_items(dataset, OnImages(spy), batch_size=5)
    assert sizes == [3, 3]
    same = [dataset[3]] * 6
    found = images_of(stylized_items(same, RandConv(mix=False), batch_size=3))  # type: ignore[arg-type]
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[3])


def test_processes_share_the_images_of_one(
    dataset: SliceDataset, network: DualDecoderNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def share() -> list[Tensor]:
        loader = StylizedValidation(network, dataset, RandConv(), batch_size=2).evaluator.data_loader
        return [image for batch in loader for image in batch["image"]]

    whole = share()
    monkeypatch.setattr(slices, "world_size", lambda: 2)
    parts = []
    for number in range(2):
        monkeypatch.setattr(slices, "rank", lambda number=number: number)
        parts.append(share())
    assert len(whole) == len(dataset) == 6
    assert all(torch.equal(whole[k], parts[k % 2][k // 2]) for k in range(6))


def test_painter_is_the_network_of_phase_one_and_not_the_one_in_training(
    dataset: SliceDataset, network: DualDecoderNet, stylizer: FlowStyleMix, phase1: Path
) -> None:
    def images() -> Tensor:
        validation = StylizedValidation(network, dataset, stylizer, painter_path=phase1)
        return torch.cat([batch["image"] for batch in validation.evaluator.data_loader])

    expected = images_of(stylized_items(dataset, stylizer, network))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)
    assert torch.equal(images(), expected)
    assert not torch.equal(images_of(stylized_items(dataset, stylizer, network)), expected)


class OnImages:
    """A function of images as a stylizer without random numbers."""

    needs_latent = False

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def __call__(self, network: None, images: Tensor, latent: Tensor) -> Tensor:
        return self.function(images)


class Threshold(nn.Module):
    """Finds the bright disc of the fixture's images, exactly."""

    def forward(self, images: Tensor) -> Tensor:
        return 10.0 * (images - 0.5)


def test_metric_is_the_dice_on_the_stylised_images(dataset: SliceDataset) -> None:
    encoding, network = RegionEncoding({"blob": [1]}), Threshold()
    assert measured(network, dataset, OnImages(lambda images: images)) == 1.0

    def halved(images: Tensor) -> Tensor:
        """The right half of the disc is lost."""
        half = torch.ones_like(images)
        half[..., 16:] = 0.0
        return images * half

    expected = []
    for item in dataset:  # type: ignore[attr-defined]
        predicted = encoding.probabilities(network(halved(item["image"][None]))) > 0.5
        overlap = 2.0 * float((predicted & (item["label"][None] > 0)).sum())
        if item["label"].any():
            expected.append(overlap / float(predicted.sum() + item["label"].sum()))
    found = measured(network, dataset, OnImages(halved))
    assert found == pytest.approx(sum(expected) / len(expected), abs=1e-6)
    assert found == pytest.approx(2 / 3, abs=1e-6)


@pytest.mark.parametrize(
    ("stylizer", "has_painter", "message"),
    [
        (None, True, r"selection_stylizer, which is null: .*phase 2 with the overlay best_stylized\.json"),
        (None, False, r"selection_stylizer, which is null: .*such as BigAug"),
        ("flows", True, r"selection_stylizer, which is 'flows': expected a component"),
        (MaxStyle(), True, r"MaxStyle makes its images from the loss .*--selection best or last"),
        (ChainedStylizer([BigAug(), MaxStyle()]), True, r"ChainedStylizer makes its images from the loss"),
        (ChainedStylizer([BigAug()]), False, r"ChainedStylizer lets the network of phase 1 decode .*such as BigAug"),
    ],
)
def test_stylizer_that_cannot_paint_is_refused(stylizer: Any, has_painter: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_stylizer(stylizer, has_painter=has_painter)


@pytest.mark.parametrize("stylizer", [None, MaxStyle()])
def test_validation_refuses_before_it_paints(dataset: SliceDataset, stylizer: Any, phase1: Path) -> None:
    with pytest.raises(ValueError, match="selection='best_stylized'"):
        StylizedValidation(DualDecoderNet(1, 1), dataset, stylizer, painter_path=phase1)


def test_best_model_goes_by_the_metric_it_is_given(tmp_path: Path) -> None:
    network = nn.Linear(1, 1)
    best = BestModel(network, tmp_path / "best.pt", METRIC)
    for epoch, (plain, stylised) in enumerate([(0.9, 0.2), (0.5, 0.6), (0.99, 0.1)], start=1):
        nn.init.constant_(network.weight, float(epoch))
        metrics = {"val_mean_dice": plain, METRIC: stylised}
        best(SimpleNamespace(state=SimpleNamespace(key_metric_name="val_mean_dice", metrics=metrics, epoch=epoch)))
    assert best.summary == {"best_metric": 0.6, "best_epoch": 2}
    publish = PublishModel(tmp_path / "m.pt", "segmentation_network", network, best, selection="best_stylized")
    publish(SimpleNamespace(state=SimpleNamespace(epoch=3)))
    assert float(torch.load(tmp_path / "m.pt", weights_only=True)["weight"]) == 2.0


@pytest.mark.parametrize("has_best", [True, False])
def test_selection_on_stylised_images_needs_their_metric(tmp_path: Path, has_best: bool) -> None:
    network = nn.Linear(1, 1)
    best = BestModel(network, tmp_path / "best.pt") if has_best else None
    with pytest.raises(ValueError, match=r"selection='best_stylized': nothing is validated on stylised images here"):
        PublishModel(tmp_path / "m.pt", "segmentation_network", network, best, selection="best_stylized")
