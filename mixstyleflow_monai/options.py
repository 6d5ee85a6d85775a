"""Options of a command that trains several phases: overlay files, and configuration values for all or for one."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.data.schema_checks import did_you_mean
from mixstyleflow_monai.nested_options import check_nested
from mixstyleflow_monai.option_numbers import check_numbers, is_expression

if TYPE_CHECKING:
    from mixstyleflow_monai.data import DatasetDescription

# Files in a configs folder that are a configuration of their own or for several processes, and so no overlay of a run.
WHOLE_CONFIGS = ("train", "evaluate", "inference", "metadata", "multi_gpu_train", "multi_gpu_evaluate")

# Options of phase 1 that are arguments of `mixstyleflow_monai.data.Task.from_dataset`.
TASK_SETTINGS = ("image_size", "pixel_spacing", "percentiles", "intensity", "activation")

# Levels that phase 2 may have been given, where it was trained by an earlier command: 5 is the image itself.
_FITTED_LEVELS = (0, 1, 2, 3, 4, 5)


def checked_switch(value: bool | str, name: str) -> bool:
    """Return a switch of a command, which may be a word.

    Raises:
        ValueError: neither true nor false.
    """
    from mixstyleflow_monai.engines import flag  # takes seconds to import

    return flag(value, name)


def words(value: Any) -> tuple[str, ...]:
    """Return names given as "a,b", "a" or a sequence; Fire makes numbers of some."""
    if isinstance(value, str):
        return tuple(value.split(","))
    return tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value),)


def check_overlays(root: Path, overlays: Sequence[str]) -> None:
    """Check that at least one bundle has each overlay.

    Args:
        root: folder of the bundles.
        overlays: names of files in the bundles' configs folders, without suffix.

    Raises:
        ValueError: no bundle has a file of this name, or it is not one to lay over every phase.
    """
    folders = [root / name / "configs" for name in PHASE_BUNDLES.values()]
    names = {
        path.relative_to(folder).with_suffix("").as_posix() for folder in folders for path in folder.rglob("*.json")
    }
    # A method decides what Phase III is; the commands have options of their own for it.
    known = sorted(name for name in names if name not in WHOLE_CONFIGS and not name.startswith("methods/"))
    for overlay in overlays:
        if overlay not in known:
            raise ValueError(f"overlay={overlay!r}: no bundle has configs/{overlay}.json to lay over. Known: {known}.")


def overrides_by_phase(
    root: Path, overrides: Mapping[str, Any], command: Callable[..., Any]
) -> dict[int, dict[str, Any]]:
    """Sort configuration values by phase; an id that no train.json has is a mistake, most likely in its spelling.

    Args:
        root: folder of the bundles.
        overrides: values by id, for all phases that have it; with "phaseN:" in front for one, which then comes first.
        command: function that takes them, whose own options may have been meant.

    Returns:
        Phase -> values by id.

    Raises:
        ValueError: an id that no phase has, or not the phase in front of it.
    """
    by_phase: dict[int, dict[str, Any]] = {phase: {} for phase in PHASE_BUNDLES}
    known = {
        phase: set(json.loads((root / name / "configs" / "train.json").read_text(encoding="utf-8")))
        for phase, name in PHASE_BUNDLES.items()
    }
    for key, value in overrides.items():
        prefix, _, rest = key.rpartition(":")
        if prefix and prefix not in {f"phase{phase}" for phase in PHASE_BUNDLES}:
            raise ValueError(f"--{key}: expected phase1:, phase2: or phase3: in front of the colon.")
        chosen = [int(prefix.removeprefix("phase"))] if prefix else list(PHASE_BUNDLES)
        fitting = [phase for phase in chosen if rest.split("#")[0].split("::")[0] in known[phase]]
        if not fitting:
            raise ValueError(_no_such_option(key, rest, known, chosen, command))
        for phase in fitting:
            # A plain key never overrides one that was given for this phase alone.
            if prefix:
                by_phase[phase][rest] = value
            else:
                by_phase[phase].setdefault(rest, value)
    return by_phase


def check_settings(
    phase: int,
    settings: Mapping[str, Any],
    description: DatasetDescription,
    earlier: Mapping[int, Mapping[str, Any]] | None = None,
) -> None:
    """Build the small parts of a phase from its settings, so that a wrong value is told before hours of training.

    Args:
        phase: 1, 2 or 3.
        settings: top level of its train.json, overlays and options merged into it.
        description: data set to train on.
        earlier: settings of the phases before it, as far as they are trained by the same command.

    Raises:
        ValueError: a value that a part refuses.
    """
    from mixstyleflow_monai.data import Task
    from mixstyleflow_monai.data.case_checks import check_data_range
    from mixstyleflow_monai.engines.schedules import check_schedule
    from mixstyleflow_monai.losses import SegmentationLoss

    check_numbers(phase, settings)
    check_nested(phase, settings)
    _check_computing(settings, description)
    if "lr_schedule" in settings and not is_expression(settings["lr_schedule"]):
        check_schedule(settings["lr_schedule"])
    _check_selection(phase, settings)
    if phase == 1:
        SegmentationLoss(settings["activation"], settings["loss"])
        given = {name: settings[name] for name in TASK_SETTINGS}
        if not any(map(is_expression, given.values())):
            task = Task.from_dataset(description, given.pop("image_size"), **given)
            if task.intensity == "data_range":
                check_data_range(description)
    elif phase == 2:
        _check_flows(settings)
    else:
        _check_hard_pass(settings, description, earlier or {})


def _check_computing(settings: Mapping[str, Any], description: DatasetDescription) -> None:
    """Check what all phases have: which slices, how they are augmented, and where and how is computed."""
    import torch

    from mixstyleflow_monai.data.augmentations import augmentation
    from mixstyleflow_monai.data.slices import check_slices
    from mixstyleflow_monai.engines import check_computation, flag
    from mixstyleflow_monai.engines.computation import named_device

    given = {name: value for name, value in settings.items() if not is_expression(value)}
    if "slices" in given:
        check_slices(given["slices"])
    if "augmentation" in given:
        augmentation(given["augmentation"], (32, 32), description.channels)
    for name in ("resume", "channels_last"):
        if name in given:
            flag(given[name], name)
    # The bundles' own device is an expression: the first GPU, or else the CPU.
    device = named_device(given.get("device", "cuda" if torch.cuda.is_available() else "cpu"))
    if device.type != "cuda" or torch.cuda.is_available():  # plans and tables are made on other machines, too
        names = ("amp", "compile", "sync_batch_norm")
        check_computation(device, **{name: given[name] for name in names if name in given})
    for name in ("stylizer", "selection_stylizer", "perturbation"):
        if not isinstance(given.get(name), Mapping | None):
            raise ValueError(f"{name}={given[name]!r}: expected null, or an object with _target_ in an overlay.")
    for name in ("task", "network_def", "optimizer", "lr_scheduler", "averaging", "facts", "identity", "train"):
        if not isinstance(given.get(name, {}), Mapping):
            raise ValueError(f"{name}={given[name]!r}: expected an object, such as with _target_, in an overlay.")


def check_style_levels(flows: Mapping[str, Any], styles: Mapping[str, Any]) -> None:
    """Check that phase 2 is to fit flows for all levels that phase 3 restyles.

    Args:
        flows: settings of phase 2.
        styles: settings of phase 3.

    Raises:
        ValueError: a level is missing.
    """
    asked, there = _levels("style_levels", styles), _levels("levels", flows)
    if not set(asked) <= set(there):
        raise ValueError(
            f"style_levels={asked}: phase 2 is to fit flows of the levels {there} alone. Give --style_levels some of "
            "these, or --phase2:levels (and their --phase2:temperatures) all of those."
        )


def check_loss(images: Mapping[str, Any], hard: Mapping[str, Any]) -> None:
    """Check that phase 3's loss is one for the regions of phase 1.

    Args:
        images: settings of phase 1.
        hard: settings of phase 3.

    Raises:
        ValueError: an unknown loss, or one for another activation.
    """
    from mixstyleflow_monai.losses import SegmentationLoss

    if not any(map(is_expression, (images["activation"], hard["loss"]))):
        SegmentationLoss(images["activation"], hard["loss"])


def check_image_level(images: Mapping[str, Any], flows: Mapping[str, Any]) -> None:
    """Check that phase 2 is not to fit flows of the image itself where phase 1 makes all images alike.

    Args:
        images: settings of phase 1.
        flows: settings of phase 2.

    Raises:
        ValueError: level 5 with z-scored images.
    """
    from mixstyleflow_monai.styles.level_mix import IMAGE_LEVEL, NO_IMAGE_LEVEL

    levels = _levels("levels", flows)
    if images["intensity"] == "z_score" and IMAGE_LEVEL in levels:
        raise ValueError(f"levels={levels} with intensity='z_score': {NO_IMAGE_LEVEL}")


def _check_selection(phase: int, settings: Mapping[str, Any]) -> None:
    """Check how weights are averaged and chosen."""
    from torch import nn

    from mixstyleflow_monai.engines import PublishModel, WeightAverage
    from mixstyleflow_monai.engines.stylized_validation import check_stylizer

    selection = settings["selection"]
    if phase == 2 or selection != "best_stylized":
        PublishModel("", "", nn.Identity(), selection=selection)
    # The default of phase 3 is what the training uses.
    elif settings["selection_stylizer"] is None or (
        settings["selection_stylizer"] == "@stylizer" and settings["stylizer"] is None
    ):
        check_stylizer(None, has_painter=phase == 3)
    if phase != 2:
        WeightAverage(nn.Identity(), settings["weight_average"])


def _check_flows(settings: Mapping[str, Any]) -> None:
    """Check which flows are fitted, and what they may draw."""
    from mixstyleflow_monai.engines import flag
    from mixstyleflow_monai.flows import StyleFlowBank

    for name in ("joint_statistics", "clip_to_envelope", "clamp_means"):
        if not is_expression(settings[name]):
            flag(settings[name], name)
    levels = dict.fromkeys(_levels("levels", settings), 2)
    if not levels or not set(levels) <= set(_FITTED_LEVELS):
        raise ValueError(
            f"levels={settings['levels']}: expected some of 0 (latent) to 4 (last block) and 5 (the image)."
        )
    options = ("spread", "log_scale_bound", "clamp", "clip_to_envelope", "clamp_means", "std_floor")
    StyleFlowBank(
        levels,
        settings["temperatures"],
        batch_norm=settings["style_batch_norm"],
        **{key: settings[key] for key in options},
    )


def _check_hard_pass(
    settings: Mapping[str, Any], description: DatasetDescription, earlier: Mapping[int, Mapping[str, Any]]
) -> None:
    """Check how hard examples are made and used."""
    from mixstyleflow_monai.data import Task
    from mixstyleflow_monai.engines import flag
    from mixstyleflow_monai.flows import StyleFlowBank
    from mixstyleflow_monai.hard_pass_settings import check_hard_pass
    from mixstyleflow_monai.styles.level_mix import IMAGE_LEVEL, NO_IMAGE_LEVEL

    z_score = earlier.get(1, {}).get("intensity") == "z_score"
    if z_score and "@style_levels" in str(settings["stylizer"]) and IMAGE_LEVEL in _levels("style_levels", settings):
        raise ValueError(f"style_levels={settings['style_levels']} with intensity='z_score': {NO_IMAGE_LEVEL}")
    if not is_expression(settings["style_batch_norm"]):
        StyleFlowBank({2: 2}, {2: 1.0}, batch_norm=settings["style_batch_norm"])
    levels = _levels("levels", earlier[2]) if 2 in earlier else _FITTED_LEVELS
    given: dict[str, Any] = {"intensity": "z_score", "image_activation": "instance_norm"} if z_score else {}
    if not is_expression(settings["normalization"]):
        given["normalization"] = settings["normalization"]
    task = Task(description.channels, description.regions, (32, 32), **given)
    check_hard_pass(settings, task, levels)
    if not is_expression(settings["warm_start"]):
        flag(settings["warm_start"], "warm_start")


def _levels(name: str, settings: Mapping[str, Any]) -> list[int]:
    """Return the levels that an option names."""
    value = settings[name]
    if not isinstance(value, list | tuple) or not all(type(level) is int for level in value):
        raise ValueError(f"{name}={value!r}: expected a list of levels, such as [2,3,4].")
    return list(value)


def _no_such_option(
    key: str, name: str, known: Mapping[int, set[str]], chosen: Sequence[int], command: Callable[..., Any]
) -> str:
    """Word the refusal of an option: the name that was probably meant, or the phases that have this one."""
    elsewhere = [phase for phase in known if phase not in chosen and name in known[phase]]
    own = [
        option.name
        for option in inspect.signature(command).parameters.values()
        if option.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    hint = did_you_mean(name, sorted({*own, *(name for phase in chosen for name in known[phase])})) or "."
    if elsewhere:
        hint = f"; it is one of phase {' and '.join(map(str, elsewhere))}."
    return (
        f"--{key}: no such option{hint} Options are those of `{command.__name__} --help` and the keys of each bundle, "
        "which its docs/README.md lists under Options."
    )
