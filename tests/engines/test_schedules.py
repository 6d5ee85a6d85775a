"""The learning rate over a training."""

from __future__ import annotations

import math

import pytest
import torch

from mixstyleflow_monai.engines import learning_rate_schedule


def rates(name: str, steps: int) -> list[float]:
    """Learning rate of each step, and the one after the last."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=0.01)
    schedule = learning_rate_schedule(optimizer, name, steps)
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [*values, optimizer.param_groups[0]["lr"]]


def test_constant_learning_rate_stays() -> None:
    assert rates("constant", 7) == [0.01] * 8


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_cosine_learning_rate_falls_from_the_first_to_zero(steps: int) -> None:
    expected = [0.01 * 0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(steps + 1)]
    assert rates("cosine", steps) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "steps", "text"), [("linear", 5, "'constant', 'cosine'"), ("cosine", 0, "max_epochs")]
)
def test_wrong_schedule_is_refused(name: str, steps: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        rates(name, steps)
