"""Stylizers and reports where images are z-scored and the image decoder ends in an instance norm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import instance_norm

from mixstyleflow_monai.data import RegionEncoding
from mixstyleflow_monai.engines import StyleFlowReport
from mixstyleflow_monai.engines.style_statistics import gather_statistics
from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.styles import IMAGE_LEVEL, DrawnStyle, FlowStyleMix, LevelStyle

CHANNELS = {2: 32, 3: 16, 4: 16}
Make = Callable[..., Any]


@pytest.fixture
def network() -> DualDecoderNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DualDecoderNet(3, 1, image_activation="instance_norm").train()


@pytest.fixture
def images(make_images: Make) -> Tensor:
    return instance_norm(make_images(3, 3))


def is_z_scored(images: Tensor) -> bool:
    mean, std = images.mean((2, 3)), images.std((2, 3), correction=0)
    return bool((mean.abs() < 1e-4).all() and ((std - 1).abs() < 1e-2).all())


@pytest.mark.parametrize("output", ["detail", "low_frequency", "decoded"])
def test_hard_examples_are_z_scored_as_well(
    output: str, network: DualDecoderNet, images: Tensor, make_bank: Make, encode: Make
) -> None:
    hard = FlowStyleMix(make_bank(CHANNELS), probability=1.0, output=output)(network, images, encode(network, images))
    assert is_z_scored(hard)
    assert float(hard.min()) < -0.5  # not clipped at 0
    assert float((hard - images).abs().max()) > 0.05


def test_style_of_the_image_itself_is_refused(network: DualDecoderNet, images: Tensor, encode: Make) -> None:
    ones = torch.ones(3, 3)
    style = DrawnStyle({IMAGE_LEVEL: LevelStyle(ones, ones, ones[:, :1])})
    with pytest.raises(ValueError, match="level 5: z-scored images all have the same statistics"):
        FlowStyleMix(SimpleBank()).stylize(network, images, encode(network, images), style)
    with pytest.raises(ValueError, match=r"levels=\[2, 5\]: 5 is the image itself, and z-scored images all have"):
        gather_statistics(network, [], [2, 5], passes=1, noise_std=0.0, seed=0, device=torch.device("cpu"))  # type: ignore[arg-type]


class SimpleBank(torch.nn.Module):
    """A bank that is not drawn from."""

    levels = (IMAGE_LEVEL,)

    def sample(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


def test_report_measures_and_shows_them_in_the_unit_range(
    network: DualDecoderNet, images: Tensor, make_bank: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, Tensor] = {}
    monkeypatch.setattr(
        "mixstyleflow_monai.engines.style_report.save_panel", lambda path, rows, **options: shown.update(rows)
    )
    network.decode_image = lambda latent, hook=None: images  # type: ignore[method-assign]
    dataset: Any = [{"image": image, "label": (image[:1] > 0).to(torch.uint8)} for image in images]
    statistics = {k: (torch.randn(9, c), 0.5 + torch.rand(9, c)) for k, c in CHANNELS.items()}
    engine = SimpleNamespace(state=SimpleNamespace(metrics={}))
    report = StyleFlowReport(
        make_bank(CHANNELS), network, dataset, RegionEncoding({"blob": [1]}), tmp_path, statistics=statistics
    )
    report(engine)
    # A perfect reconstruction: the measure's ceiling of 100 dB.
    assert json.loads((tmp_path / "style_report.json").read_text())["reconstruction_psnr"] == pytest.approx(100.0)
    assert float(shown["image"].min()) == 0.0
    assert float(shown["image"].max()) == pytest.approx(1.0)
    assert list(shown)[:2] == ["image", "reconstruction"]
