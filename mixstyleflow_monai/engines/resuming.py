"""What is checked of a training's checkpoint before it goes on from there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mixstyleflow_monai.artifacts import read_tensors
from mixstyleflow_monai.engines.handlers import CHECKPOINT_PATTERN, latest_checkpoint


def check_resumable(checkpoint_dir: str | os.PathLike[str], resume: bool, max_epochs: int) -> None:
    """Read the checkpoint that a training would go on from, before anything else is done.

    Args:
        checkpoint_dir: of the training.
        resume: whether it is asked for.
        max_epochs: of the training.

    Raises:
        ValueError: it cannot be read, or is of a later epoch than training is to have.
    """
    path = latest_checkpoint(checkpoint_dir) if resume else None
    if path is None:
        return
    read_checkpoint(path)
    found = CHECKPOINT_PATTERN.fullmatch(Path(path).name)
    if found and isinstance(max_epochs, int) and int(found[1]) > max_epochs:
        raise ValueError(
            f"{path}: training was that far already, and max_epochs={max_epochs} is less. Give --max_epochs {found[1]} "
            "or more to go on, or start anew with --resume false or another --output_dir."
        )


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of a checkpoint, on the CPU.

    Raises:
        ValueError: damaged or cut off.
    """
    remedy = "It is damaged or cut off. Remove or restore it; without it training starts anew, as with --resume false."
    content = read_tensors(path, "a checkpoint", remedy)
    return content if isinstance(content, dict) else {}
