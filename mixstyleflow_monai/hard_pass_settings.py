"""The hard pass that a configuration describes, built without the files of phases 1 and 2."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from mixstyleflow_monai.bundle_errors import root_cause
from mixstyleflow_monai.data import Task
from mixstyleflow_monai.engines import HardPass, SemanticLosses
from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.flows.style_flow_bank import DEFAULT_TEMPERATURES
from mixstyleflow_monai.networks.batch_norm import SeparateAffine
from mixstyleflow_monai.styles import IMAGE_LEVEL, GaussianStyleBank
from mixstyleflow_monai.styles.gaussian_styles import IMAGE_TEMPERATURE

Statistics = Mapping[int, tuple[Tensor, Tensor]]

# Parts of train.json that need the data set, the files of other phases, or a network.
_NOT_NEEDED = ("train", "validate", "initialize", "run", "facts", "identity", "best_model")


def configured_hard_pass(
    settings: Mapping[str, Any], task: Task, statistics_of: Statistics
) -> HardPass | SemanticLosses | None:
    """Build the hard pass of phase 3, with flows fitted to no data in place of phase 2's.

    Args:
        settings: top level of phase 3's train.json, overlays and options merged into it.
        task: of the network.
        statistics_of: level -> (means, standard deviations), (N, C) each, to start flows from.

    Returns:
        As the item ``hard_pass``; None for a training without one.
    """
    bank = StyleFlowBank(
        {level: mean.shape[1] for level, (mean, _) in statistics_of.items()},
        {level: _temperature(level) for level in statistics_of},
        batch_norm=settings["style_batch_norm"],
    )
    bank.initialize(dict(statistics_of))
    parts = {name: _without_files(value) for name, value in settings.items() if name not in _NOT_NEEDED}
    nested = {name: parts.pop(name) for name in list(parts) if "#" in name}
    gaussians = GaussianStyleBank(statistics_of, {level: _temperature(level) for level in statistics_of})
    separate = settings["hard_batch_norm"] == "separate"
    given = {
        "bank": bank,
        "gaussians": gaussians,
        "styled": True,
        "task": task,
        "hard_affine": SeparateAffine(nn.BatchNorm2d(1), enabled=separate),
    }
    parser = ConfigParser({**parts, **given})
    for name, value in nested.items():
        if name.split("#")[0] in parts:
            parser[name] = value
    hard_pass: HardPass | SemanticLosses | None = parser.get_parsed_content("hard_pass")
    return hard_pass


def check_hard_pass(settings: Mapping[str, Any], task: Task, levels: Iterable[int]) -> None:
    """Build the hard pass for nothing but its checks.

    What needs a file of an earlier phase, or refers to an item that is not there yet, is passed over: the training
    itself tells it.

    Args:
        settings: as of `configured_hard_pass`.
        task: of the network.
        levels: that phase 2 has or will have flows of.

    Raises:
        ValueError: a value that the stylizer, the perturbation or the hard pass refuses.
    """
    example = torch.arange(8.0).reshape(4, 2) + 1.0
    try:
        configured_hard_pass(settings, task, dict.fromkeys(levels, (example, example)))
    except RuntimeError as error:  # as MONAI wraps what a class raised that it was to build
        cause = root_cause(error)
        if isinstance(cause, ValueError | TypeError):
            raise ValueError(_in_short(cause)) from error
    except (ValueError, KeyError, OSError):
        return


def _in_short(cause: ValueError | TypeError) -> str:
    """Return what is wrong: Python names a class's ``__init__`` where it is a part's setting that is not known."""
    text = str(cause)
    unknown = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", text)
    return (
        f"stylizer, perturbation or hard_pass: {unknown[1]} has no setting {unknown[2]!r}. Check its spelling."
        if unknown
        else text
    )


def _temperature(level: int) -> float:
    return {**DEFAULT_TEMPERATURES, IMAGE_LEVEL: IMAGE_TEMPERATURE}.get(level, 1.0)


def _without_files(part: Any) -> Any:
    """Replace what a configuration would read from the files of phase 2."""
    if isinstance(part, Mapping):
        return {name: _without_files(value) for name, value in part.items()}
    if isinstance(part, list):
        return [_without_files(value) for value in part]
    if isinstance(part, str) and "style_flows(" in part:
        return "@bank"
    return "@gaussians" if isinstance(part, str) and "load_gaussian_styles(" in part else part
