"""The simplest density of styles: independent Gaussians, in place of the flows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mixstyleflow_monai.flows.style_flow_bank import DEFAULT_TEMPERATURES
from mixstyleflow_monai.networks import STYLE_BATCH_NORMS
from mixstyleflow_monai.styles.level_mix import IMAGE_LEVEL
from mixstyleflow_monai.styles.sampling import check_positive

IMAGE_TEMPERATURE = 2.5


class GaussianStyleBank(nn.Module):
    """A Gaussian for every channel's mean and for its spread, to be given to `FlowStyleMix` as its bank.

    mu* = m + T s e with e ~ N(0, 1), where m and s are mean and standard deviation of mu over the training images and
    T the temperature; sigma* likewise, at least ``std_floor``. Unlike flows, channels are independent and samples are
    not clipped to an envelope. What flow styles gain over this is what the shape of their density adds.

    Args:
        statistics: level -> (means, standard deviations) of training images, (N, C) each, N >= 2; phase 2 gathers them.
        temperatures: level -> T; None takes the flows' defaults.
        std_floor: smallest standard deviation, > 0.
        batch_norm: how the network's batch norm was set when the statistics were gathered, "batch" or "running"; the
            stylizer sets it likewise.

    Raises:
        ValueError: fewer than two images, a level without a temperature, or a value out of its range.
    """

    def __init__(
        self,
        statistics: Mapping[int, tuple[Tensor, Tensor]],
        temperatures: Mapping[int, float] | Mapping[str, float] | None = None,
        *,
        std_floor: float = 1e-6,
        batch_norm: str = "batch",
    ) -> None:
        super().__init__()
        if batch_norm not in STYLE_BATCH_NORMS:
            raise ValueError(f"style_batch_norm={batch_norm!r}: expected one of {STYLE_BATCH_NORMS}.")
        self.batch_norm = batch_norm
        given = {int(level): float(t) for level, t in (temperatures or _default()).items()}
        self.levels = tuple(sorted(statistics))
        missing = [level for level in self.levels if level not in given]
        if not self.levels or missing:
            raise ValueError(f"temperatures={given}: expected one for each level of the statistics, {self.levels}.")
        self.temperatures = {
            level: check_positive(f"temperature of level {level}", given[level]) for level in self.levels
        }
        self.std_floor = check_positive("std_floor", std_floor)
        for level in self.levels:
            for name, values in zip(("mean", "std"), statistics[level], strict=True):
                if values.dim() != 2 or len(values) < 2:
                    raise ValueError(
                        f"statistics of level {level}: {name} of shape {tuple(values.shape)}, expected (N, C) of at "
                        "least two images."
                    )
                self.register_buffer(f"{name}_{level}", torch.stack([values.mean(0), values.std(0)]))

    @torch.no_grad()
    def sample(
        self,
        level: int,
        n: int,
        *,
        temperature: float | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw n styles of a level, see `mixstyleflow_monai.flows.StyleFlowBank.sample`."""
        if level not in self.levels:
            raise ValueError(f"level {level}: this bank has levels {list(self.levels)}.")
        factor = self.temperatures[level] if temperature is None else temperature

        def draw(name: str) -> Tensor:
            location, scale = getattr(self, f"{name}_{level}")
            noise = torch.randn(n, len(location), generator=generator)
            return location + factor * scale * noise.to(location)

        return draw("mean"), draw("std").clamp_min(self.std_floor)


def _default() -> dict[int, float]:
    """Return the flows' temperatures, with the one that phase 2's overlay gives to the image."""
    return {**DEFAULT_TEMPERATURES, IMAGE_LEVEL: IMAGE_TEMPERATURE}
