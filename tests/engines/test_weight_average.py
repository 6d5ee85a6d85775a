"""Tests of the moving average of the weights."""

from __future__ import annotations

import copy
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from ignite.engine import Engine
from torch import Tensor, nn

from mixstyleflow_monai.engines import AverageWeights, DualDecoderTrainer, WeightAverage, end_processes, place_network
from mixstyleflow_monai.networks import DualDecoderNet
from tests.engines import rank_jobs


def small_network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


def randomise(network: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """New weights, statistics and counters, as a step leaves them; a copy of them."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator))
            else:
                tensor.add_(1)
    return copy.deepcopy(network.state_dict())


@pytest.mark.parametrize("decay", [0.1, 0.5, 0.99, 0.999])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_average_is_the_sum_with_falling_shares_of_weights_and_running_statistics(decay: float, steps: int) -> None:
    network, generator = small_network(), torch.Generator().manual_seed(1)
    averaging = WeightAverage(network, decay)
    seen = []
    for _ in range(steps):
        seen.append(randomise(network, generator))
        averaging.update()
    shares = torch.tensor([decay ** (steps - k) for k in range(1, steps + 1)], dtype=torch.float64)
    shares = shares / shares.sum()
    for name, found in averaging.network.state_dict().items():
        if found.is_floating_point():
            values = torch.stack([state[name].double() for state in seen])
            expected = torch.einsum("k,k...->...", shares, values)
            torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-5)
        else:
            assert torch.equal(found, seen[-1][name])


def test_average_has_tensors_of_its_own() -> None:
    network, generator = small_network(), torch.Generator().manual_seed(1)
    averaging = WeightAverage(network, 0.5)
    for _ in range(3):
        randomise(network, generator)
        averaging.update()
    before = copy.deepcopy(averaging.network.state_dict())
    randomise(network, generator)
    assert all(torch.equal(value, before[name]) for name, value in averaging.network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in averaging.network.parameters())
    assert not averaging.network.training


def test_running_statistics_fit_the_averaged_weights() -> None:
    """Weights go to and fro; only averaged statistics normalise what averaged weights give."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, momentum=1.0, affine=False))
    images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    averaging = WeightAverage(network, 0.99)
    for step in range(100):
        nn.init.constant_(network[0].weight, 1.0 + 2.0 * (step % 2))  # type: ignore[arg-type]
        network.train()(images)
        averaging.update()
    with torch.no_grad():
        assert float(averaging.network(images).mean()) == pytest.approx(0.0, abs=0.02)
        averaging.network[1].load_state_dict(network[1].state_dict())  # type: ignore[index]
        assert abs(float(averaging.network(images).mean())) > 0.3


def test_skipped_step_does_not_count() -> None:
    network, generator = small_network(), torch.Generator().manual_seed(1)
    averaging = WeightAverage(network, 0.5)
    randomise(network, generator)
    averaging.update()
    before = copy.deepcopy(averaging.network.state_dict())
    randomise(network, generator)
    AverageWeights(averaging)(SimpleNamespace(skipped_steps=1))
    assert all(torch.equal(value, before[name]) for name, value in averaging.network.state_dict().items())
    AverageWeights(averaging)(SimpleNamespace(skipped_steps=0))
    assert not torch.equal(averaging.network.state_dict()["0.weight"], before["0.weight"])


def test_without_averaging_it_is_the_network_itself_and_nothing_is_attached_or_kept() -> None:
    network = small_network()
    averaging = WeightAverage(network)
    engine = SimpleNamespace(add_event_handler=lambda *_: pytest.fail("attached"))
    AverageWeights(averaging).attach(engine)  # type: ignore[arg-type]
    averaging.update()
    assert averaging.network is network
    assert averaging.checkpointed == {}


def test_average_goes_on_from_its_state_bit_by_bit() -> None:
    network, generator = small_network(), torch.Generator().manual_seed(1)
    whole, first = WeightAverage(network, 0.9), WeightAverage(network, 0.9)
    states = [randomise(network, generator) for _ in range(5)]
    for state in states:
        network.load_state_dict(state)
        whole.update()
    for state in states[:2]:
        network.load_state_dict(state)
        first.update()
    second = WeightAverage(network, 0.9)
    second.checkpointed["average"].load_state_dict(copy.deepcopy(first.checkpointed["average"].state_dict()))
    for state in states[2:]:
        network.load_state_dict(state)
        second.update()
    expected = whole.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in second.network.state_dict().items())


