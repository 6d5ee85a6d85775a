"""An exponential moving average of the weights, kept beside the network that trains."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from mixstyleflow_monai.engines.distributed import average_buffers, begin_together


class WeightAverage:
    """Average the weights over the steps of a training; the averaged network is validated and published.

    After n steps the averaged weights are sum_k d^(n-k) theta_k / sum_k d^(n-k), k = 1 ... n, with the decay d. The
    division is the bias correction of Adam: the first steps count as an ordinary mean, and what the network was before
    its first step, random weights perhaps, has no share.

    Running statistics of batch norm are averaged with the same shares. They follow the batches of the last ten steps or
    so, seen by the weights of those steps; beside weights that are a mean over many more steps, their mean over the
    same steps fits, and the last ones alone do not. Counters are copied.

    In several processes the weights are the same everywhere, the running statistics are each process's own until the
    end of an epoch. They are linear in what they follow, so that their mean over the processes then is the average of
    the means (`mixstyleflow_monai.engines.distributed.average_buffers`).

    Args:
        network: in training, where it computes; its copy is on the same device, in the same memory format.
        decay: d in [0, 1) an optimizer step, such as 0.99, which is a mean over about the last 100 steps. At 0 nothing
            is averaged, and `network` is the one in training itself.

    References:
        Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018
        Arpit et al., Ensemble of Averages: Improving Model Selection and Boosting Performance in Domain Generalization,
        NeurIPS 2022

    Raises:
        ValueError: decay out of its range.
    """

    def __init__(self, network: nn.Module, decay: float = 0.0) -> None:
        number = isinstance(decay, (int, float)) and not isinstance(decay, bool)
        if not number or not 0.0 <= decay < 1.0:
            raise ValueError(
                f"weight_average={decay!r}: expected a decay in [0, 1), such as 0.99 for a mean over about the last "
                "100 steps; 0 averages nothing."
            )
        self.trained = network
        self.decay = float(decay)
        self.average: AveragedModel | None = None
        if self.decay > 0.0:
            # Without a device its counter would stay on the CPU, where NCCL cannot broadcast it.
            device = next((parameter.device for parameter in network.parameters()), None)
            self.average = AveragedModel(network, device=device, multi_avg_fn=self._mix, use_buffers=True)
            self.average.eval().requires_grad_(False)

    @property
    def network(self) -> nn.Module:
        """The averaged network in eval mode; without averaging the one in training."""
        return self.trained if self.average is None else self.average.module

    @property
    def checkpointed(self) -> dict[str, nn.Module]:
        """What a checkpoint must hold for the average to go on exactly; nothing without averaging."""
        return {} if self.average is None else {"average": self.average}

    def update(self) -> None:
        """Take the weights as they are now, after a step, into the average."""
        if self.average is not None:
            self.average.update_parameters(self.trained)

    @torch.no_grad()
    def _mix(self, averaged: Any, current: Any, number: Tensor | int) -> None:
        """Move tensors of one type towards those of the network, which is the one after ``number`` others."""
        if not torch.is_floating_point(averaged[0]):
            torch._foreach_copy_(averaged, current)
            return
        share = (1.0 - self.decay) / (1.0 - self.decay ** (int(number) + 1))
        torch._foreach_lerp_(averaged, current, share)


class AverageWeights:
    """Update a `WeightAverage` after each step of a trainer. A step skipped for its gradients does not count.

    Args:
        average: to update; one that averages nothing is left alone.
    """

    def __init__(self, average: WeightAverage) -> None:
        self.average = average

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, after what loads checkpoints and before validation."""
        if self.average.checkpointed:
            engine.add_event_handler(Events.STARTED, self._begin)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)

    def __call__(self, engine: Any) -> None:
        """Update, unless the trainer skipped this step."""
        if not getattr(engine, "skipped_steps", 0):
            self.average.update()

    def _begin(self, engine: Any) -> None:
        begin_together(self.average.checkpointed["average"], engine.state.epoch)

    def _end_epoch(self) -> None:
        average_buffers(self.average.checkpointed["average"])
