"""MixStyleFlow's stylizer: images decoded with channel statistics drawn from normalizing flows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mixstyleflow_monai.styles.level_mix import DrawnStyle, LevelStyle, LevelStyleMix, check_level_list
from mixstyleflow_monai.styles.sampling import check_probability

__all__ = ["PRESETS", "DrawnStyle", "FlowStyleMix", "LevelStyle", "StyleBank"]

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # What the paper states, where it differs from our default: the decoded image itself is the hard example.
    "paper": {"output": "decoded", "weight_law": "uniform", "probability": 1.0},
    # What the published code does: one style a batch, and again the decoded image.
    "official": {"output": "decoded", "style_per": "batch"},
}
"""Settings of `FlowStyleMix` by name. ``clamp_means``, ``spread`` and the couplings' clamp belong to the flow bank."""


class StyleBank(Protocol):
    """A source of styles: `mixstyleflow_monai.flows.StyleFlowBank`, or another density in its place."""

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels that have styles, ascending."""
        ...

    def sample(
        self, level: int, n: int, *, temperature: float | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw n styles of a level: means and standard deviations, (n, C) each."""
        ...

    def eval(self) -> nn.Module:
        """Go into eval mode and return itself, as every module does."""
        ...


def _checked_temperatures(given: Mapping[int | str, float], levels: Sequence[int]) -> dict[int, float]:
    expected = f"expected positive numbers for levels among {list(levels)}, the levels that the flow bank has."
    try:
        chosen = {int(level): float(value) for level, value in given.items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"temperatures={dict(given)}: {expected}") from error
    if not set(chosen) <= set(levels) or not all(0 < value < math.inf for value in chosen.values()):
        raise ValueError(f"temperatures={chosen}: {expected}")
    return chosen


class FlowStyleMix(LevelStyleMix):
    """Make hard examples: the image re-decoded with feature statistics sampled from flows, mixed with its own.

    Per level, with a chance of ``probability``, mu' = (1 - w) mu + w mu*, sigma' likewise (Eq. 7), where (mu*, sigma*)
    come from the level's flows at its temperature and w ~ Beta(alpha, alpha). Identity in eval mode, at probability 0
    and for a batch in which no level is active (but for ``output="decoded"``).

    Args:
        bank: fitted flows, frozen here; it is not part of this module's state.
        levels: levels to restyle, of those that the bank has; None takes all of them.
        temperatures: scale of the base noise by level; None takes the bank's.
        **settings: of `LevelStyleMix`. The paper has a style an image and "decoded" images, the official code one
            style a batch.

    References:
        MixStyleFlow, MICCAI 2025, Eq. 7, doi 10.1007/978-3-032-04947-6_36

    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(
        self,
        bank: StyleBank,
        *,
        levels: Sequence[int] | None = None,
        temperatures: Mapping[int | str, float] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        check_level_list(levels)
        wanted = tuple(bank.levels if levels is None else levels)
        if not wanted or len(set(wanted)) != len(wanted) or not set(wanted) <= set(bank.levels):
            raise ValueError(
                f"style_levels={list(wanted)}: expected some of {sorted(bank.levels)}, the levels that the flow bank "
                "has, each once. Give these, or train phase 2 with the others among its levels."
            )
        if temperatures is not None and not isinstance(temperatures, Mapping):
            raise ValueError(f"temperatures={temperatures!r}: expected a number a level, such as {{'2':3.5,'3':2.5}}.")
        chosen = _checked_temperatures(temperatures or {}, sorted(bank.levels))
        # A tuple hides the bank from nn.Module: flows must not be trained, moved to train mode or exported with us.
        bank.eval().requires_grad_(False)
        self._bank = (bank,)
        self.levels = tuple(sorted(wanted))
        self.batch_norm = getattr(bank, "batch_norm", "batch")
        self.temperatures = chosen

    @classmethod
    def from_preset(cls, bank: StyleBank, preset: str = "default", **changes: Any) -> FlowStyleMix:
        """Build with the settings of a preset, changed by keyword."""
        if preset not in PRESETS:
            raise ValueError(f"preset={preset!r}: expected one of {sorted(PRESETS)}.")
        return cls(bank, **{**PRESETS[preset], **changes})

    @property
    def bank(self) -> StyleBank:
        """The flows, frozen."""
        return self._bank[0]

    def draw(self, batch_size: int, *, probability: float | None = None) -> DrawnStyle:
        """Draw a style for a batch.

        Args:
            batch_size: number of images B.
            probability: chance of a level in [0, 1], in place of the module's own.

        Raises:
            ValueError: ``probability`` out of its range.
        """
        chance = self.probability if probability is None else check_probability(probability)
        levels: dict[int, LevelStyle] = {}
        for level in self.levels:
            if not self._is_active(chance):
                continue
            styles = batch_size if self.style_per == "image" else 1
            mean, std = self.bank.sample(
                level, styles, temperature=self.temperatures.get(level), generator=self.generator
            )
            mean, std = mean.expand(batch_size, -1), std.expand(batch_size, -1)
            levels[level] = LevelStyle(mean, std, self._draw_weight(batch_size, mean.shape[1]).to(mean))
        return DrawnStyle(levels)

    def extra_repr(self) -> str:
        """Show the settings."""
        levels = "" if self.levels == tuple(sorted(self.bank.levels)) else f"levels={list(self.levels)}, "
        return f"{levels}{super().extra_repr()}, temperatures={self.temperatures or 'of the bank'}"
