"""Random numbers of the styles, all drawn from a generator that the caller owns, on the CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def draw_beta(shape: Sequence[int], alpha: float, generator: torch.Generator) -> Tensor:
    """Draw from Beta(alpha, alpha), float32.

    torch.distributions has no generator argument; the private standard-gamma kernel has. In float64, because at
    alpha = 0.1 a float32 Gamma is often exactly 0.
    """
    parameters = torch.full((2, *shape), alpha, dtype=torch.float64)
    gamma = torch._standard_gamma(parameters, generator=generator).clamp_min(torch.finfo(torch.float64).tiny)
    return (gamma[0] / gamma.sum(0)).float()


def draw_seeds(count: int, generator: torch.Generator) -> list[int]:
    """Draw seeds for other generators, below 2**31."""
    seeds: list[int] = torch.randint(2**31 - 1, (count,), generator=generator).tolist()
    return seeds


def check_probability(probability: float) -> float:
    """Return a probability.

    Raises:
        ValueError: not in [0, 1].
    """
    if not _is_number(probability) or not 0.0 <= probability <= 1.0:
        raise ValueError(f"probability={probability!r}: expected a number in [0, 1].")
    return probability


def check_positive(name: str, value: float) -> float:
    """Return a finite number above 0.

    Raises:
        ValueError: it is not; names the setting.
    """
    if not (_is_number(value) and math.isfinite(value) and value > 0.0):
        raise ValueError(f"{name}={value!r}: expected a finite number above 0.")
    return value


def _is_number(value: object) -> bool:
    """Say whether a value of a configuration, which may be anything, is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
