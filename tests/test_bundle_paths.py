"""Tests of where bundles are found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundle_root, bundles_dir

NAME = PHASE_BUNDLES[1]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of a bundle in a folder with a space in its name."""
    target = tmp_path / "my bundles" / "copied"
    shutil.copytree(bundles_dir() / NAME / "configs", target / "configs")
    return target


def test_all_bundles_are_found() -> None:
    for name in PHASE_BUNDLES.values():
        assert (bundles_dir() / name / "configs" / "train.json").is_file()


def test_given_folder_without_bundles_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no folder with phase1.* at {tmp_path}"):
        bundles_dir(tmp_path)


@pytest.mark.parametrize("form", ["{}", "['{}']", "['{}','/other/configs/x.json']"])
@pytest.mark.parametrize("glued", [False, True])
def test_config_file_on_the_command_line_decides(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, glued: bool
) -> None:
    value = form.format(copied / "configs" / "train.json")
    arguments = [f"--config_file={value}"] if glued else ["--config_file", value]
    monkeypatch.setattr("sys.argv", ["monai", "run", *arguments])
    monkeypatch.chdir(tmp_path)
    assert bundle_root(NAME) == str(copied.resolve())


def test_working_directory_that_is_a_bundle_decides_next(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["monai"])
    monkeypatch.chdir(copied)
    assert bundle_root(NAME) == str(copied.resolve())


def test_otherwise_the_shipped_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["monai"])
    monkeypatch.chdir(tmp_path)
    assert bundle_root(NAME) == str(bundles_dir() / NAME)