def test_average_is_updated_each_step_before_an_epoch_ends() -> None:
    network = small_network()
    averaging = WeightAverage(network, 0.5)
    engine = Engine(lambda engine, batch: None)
    AverageWeights(averaging).attach(engine)
    numbers: list[int] = []
    average = averaging.checkpointed["average"]
    engine.add_event_handler("EPOCH_COMPLETED", lambda: numbers.append(int(average.n_averaged)))  # type: ignore[arg-type]
    engine.run([0, 1, 2], max_epochs=2)
    assert numbers == [3, 6]


def test_memory_format_is_that_of_the_network() -> None:
    network = place_network(DualDecoderNet(3, 1), "cpu", channels_last=True)
    averaging = WeightAverage(network, 0.5)
    for _ in range(2):
        averaging.update()
    pairs = zip(averaging.network.parameters(), network.parameters(), strict=True)
    assert all(own.stride() == other.stride() for own, other in pairs)


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan"), "often", True, None])
def test_decay_out_of_its_range_is_refused(decay: Any) -> None:
    with pytest.raises(ValueError, match=r"weight_average=.*expected a decay in \[0, 1\), such as 0\.99"):
        WeightAverage(small_network(), decay)


def train_in_processes(number: int, processes: int, folder: str) -> None:
    """Train a few steps as one of several processes; save the average and what it should be."""
    torch.set_num_threads(1)
    place = Path(folder)
    dist.init_process_group(
        "gloo", init_method=f"file://{place}/store", rank=number, world_size=processes, timeout=timedelta(minutes=3)
    )
    network = rank_jobs.make_network(seed=number)
    averaging = WeightAverage(network, 0.5)
    trainer = DualDecoderTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=rank_jobs.make_loader(2, epoch_length=2),
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), lr=1e-3),
        loss_function=rank_jobs.SegmentationLoss(),
        train_handlers=[AverageWeights(averaging)],
    )
    seen: list[dict[str, Tensor]] = []
    trainer.add_event_handler("ITERATION_STARTED", lambda: seen.append(copy.deepcopy(network.state_dict())))
    trainer.run()
    seen.append(copy.deepcopy(network.state_dict()))
    end_processes()
    torch.save({"average": averaging.network.state_dict(), "seen": seen}, place / f"{number}.pt")


@pytest.mark.slow
def test_average_is_the_same_in_all_processes(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(train_in_processes, (2, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in range(2))
    assert all(torch.equal(value, second["average"][name]) for name, value in first["average"].items())
    shares = torch.tensor([1.0, 2.0, 4.0, 8.0]) / 15.0
    for name, found in first["average"].items():
        if found.is_floating_point():
            # Between two epochs, statistics are each process's own; the average is that of their mean.
            means = [(a[name] + b[name]) / 2 for a, b in zip(first["seen"][1:], second["seen"][1:], strict=True)]
            torch.testing.assert_close(found, torch.einsum("k,k...->...", shares, torch.stack(means)))


def test_every_tensor_of_the_average_is_on_the_networks_device() -> None:
    """NCCL broadcasts nothing that is on the CPU, the counter of the average included."""
    averaging = WeightAverage(small_network().to("meta"), 0.9)
    tensors = averaging.checkpointed["average"].state_dict()
    assert "n_averaged" in tensors
    assert {tensor.device.type for tensor in tensors.values()} == {"meta"}
