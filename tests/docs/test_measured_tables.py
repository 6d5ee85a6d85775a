"""The tables of finished cells in docs/ are those that the committed cells give."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from benchmarks.write_tables import DOCS, TABLES, divided, main


@pytest.mark.parametrize(("place", "report"), TABLES.items(), ids=[mark for _, mark in TABLES])
def test_tables_are_of_the_committed_cells(place: tuple[str, str], report: Callable[[], str]) -> None:
    name, mark = place
    _, table, after = divided((DOCS / name).read_text(encoding="utf-8"), mark)
    assert table.strip() == report().strip()
    assert after.startswith(f"<!-- end of {mark} -->")


def test_a_document_without_a_mark_is_left_alone(tmp_path: Path) -> None:
    for name, mark in TABLES:
        text = (DOCS / name).read_text(encoding="utf-8").replace(f"<!-- end of {mark} -->", "")
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"<!-- end of cells -->: stands 0 times"):
        main(tmp_path)
    assert "<!-- cells -->" in (tmp_path / "benchmark.md").read_text(encoding="utf-8")


def test_writing_the_tables_keeps_the_text_around_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, mark in TABLES:
        _, table, _ = divided(_text(name), mark)
        # The reports themselves, which take long, are compared above.
        monkeypatch.setitem(TABLES, (name, mark), partial(str, table))
    for name, mark in TABLES:
        if not (tmp_path / name).exists():
            shutil.copyfile(DOCS / name, tmp_path / name)
        before, _, after = divided((tmp_path / name).read_text(encoding="utf-8"), mark)
        (tmp_path / name).write_text(f"{before}old{after}", encoding="utf-8")
    main(tmp_path)
    for name, _ in TABLES:
        assert (tmp_path / name).read_text(encoding="utf-8") == _text(name)


def _text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")
