"""How the learning rate runs over a training."""

from __future__ import annotations

from monai.optimizers import WarmupCosineSchedule
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

SCHEDULES = ("constant", "cosine")


def check_schedule(name: object) -> None:
    """Refuse what is no schedule.

    Raises:
        ValueError: an unknown name.
    """
    if name not in SCHEDULES:
        raise ValueError(f"lr_schedule={name!r}: expected one of {', '.join(map(repr, SCHEDULES))}.")


def learning_rate_schedule(optimizer: Optimizer, name: str, steps: int) -> LambdaLR:
    """Return a schedule to be stepped after every optimizer step.

    Args:
        optimizer: whose learning rate is the first one.
        name: "constant" (the paper and the published code), or "cosine", which falls to zero at the last step. Weights
            settle then, so that neighbouring checkpoints of one training are alike.
        steps: of the whole training.

    Raises:
        ValueError: no such schedule, or no steps.
    """
    check_schedule(name)
    if steps < 1:
        raise ValueError(f"a schedule of {steps} steps: max_epochs and epoch_length must be at least 1.")
    if name == "constant":
        return LambdaLR(optimizer, lambda _: 1.0)
    return WarmupCosineSchedule(optimizer, warmup_steps=0, t_total=steps)
