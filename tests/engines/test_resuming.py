"""Tests of what is checked of a checkpoint before training goes on from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mixstyleflow_monai.engines import check_resumable
from mixstyleflow_monai.engines.resuming import read_checkpoint


def write(folder: Path, epoch: int) -> Path:
    path = folder / f"checkpoint_epoch={epoch}.pt"
    torch.save({"identity": {"phase": "1"}, "weights": torch.zeros(1000)}, path)
    return path


def test_a_checkpoint_that_is_cut_off_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = write(tmp_path, 2)
    assert read_checkpoint(path)["identity"] == {"phase": "1"}
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"checkpoint_epoch=2\.pt: cannot be read as a checkpoint .*--resume false"):
        check_resumable(tmp_path, resume=True, max_epochs=5)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"checkpoint_epoch=2\.pt: cannot be read"):
        check_resumable(tmp_path, resume=True, max_epochs=5)
    check_resumable(tmp_path, resume=False, max_epochs=5)


def test_fewer_epochs_than_are_trained_already_are_refused(tmp_path: Path) -> None:
    check_resumable(tmp_path, resume=True, max_epochs=1)
    write(tmp_path, 3)
    check_resumable(tmp_path, resume=True, max_epochs=3)
    with pytest.raises(ValueError, match=r"that far already, and max_epochs=2 is less\. Give --max_epochs 3 or more"):
        check_resumable(tmp_path, resume=True, max_epochs=2)
