"""Tests of fitting the flows to statistics."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mixstyleflow_monai.artifacts import write_manifest
from mixstyleflow_monai.engines import (
    EpochSeeding,
    StyleFlowEvaluator,
    StyleFlowTrainer,
    StyleStatisticsDataset,
    StyleStatisticsLoader,
    mean_log_likelihood,
)
from mixstyleflow_monai.flows import StyleFlowBank


@pytest.fixture
def dataset(tmp_path: Path) -> StyleStatisticsDataset:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(4, 4, generator=generator)
    tensors = {
        f"train.{level}.{name}": offset + torch.randn(256, 4, generator=generator) @ mixing * 0.1
        for level in (2, 3)
        for name, offset in (("mean", -0.5), ("std", 3.0))
    }
    torch.save(tensors, tmp_path / "style_statistics.pt")
    write_manifest(tmp_path / "style_statistics.pt", "style_statistics")
    return StyleStatisticsDataset(tmp_path / "style_statistics.pt", "train")


def make_trainer(dataset: StyleStatisticsDataset, bank: StyleFlowBank, epochs: int) -> StyleFlowTrainer:
    return StyleFlowTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=StyleStatisticsLoader(dataset, 64, shuffle=True),
        network=bank,
        optimizer=torch.optim.AdamW(bank.parameters(), lr=5e-3),
        train_handlers=[EpochSeeding()],
    )


def log_likelihood(dataset: StyleStatisticsDataset, bank: StyleFlowBank) -> float:
    evaluator = StyleFlowEvaluator(
        device=torch.device("cpu"),
        val_data_loader=StyleStatisticsLoader(dataset, len(dataset), shuffle=False),
        network=bank,
        key_val_metric={"val_log_likelihood": mean_log_likelihood()},
    )
    evaluator.run()
    return float(evaluator.state.metrics["val_log_likelihood"])


def test_training_starts_from_all_rows(dataset: StyleStatisticsDataset) -> None:
    bank = StyleFlowBank({2: 4, 3: 4}, {2: 2.0, 3: 2.0})
    make_trainer(dataset, bank, 1).run()
    for level, (mean, _) in dataset.statistics.items():
        torch.testing.assert_close(bank.flow(level, "mean").channel_min, mean.amin(0))
        torch.testing.assert_close(bank.flow(level, "mean").channel_max, mean.amax(0))


@pytest.mark.parametrize("joint", [False, True])
def test_training_raises_the_likelihood(dataset: StyleStatisticsDataset, joint: bool) -> None:
    bank = StyleFlowBank({2: 4, 3: 4}, {2: 2.0, 3: 2.0}, joint_statistics=joint)
    bank.initialize(dataset.statistics)
    start = log_likelihood(dataset, bank)
    make_trainer(dataset, bank, 10).run()
    assert log_likelihood(dataset, bank) > start + 0.1


@pytest.mark.parametrize(("joint", "flows", "dimensions"), [(False, 4, 4), (True, 2, 8)])
def test_likelihood_is_the_mean_over_flows_a_dimension(
    dataset: StyleStatisticsDataset, joint: bool, flows: int, dimensions: int
) -> None:
    bank = StyleFlowBank({2: 4, 3: 4}, {2: 2.0, 3: 2.0}, joint_statistics=joint)
    bank.initialize(dataset.statistics)
    with torch.no_grad():
        losses = bank.negative_log_likelihood(dataset.statistics)
    assert len(losses) == flows
    expected = -sum(float(loss) for loss in losses.values()) / flows / dimensions
    assert log_likelihood(dataset, bank) == pytest.approx(expected, rel=1e-5)


def test_likelihoods_of_one_and_of_two_flows_a_level_can_be_compared(dataset: StyleStatisticsDataset) -> None:
    """Before training all are Gaussians a channel: the same density of the same numbers."""
    values = []
    for joint in (False, True):
        bank = StyleFlowBank({2: 4, 3: 4}, {2: 2.0, 3: 2.0}, joint_statistics=joint)
        bank.initialize(dataset.statistics)
        values.append(log_likelihood(dataset, bank))
    assert values[0] == pytest.approx(values[1], rel=1e-4)


@pytest.mark.parametrize("joint", [False, True])
def test_each_flow_is_clipped_on_its_own(dataset: StyleStatisticsDataset, joint: bool) -> None:
    bank = StyleFlowBank({2: 4, 3: 4}, {2: 2.0, 3: 2.0}, joint_statistics=joint)
    trainer = make_trainer(dataset, bank, 1)
    trainer.gradient_clip = 1e-3
    trainer.run()
    for flow in bank.flows():
        gradients = [p.grad for p in flow.parameters() if p.grad is not None]
        assert float(torch.nn.utils.get_total_norm(gradients)) <= 1.001e-3


def test_same_seed_gives_the_same_flows(dataset: StyleStatisticsDataset) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        bank = StyleFlowBank({2: 4, 3: 4}, {2: 2.0, 3: 2.0})
        make_trainer(dataset, bank, 2).run()
        states.append(bank.state_dict())
    for key, value in states[0].items():
        torch.testing.assert_close(value, states[1][key], rtol=0, atol=0)
