"""Tests of finding files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mixstyleflow_monai.data.file_search import folders_below, search


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Patients p1 to p3 with a file each, of which p3 lies elsewhere, and a circle of links."""
    root = tmp_path / "root"
    for folder in (root / "site" / "p1", root / "site" / "p2", tmp_path / "p3"):
        folder.mkdir(parents=True)
        (folder / "t2.png").touch()
    (root / "site" / "p3").symlink_to(tmp_path / "p3")
    (root / "site" / "p3" / "up").symlink_to(root)
    return root


@pytest.mark.parametrize(
    ("pattern", "patients"),
    [
        ("site/*/t2.png", "123"),
        ("**/t2.png", "123"),
        ("**/*.png", "123"),
        ("site/**/t?.png", "123"),
        ("site/p[12]/*.png", "12"),
        ("./site//p1/*", "1"),
        ("site/p1/../p2/t2.png", "2"),
        ("site/p1", ""),
        ("sites/*/t2.png", ""),
        ("site/*/", ""),
        ("site/.", ""),
    ],
)
def test_a_pattern_finds_each_file_once(pattern: str, patients: str, tree: Path) -> None:
    found = [Path(os.path.realpath(path)).parent.name for path in search(tree, pattern) if path.is_file()]
    assert sorted(found) == [f"p{number}" for number in patients]


def test_folders_are_walked_in_order_and_once(tree: Path) -> None:
    assert [path.relative_to(tree).as_posix() for path in folders_below(tree)] == [
        *(".", "site", "site/p1", "site/p2", "site/p3")
    ]


def test_a_folder_comes_by_its_own_path_and_not_by_a_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "study" / "deep").mkdir(parents=True)
    for link in ("a", ".current"):
        (tmp_path / link).symlink_to(tmp_path / "study")
    assert list(folders_below(tmp_path)) == [tmp_path, tmp_path / "study", tmp_path / "study" / "deep"]


def test_hidden_and_closed_folders_can_be_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", ".trash", "closed/below"):
        (tmp_path / name).mkdir(parents=True)
    genuine = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed" and genuine(path, mode))
    assert list(folders_below(tmp_path, hidden=False, skip_closed=True)) == [tmp_path, tmp_path / "a"]
    assert "closed: permission denied" in caplog.text
    with pytest.raises(PermissionError, match="closed: permission denied"):
        list(folders_below(tmp_path))


def test_absolute_patterns_and_closed_folders_are_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="it is absolute"):
        search(tree, "/etc/*")
    genuine = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "p2" and genuine(path, mode))
    for pattern in ("**/t2.png", "site/*/*.png"):
        with pytest.raises(PermissionError, match=r"p2: permission denied"):
            search(tree, pattern)
