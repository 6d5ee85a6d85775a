"""Averaged weights through the bundles: validated, published, resumed, and not there unless asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.artifacts import read_manifest
from mixstyleflow_monai.engines import SegmentationEvaluator

LATER = ("settings weight_average", "settings selection_stylizer_settings")


def published(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(folder / "models" / "model.pt", weights_only=True)
    return state


def checkpoint(folder: Path) -> tuple[Path, dict[str, Any]]:
    (path,) = (folder / "checkpoints").glob("checkpoint_epoch=*.pt")
    return path, torch.load(path, weights_only=True)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("phase", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_average_is_published_and_leaves_the_training_as_it_is(
    phase: int, chain: Any, train_phase: Callable[..., Path], tmp_path: Path
) -> None:
    options = {"selection": "last", "max_epochs": 2}
    plain = train_phase(phase, chain, output_dir=str(tmp_path / "plain"), **options)
    folder = train_phase(phase, chain, output_dir=str(tmp_path / "average"), weight_average=0.5, **options)
    content, without = checkpoint(folder)[1], checkpoint(plain)[1]
    assert set(without) == {"identity", "model", "optimizer", "lr_scheduler", "best", "trainer"}
    assert set(content) == {*without, "average"}
    assert same(content["model"], without["model"])
    average = {name.removeprefix("module."): value for name, value in content["average"].items()}
    assert int(average.pop("n_averaged")) == 4
    assert same(published(folder), average)
    assert not same(average, content["model"])
    assert same(published(plain), without["model"])
    assert read_manifest(folder / "models" / "model.pt")["settings"]["weight_average"] == 0.5
    assert read_manifest(plain / "models" / "model.pt")["settings"]["weight_average"] == 0.0


@pytest.mark.parametrize("phase", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_resumed_average_is_that_of_an_uninterrupted_training(
    phase: int, chain: Any, train_phase: Callable[..., Path], tmp_path: Path
) -> None:
    options = {"selection": "last", "weight_average": 0.9}
    whole = train_phase(phase, chain, output_dir=str(tmp_path / "whole"), max_epochs=2, **options)
    for epochs in (1, 2, 2):
        parts = train_phase(phase, chain, output_dir=str(tmp_path / "parts"), max_epochs=epochs, **options)
    assert same(published(whole), published(parts))


def test_average_is_what_is_validated(
    chain: Any, train_phase: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    validated: list[dict[str, Tensor]] = []
    original = SegmentationEvaluator.run

    def spy(self: SegmentationEvaluator, *arguments: Any, **options: Any) -> Any:
        validated.append({name: value.clone() for name, value in self.network.state_dict().items()})
        return original(self, *arguments, **options)

    monkeypatch.setattr(SegmentationEvaluator, "run", spy)
    folder = train_phase(1, chain, weight_average=0.5)
    assert len(validated) == 1
    assert same(validated[0], published(folder))
    assert not same(validated[0], checkpoint(folder)[1]["model"])


@pytest.mark.parametrize("phase", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_checkpoint_from_before_the_option_goes_on_with_its_default_and_no_other(
    phase: int, chain: Any, train_phase: Callable[..., Path], user_error: Callable[..., str], tmp_path: Path
) -> None:
    whole = train_phase(phase, chain, output_dir=str(tmp_path / "whole"), max_epochs=2, selection="last")
    parts = {"output_dir": str(tmp_path / "parts"), "selection": "last"}
    path, content = checkpoint(train_phase(phase, chain, **parts))
    for name in LATER:
        del content["identity"][name]
    torch.save(content, path)
    text = user_error(lambda: train_phase(phase, chain, max_epochs=2, weight_average=0.9, **parts))
    assert "settings weight_average: was 0.0, now 0.9" in text
    assert same(published(whole), published(train_phase(phase, chain, max_epochs=2, **parts)))


@pytest.mark.parametrize("phase", [1, 3])
@pytest.mark.parametrize("value", [1.0, -0.5, "slow"])
def test_decay_out_of_its_range_is_refused_before_training(
    phase: int, value: Any, chain: Any, train_phase: Callable[..., Path], user_error: Callable[..., str], tmp_path: Path
) -> None:
    text = user_error(lambda: train_phase(phase, chain, weight_average=value))
    assert f"weight_average={value!r}: expected a decay in [0, 1), such as 0.99" in text
    assert not list(tmp_path.rglob("*.pt"))
