"""All style flows of a network: for every level a density of means and one of spreads, or one of both."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from mixstyleflow_monai.artifacts import save_tensors
from mixstyleflow_monai.flows.act_norm import check_matrix
from mixstyleflow_monai.flows.joint import join_statistics, split_statistics
from mixstyleflow_monai.flows.style_flow import StyleFlow

Spread = Literal["std", "var", "log_std"]
Statistics = Mapping[int, tuple[Tensor, Tensor]]

FORMAT = 1
DEFAULT_CHANNELS: Mapping[int, int] = {2: 32, 3: 16, 4: 16}
DEFAULT_TEMPERATURES: Mapping[int, float] = {2: 3.5, 3: 2.5, 4: 1.5}
# The official code keeps sampled means at or above this, although means of features may be negative.
MEAN_FLOOR = 1e-8


class StyleFlowBank(nn.Module):
    """Two :class:`StyleFlow` a level, of channel means and of channel spreads, with one way to save and to sample.

    Statistics come and go as (mean, std) pairs of shape (N, C). Inside, the spread may be modelled as standard
    deviation, variance or log of the standard deviation; densities are those of what is modelled, so log-likelihoods
    of banks with another ``spread`` cannot be compared.

    Two flows draw the mean of an image and its spread independently, although the two go together in images. With
    ``joint_statistics`` a level has one flow of both, a vector of 2 C numbers. log p(mean) + log p(spread) of two flows
    is the log-density of an image's style as is that of the joint flow, so the two can be compared.

    References:
        MixStyleFlow, MICCAI 2025, doi 10.1007/978-3-032-04947-6_36
    Deviation: the official code models variances and clamps means to >= 1e-8 (``spread="var", clamp_means=True``).

    Args:
        channels: level -> C. Keys may be strings, as JSON has them. Default {2: 32, 3: 16, 4: 16}.
        temperatures: level -> factor on the noise outside the domain, >= 0; every level of ``channels`` needs one,
            others are ignored. Default {2: 3.5, 3: 2.5, 4: 1.5}.
        spread: "std", "var" or "log_std".
        num_couplings, hidden_factor, log_scale_bound, clamp: as in :class:`StyleFlow`.
        clip_to_envelope: clip samples to the range of the training data widened by the temperature.
        clamp_means: clamp sampled means to >= 1e-8.
        std_floor: smallest standard deviation, > 0, of samples and of what goes into a logarithm.
        joint_statistics: one flow a level of means and spreads together, in place of two independent ones (ours).
        batch_norm: how the network's batch norm was set when the statistics were gathered, "batch" or "running"; the
            stylizer sets it likewise.
    Raises:
        ValueError: a value out of range; the message names it.
    """

    def __init__(
        self,
        channels: Mapping[int, int] | Mapping[str, int] | None = None,
        temperatures: Mapping[int, float] | Mapping[str, float] | None = None,
        *,
        spread: Spread = "std",
        num_couplings: int = 4,
        hidden_factor: int = 2,
        log_scale_bound: float | None = 2.0,
        clamp: float | None = None,
        clip_to_envelope: bool = True,
        clamp_means: bool = False,
        std_floor: float = 1e-6,
        joint_statistics: bool = False,
        batch_norm: str = "batch",
    ) -> None:
        super().__init__()
        self.channels = _by_level(DEFAULT_CHANNELS if channels is None else channels, "channels")
        given = _by_level(DEFAULT_TEMPERATURES if temperatures is None else temperatures, "temperatures")
        self.temperatures = _select_temperatures(given, self.levels)
        if spread not in get_args(Spread):
            raise ValueError(f"spread is {spread!r}, allowed are {', '.join(map(repr, get_args(Spread)))}.")
        if not (isinstance(std_floor, int | float) and math.isfinite(std_floor) and std_floor > 0):
            raise ValueError(f"std_floor is {std_floor!r}, allowed are finite numbers above 0.")
        self.spread: Spread = spread
        self.clip_to_envelope = clip_to_envelope
        self.clamp_means = clamp_means
        self.std_floor = std_floor
        if batch_norm not in ("batch", "running"):
            raise ValueError(f"style_batch_norm is {batch_norm!r}, allowed are 'batch', 'running'.")
        self.batch_norm = batch_norm
        self._flow_options: dict[str, Any] = {
            "num_couplings": num_couplings,
            "hidden_factor": hidden_factor,
            "log_scale_bound": log_scale_bound,
            "clamp": clamp,
        }
        self.joint_statistics = joint_statistics
        self.mean_flows = nn.ModuleDict()
        self.spread_flows = nn.ModuleDict()
        self.joint_flows = nn.ModuleDict()
        for level, size in self.channels.items():
            if joint_statistics:
                self.joint_flows[str(level)] = StyleFlow(2 * size, **self._flow_options)
                continue
            for flows in (self.mean_flows, self.spread_flows):
                flows[str(level)] = StyleFlow(size, **self._flow_options)

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels that have flows, ascending."""
        return tuple(self.channels)

    @property
    def is_initialized(self) -> bool:
        """Whether all flows have seen their training data."""
        return all(flow.is_initialized for flow in self.flows())

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that rebuild this bank, ``StyleFlowBank(**bank.config)``, as plain JSON values."""
        return {
            "channels": {str(level): size for level, size in self.channels.items()},
            "temperatures": {str(level): value for level, value in self.temperatures.items()},
            "spread": self.spread,
            **self._flow_options,
            "clip_to_envelope": self.clip_to_envelope,
            "clamp_means": self.clamp_means,
            "std_floor": self.std_floor,
            "joint_statistics": self.joint_statistics,
            "batch_norm": self.batch_norm,
        }

    @property
    def statistic_names(self) -> tuple[str, ...]:
        """What the flows of a level model: ("mean", "spread"), or ("joint",)."""
        return ("joint",) if self.joint_statistics else ("mean", "spread")

    def flow(self, level: int | str, statistic: str) -> StyleFlow:
        """Return the flow of one statistic of one level.

        Raises:
            ValueError: no flow for this level or this statistic.
        """
        level = _as_level(level, "level")
        if level not in self.channels:
            raise ValueError(f"Level {level} has no style flows, this bank has levels {list(self.levels)}.")
        if statistic not in self.statistic_names:
            raise ValueError(f"No flow of {statistic!r}, this bank has flows of {list(self.statistic_names)}.")
        by_statistic = {"mean": self.mean_flows, "spread": self.spread_flows, "joint": self.joint_flows}
        flow = by_statistic[statistic][str(level)]
        assert isinstance(flow, StyleFlow)  # for the type checker: ModuleDict holds any module
        return flow

    def flows(self) -> list[StyleFlow]:
        """Return all flows."""
        return [self.flow(level, statistic) for level in self.levels for statistic in self.statistic_names]

    def initialize(self, statistics: Statistics) -> None:
        """Start all flows from the whole training set.

        Args:
            statistics: level -> (means, stds), each (N, C); exactly the levels of this bank.
        Raises:
            ValueError: a level is missing or unknown, or its values are not finite or have another shape.
            RuntimeError: a flow was initialised before.
        """
        by_level = _by_level(statistics, "statistics")
        if set(by_level) != set(self.levels):
            raise ValueError(
                f"statistics has levels {list(by_level)}, this bank needs exactly {list(self.levels)}. "
                "Collect them for the levels that the bank was built for."
            )
        # All checks before the first change, so that a mistake leaves no half-started bank behind.
        for level, (mean, std) in by_level.items():
            check_matrix(mean, self.channels[level], f"means of level {level}")
            check_matrix(std, self.channels[level], f"standard deviations of level {level}")
            if len(mean) != len(std) or bool((std < 0).any()):
                raise ValueError(
                    f"statistics of level {level}: {len(mean)} means and {len(std)} standard deviations, smallest "
                    f"{float(std.min()):.3g}. Expected (mean, std) of the same images, std >= 0."
                )
        for level, (mean, std) in by_level.items():
            for statistic, values in zip(self.statistic_names, self._modelled(mean, std), strict=True):
                self.flow(level, statistic).initialize(values)

    def log_prob(self, level: int | str, mean: Tensor, std: Tensor) -> tuple[Tensor, ...]:
        """Return log p(mean) and log p(spread), or with ``joint_statistics`` log p of both alone, in nats, each (N,).

        The density is that of the modelled spread (std, var or log std), not always that of ``std``.

        Args:
            level: one of ``levels``.
            mean: (N, C).
            std: (N, C).

        Raises:
            ValueError: unknown level or wrong shape.
            RuntimeError: not initialised.
        """
        values = self._modelled(mean, std)
        return tuple(self.flow(level, name).log_prob(x) for name, x in zip(self.statistic_names, values, strict=True))

    def negative_log_likelihood(self, statistics: Statistics) -> dict[tuple[int, str], Tensor]:
        """Return the mean NLL of every flow, in nats an image: {(level, one of ``statistic_names``): scalar}.

        Their sum is the training loss (MixStyleFlow, MICCAI 2025). A subset of the levels is allowed.
        """
        losses: dict[tuple[int, str], Tensor] = {}
        for level, (mean, std) in _by_level(statistics, "statistics").items():
            for statistic, log_prob in zip(self.statistic_names, self.log_prob(level, mean, std), strict=True):
                losses[level, statistic] = -log_prob.mean()
        return losses

    def forward(self, statistics: Statistics) -> dict[tuple[int, str], Tensor]:
        """Same as :meth:`negative_log_likelihood`, for wrappers that call modules."""
        return self.negative_log_likelihood(statistics)

    @torch.no_grad()
    def sample(
        self,
        level: int | str,
        n: int,
        *,
        temperature: float | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw n styles of a level.

        Args:
            level: one of ``levels``.
            n: number of styles, >= 1.
            temperature: factor on the noise, >= 0; None is the level's own, 1.0 is in domain.
            generator: source of the noise, see :meth:`StyleFlow.sample`; None is torch's global one.
        Returns:
            means and standard deviations, each (n, C); the latter >= ``std_floor``.
        Raises:
            ValueError: unknown level, ``n`` or ``temperature`` out of range.
            RuntimeError: not initialised.
        """
        flows = [self.flow(level, statistic) for statistic in self.statistic_names]
        factor = self.temperatures[int(level)] if temperature is None else temperature
        drawn = [
            flow.sample(n, temperature=factor, generator=generator, clip_to_envelope=self.clip_to_envelope)
            for flow in flows
        ]
        means, spreads = split_statistics(drawn[0]) if self.joint_statistics else drawn
        return means.clamp_min(MEAN_FLOOR) if self.clamp_means else means, self.to_std(spreads)

    def _modelled(self, mean: Tensor, std: Tensor) -> tuple[Tensor, ...]:
        """Return the vectors that the flows of a level model, in the order of ``statistic_names``."""
        spread = self.to_spread(std)
        return (join_statistics(mean, spread),) if self.joint_statistics else (mean, spread)

    def to_spread(self, std: Tensor) -> Tensor:
        """Turn standard deviations into what the flows model."""
        if self.spread == "var":
            return std.square()
        return std.clamp_min(self.std_floor).log() if self.spread == "log_std" else std

    def to_std(self, spread: Tensor) -> Tensor:
        """Turn modelled spreads, of any value, into standard deviations >= ``std_floor``."""
        if self.spread == "var":
            spread = spread.clamp_min(0).sqrt()
        elif self.spread == "log_std":
            spread = spread.exp()
        return spread.clamp_min(self.std_floor)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write configuration and weights (on the CPU, loadable with ``weights_only=True``) to one file, atomically."""
        state = {name: value.detach().cpu() for name, value in self.state_dict().items()}
        save_tensors(path, {"format": FORMAT, "config": self.config, "state_dict": state})

    @classmethod
    def load(cls, path: str | os.PathLike[str], map_location: str | torch.device = "cpu") -> StyleFlowBank:
        """Read what ``save`` wrote, in the saved dtype and in eval mode.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a bank, another format, or contents that do not fit together.
        """
        content = _read(Path(path), map_location)
        state = content["state_dict"]
        try:
            bank = cls(**content["config"])
            dtype = next(value.dtype for value in state.values() if value.is_floating_point())
            bank.to(device=map_location, dtype=dtype)
            bank.load_state_dict(state)
        except (TypeError, ValueError, RuntimeError, AttributeError, StopIteration) as error:
            raise ValueError(
                f"{path}: configuration and weights do not make a style flow bank ({str(error)[:300]}). "
                "Train the style flows again with this version."
            ) from error
        return bank.eval()


def _read(path: Path, map_location: str | torch.device) -> dict[str, Any]:
    """Return the checked dictionary in the file."""
    remedy = "Give a file that the style flow phase wrote, style_flows.pt."
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. {remedy}")
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"{path}: not a style flow bank, torch cannot read it. {remedy}") from error
    found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
    if not isinstance(content, dict) or "format" not in content:
        raise ValueError(f"{path}: not a style flow bank, it holds {str(found)[:200]} and no 'format'. {remedy}")
    if content["format"] != FORMAT:
        raise ValueError(f"{path}: format {content['format']!r}, this version reads {FORMAT}. {remedy}")
    missing = [key for key in ("config", "state_dict") if not isinstance(content.get(key), dict)]
    if missing:
        raise ValueError(f"{path}: {missing} missing or not a dictionary, found {found}. {remedy}")
    return content


def _as_level(level: int | str, what: str) -> int:
    """Return a level as integer; JSON writes keys as strings."""
    text = str(level)
    if not text.isdecimal():
        raise ValueError(f'{what}: level {level!r}, allowed are integers from 0 on, such as 2 or "2".')
    return int(text)


def _by_level(mapping: Mapping[Any, Any], what: str) -> dict[int, Any]:
    """Return the mapping with integer keys, ascending."""
    if not isinstance(mapping, Mapping):
        raise ValueError(f'{what}={mapping!r}: expected a number a level, as in {{"2": 3.5, "3": 2.5, "4": 1.5}}.')
    by_level = {_as_level(level, what): value for level, value in mapping.items()}
    if not by_level or len(by_level) != len(mapping):
        raise ValueError(f"{what} has levels {list(mapping)}, expected at least one, each named once.")
    return dict(sorted(by_level.items()))


def _select_temperatures(given: Mapping[int, float], levels: tuple[int, ...]) -> dict[int, float]:
    """Return the temperature of every level, checked."""
    missing = [level for level in levels if level not in given]
    if missing:
        raise ValueError(
            f"temperatures has levels {list(given)} but not {missing}, which have flows. Give one for each, 1.0 is in "
            "domain."
        )
    for level in levels:
        value = given[level]
        if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
            raise ValueError(f"temperatures: level {level} has {value!r}, allowed are finite numbers from 0 on.")
    return {level: float(given[level]) for level in levels}
