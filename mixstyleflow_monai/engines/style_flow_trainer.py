"""Phase II, second half: fit the flows to the gathered statistics."""

from __future__ import annotations

import logging
from typing import Any

import torch
from ignite.engine import Events
from ignite.metrics import Average
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor

from mixstyleflow_monai.data import EpochOrder
from mixstyleflow_monai.engines.style_statistics import Statistics, StyleStatisticsDataset
from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.processes import world_size

logger = logging.getLogger(__name__)


def statistics_of(batch: dict[str, Tensor], device: str | torch.device) -> Statistics:
    """Return a batch of `StyleStatisticsDataset` items as level -> (mean, std) on a device."""
    levels = sorted({int(key.split(".")[0]) for key in batch})
    return {level: (batch[f"{level}.mean"].to(device), batch[f"{level}.std"].to(device)) for level in levels}


class StyleStatisticsLoader(DataLoader):
    """Batches of statistics rows in an order that depends on seed and epoch alone, or as they are in the file."""

    def __init__(self, dataset: StyleStatisticsDataset, batch_size: int, *, shuffle: bool, seed: int = 0) -> None:
        self.order = EpochOrder(len(dataset), seed) if shuffle else None
        super().__init__(
            dataset,
            num_workers=0,
            batch_size=max(1, min(batch_size, len(dataset))),
            sampler=self.order,
            drop_last=shuffle,
        )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 1."""
        if self.order is not None:
            self.order.epoch = epoch


class StyleFlowTrainer(SupervisedTrainer):
    """MONAI trainer of a `StyleFlowBank`: the sum of the flows' mean negative log-likelihoods.

    The flows share no parameter; one step updates all of them. Each flow's gradient norm is clipped on its own. They
    are small: one process trains them, in float32.

    Args:
        gradient_clip: largest gradient norm of a flow.
        max_skipped_steps: steps in a row with non-finite gradients, which are skipped, after which training stops with
            an error.
        **kwargs: of `monai.engines.SupervisedTrainer`; ``loss_function`` is not used.
    """

    def __init__(self, *, gradient_clip: float = 5.0, max_skipped_steps: int = 10, **kwargs: Any) -> None:
        self.gradient_clip = gradient_clip
        self.max_skipped_steps = max_skipped_steps
        self.skipped_steps = 0
        super().__init__(**{"decollate": False, "loss_function": torch.nn.Identity(), **kwargs})
        self.add_event_handler(Events.STARTED, self._initialise_flows)

    @staticmethod
    def _initialise_flows(engine: Any) -> None:
        if world_size() > 1:
            # ActNorm sets itself by the data that it sees first, and every process would see other data.
            raise ValueError(f"the flows are trained in one process, here are {world_size()}. Start one.")
        if not engine.network.is_initialized:
            # The whole training set, not a first batch, sets ActNorm and the envelope.
            dataset: StyleStatisticsDataset = engine.data_loader.dataset
            engine.network.initialize(dataset.statistics)

    def set_epoch(self, epoch: int) -> None:
        """Seed the order of an epoch."""
        self.data_loader.set_epoch(epoch)  # type: ignore[union-attr]

    def _iteration(  # type: ignore[override]
        self, engine: Any, batchdata: dict[str, Tensor]
    ) -> list[dict[str, Any]]:
        engine.network.train()
        engine.optimizer.zero_grad(set_to_none=True)
        losses = engine.network.negative_log_likelihood(statistics_of(batchdata, engine.state.device))
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        if self._clip_gradients(engine.network):
            engine.optimizer.step()
            self.skipped_steps = 0
        else:
            self._skip(engine, total)
        engine.state.output = [{Keys.LOSS: total.detach()}]
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return list(engine.state.output)

    def _clip_gradients(self, bank: StyleFlowBank) -> bool:
        """Clip each flow's gradient; False if one is not finite."""
        norms = [torch.nn.utils.clip_grad_norm_(flow.parameters(), self.gradient_clip) for flow in bank.flows()]
        return bool(torch.isfinite(torch.stack(norms)).all())

    def _skip(self, engine: Any, loss: Tensor) -> None:
        self.skipped_steps += 1
        logger.warning(
            "step %d: non-finite gradients, skipped (%d in a row)", engine.state.iteration, self.skipped_steps
        )
        if self.skipped_steps >= self.max_skipped_steps:
            raise ValueError(
                f"{self.skipped_steps} steps in a row had non-finite gradients, the last with loss "
                f"{float(loss.detach())}. Lower the learning rate, or use log_scale_bound in place of clamp."
            )


class StyleFlowEvaluator(SupervisedEvaluator):
    """MONAI evaluator of a `StyleFlowBank`: log-likelihood a dimension, larger is better.

    Output: ``log_likelihood``, the mean over rows and flows of the log-density divided by the flow's dimensions, in
    nats: C for means or spreads, 2 C for both together. Banks with one flow a level and with two can so be compared,
    since the densities of two independent flows multiply to one of the same 2 C numbers. Give all rows as one batch, so
    that the mean over batches is the mean over rows.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"decollate": False, **kwargs})

    def _iteration(self, engine: Any, batchdata: dict[str, Tensor]) -> dict[str, Any]:
        bank: StyleFlowBank = engine.network
        statistics = statistics_of(batchdata, engine.state.device)
        with torch.no_grad(), engine.mode(bank):
            losses = bank.negative_log_likelihood(statistics)
        a_dimension = [-float(loss) / bank.flow(level, name).channels for (level, name), loss in losses.items()]
        engine.state.output = {"log_likelihood": sum(a_dimension) / len(a_dimension)}
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return dict(engine.state.output)


def mean_log_likelihood() -> Average:
    """Return the metric of `StyleFlowEvaluator`: mean of ``log_likelihood`` over batches, in nats a dimension."""
    return Average(output_transform=lambda output: output["log_likelihood"])
