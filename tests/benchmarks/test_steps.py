"""Steps that are timed are steps of a real training."""

from __future__ import annotations

import pytest
import torch

from benchmarks.steps import WARM_UP, Setting, run_steps
from mixstyleflow_monai.networks import DualDecoderNet


@pytest.mark.parametrize("styled", [False, True])
def test_every_step_is_seen_and_those_after_the_warm_up_are_timed(styled: bool) -> None:
    numbers: list[int] = []
    networks: set[DualDecoderNet] = set()

    def after(number: int, network: DualDecoderNet) -> None:
        numbers.append(number)
        networks.add(network)

    with torch.random.fork_rng():
        seen = run_steps(
            torch.device("cpu"),
            Setting(),
            steps=3,
            size=32,
            batch_size=4,
            styled=styled,
            learning_rate=0.0,
            after=after,
        )
    assert numbers == [1, 2, 3]
    assert len(seen.losses) == 3
    assert len(seen.seconds) == len(seen.cpu_seconds) == 3 - WARM_UP
    assert seen.median > 0
    (network,) = networks
    assert set(seen.gradients) == {name for name, _ in network.named_parameters()}
    # Those of the first step alone: the gradients of the last are still in the network.
    assert not all(
        torch.equal(seen.gradients[name], p.grad) for name, p in network.named_parameters() if p.grad is not None
    )
