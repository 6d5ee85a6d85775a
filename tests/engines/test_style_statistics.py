"""Tests of gathering channel statistics."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.transforms import Compose
from torch import Tensor

from mixstyleflow_monai.artifacts import write_manifest
from mixstyleflow_monai.data import SliceDataset, TrainingLoader
from mixstyleflow_monai.engines import (
    StyleStatisticsDataset,
    gather_statistics,
    load_gaussian_styles,
    save_state_dict,
    style_statistics_file,
)
from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.flows.style_flow_bank import DEFAULT_TEMPERATURES
from mixstyleflow_monai.networks import DualDecoderNet, untracked_batch_norm


class RandomImage:
    """Transform of {"number": n} to a fixed random image, in place of files."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Tensor]:
        image = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(int(data["number"])))
        return {"image": image, "label": (image > 0.5).to(torch.uint8)}


@pytest.fixture
def loader() -> TrainingLoader:
    data = [{"number": n} for n in range(4)]
    return TrainingLoader(SliceDataset(data, Compose([RandomImage()]), progress=False), 4)


@pytest.fixture
def network() -> DualDecoderNet:
    torch.manual_seed(0)
    return DualDecoderNet(1, 1)


def gather(network: DualDecoderNet, loader: TrainingLoader, **changes: Any) -> dict[int, tuple[Tensor, Tensor]]:
    settings = {"passes": 1, "noise_std": 0.0, "seed": 0, "device": torch.device("cpu"), **changes}
    return gather_statistics(network, loader, settings.pop("levels", (2, 3, 4)), **settings)


def test_statistics_are_those_of_the_levels(network: DualDecoderNet, loader: TrainingLoader) -> None:
    found = gather(network, loader, passes=2)
    assert {level: tuple(mean.shape) for level, (mean, _) in found.items()} == {2: (8, 32), 3: (8, 16), 4: (8, 16)}
    loader.set_epoch(1)
    with torch.no_grad(), untracked_batch_norm(network):
        levels = network.image_levels(network.encode(next(iter(loader))["image"]))
    for level, (mean, std) in found.items():
        features = levels[level].double().flatten(2).numpy()
        torch.testing.assert_close(mean[:4].double(), torch.from_numpy(features.mean(-1)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(std[:4].double(), torch.from_numpy(features.std(-1, ddof=1)), rtol=1e-3, atol=1e-4)


def test_statistics_of_the_image_are_those_of_its_channels(network: DualDecoderNet, loader: TrainingLoader) -> None:
    mean, std = gather(network, loader, levels=(5,))[5]
    loader.set_epoch(1)
    images = next(iter(loader))["image"]
    torch.testing.assert_close(mean[: len(images)], images.mean((2, 3)))
    torch.testing.assert_close(std[: len(images)], images.std((2, 3)), atol=1e-4, rtol=1e-4)


def test_running_statistics_are_those_of_eval_mode(network: DualDecoderNet, loader: TrainingLoader) -> None:
    mean, _ = gather(network, loader, batch_norm="running")[3]
    loader.set_epoch(1)
    images = next(iter(loader))["image"]
    with torch.no_grad():
        frozen = copy.deepcopy(network).eval()
        expected = frozen.image_levels(frozen.encode(images))[3].mean((2, 3))
    torch.testing.assert_close(mean[: len(images)], expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match=r"style_batch_norm='eval': expected one of"):
        gather(network, loader, batch_norm="eval")


def test_gathering_leaves_the_network_as_it_was(network: DualDecoderNet, loader: TrainingLoader) -> None:
    network.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    gather(network, loader)
    assert not any(module.training for module in network.modules())
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_gathering_is_reproducible_and_noise_matters(network: DualDecoderNet, loader: TrainingLoader) -> None:
    first, second = (gather(network, loader, noise_std=0.05)[2][0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(first, gather(network, loader, noise_std=0.05, seed=1)[2][0])


@pytest.mark.parametrize("levels", [(), (6,), (2, 7)])
def test_unknown_levels_are_refused(network: DualDecoderNet, loader: TrainingLoader, levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"levels=.*expected some of 0 \(latent\) to 4"):
        gather(network, loader, levels=levels)


def test_file_is_made_once_and_again_for_other_settings(
    tmp_path: Path, network: DualDecoderNet, loader: TrainingLoader
) -> None:
    model = tmp_path / "model.pt"
    save_state_dict(network, model)
    write_manifest(model, "segmentation_network")
    path = tmp_path / "style_statistics.pt"

    def make(**changes: Any) -> float:
        settings: dict[str, Any] = {
            "levels": (2,),
            "passes": 1,
            "noise_std": 0.0,
            "seed": 0,
            "device": "cpu",
            **changes,
        }
        loaders = {"train": loader, "validation": loader}
        style_statistics_file(path, network=network, network_path=model, loaders=loaders, **settings)
        return path.stat().st_mtime_ns

    first = make()
    assert make() == first
    assert make(passes=2) != first
    dataset = StyleStatisticsDataset(path, "train")
    assert len(dataset) == 8
    assert {key: tuple(value.shape) for key, value in dataset[0].items()} == {"2.mean": (32,), "2.std": (32,)}
    assert len(StyleStatisticsDataset(path, "validation")) == 4
    assert load_gaussian_styles(path, model).batch_norm == "batch"
    make(batch_norm="running")
    bank = load_gaussian_styles(path, model)
    assert (bank.levels, bank.batch_norm) == ((2,), "running")
    assert bank.temperatures == {2: DEFAULT_TEMPERATURES[2]}
    flows = tmp_path / "style_flows.pt"
    StyleFlowBank({2: 32}, {2: 6.0}).save(flows)
    write_manifest(flows, "style_flows", made_from={"network": model})
    assert load_gaussian_styles(path, model, flows_path=flows).temperatures == {2: 6.0}
    other = tmp_path / "other.pt"
    save_state_dict(DualDecoderNet(1, 1), other)
    write_manifest(other, "segmentation_network")
    with pytest.raises(ValueError, match=r"style_statistics\.pt: its styles describe the network"):
        load_gaussian_styles(path, other)
    write_manifest(flows, "style_flows", made_from={"network": other})
    with pytest.raises(ValueError, match=r"style_flows\.pt: its styles describe the network"):
        load_gaussian_styles(path, model, flows_path=flows)


def test_unknown_part_is_refused(tmp_path: Path, network: DualDecoderNet, loader: TrainingLoader) -> None:
    path = tmp_path / "style_statistics.pt"
    torch.save({"train.2.mean": torch.zeros(2, 3), "train.2.std": torch.ones(2, 3)}, path)
    write_manifest(path, "style_statistics")
    with pytest.raises(ValueError, match=r"style_statistics.pt: no part 'validation'"):
        StyleStatisticsDataset(path, "validation")
