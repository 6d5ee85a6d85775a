"""Numbers among the options of a training, checked before the first phase starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NONE = (None, "null", "None")
"""What stands for no value; a command line gives words."""


@dataclass(frozen=True)
class Rule:
    """What a number may be.

    Attributes:
        whole: no fractions.
        least: smallest value.
        above: ``least`` itself is not allowed.
        most: largest value.
        multiple: of what it must be a multiple.
        optional: whether null is allowed.
        phases: that have the option under this rule.
    """

    whole: bool = True
    least: float = 1
    above: bool = False
    most: float = math.inf
    multiple: int = 1
    optional: bool = False
    phases: tuple[int, ...] = (1, 2, 3)

    def allows(self, value: Any) -> bool:
        """Say whether a value keeps to the rule."""
        if self.optional and value in NONE:
            return True
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        enough = value > self.least if self.above else value >= self.least
        return enough and value <= self.most and math.isfinite(value) and (not self.whole or value % self.multiple == 0)

    def __str__(self) -> str:
        number = "a whole number" if self.whole else "a number"
        number = "an even number" if self.multiple == 2 else number
        limit = f" and at most {self.most:.10g}" if math.isfinite(self.most) else ""
        return f"{number} {'above' if self.above else 'of at least'} {self.least:g}{limit}" + " or null" * self.optional


# Of each slice a batch has an augmented and a plain copy; phase 2's own batches are of statistics.
_PAIRS = Rule(least=2, multiple=2, phases=(1, 3))
RULES: tuple[tuple[str, Rule], ...] = (
    *((name, Rule()) for name in ("max_epochs", "checkpoint_interval", "max_skipped_steps", "statistics_passes")),
    *((name, Rule()) for name in ("val_interval", "preview_interval")),
    ("epoch_length", Rule(optional=True)),
    ("batch_size", _PAIRS),
    ("batch_size", Rule(phases=(2,))),
    ("statistics_batch_size", Rule(least=2, multiple=2)),
    ("seed", Rule(least=0, most=2**32 - 1)),  # what NumPy takes
    ("num_workers", Rule(least=0)),
    *((name, Rule(whole=False, least=0, above=True)) for name in ("learning_rate", "gradient_clip")),
    *((name, Rule(whole=False, least=0)) for name in ("noise_std", "reconstruction_weight")),
    ("cache_rate", Rule(whole=False, least=0, most=1)),
)


def is_expression(value: object) -> bool:
    """Tell whether MONAI will evaluate a value, which is none before."""
    return isinstance(value, str) and value[:1] in ("$", "@")


def check_numbers(phase: int, settings: Mapping[str, Any]) -> None:
    """Check the numbers of a phase that say how long, how fast and in what portions it trains.

    Args:
        phase: 1, 2 or 3.
        settings: top level of its train.json, overlays and options merged into it; expressions are left alone.

    Raises:
        ValueError: one that is out of its range or no number.
    """
    for name, rule in RULES:
        value = settings.get(name)
        given = name in settings and not is_expression(value)
        if given and phase in rule.phases and not rule.allows(value):
            raise ValueError(f"{name}={value!r} (phase {phase}): expected {rule}.")
