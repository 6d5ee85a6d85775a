"""The tables of finished cells in docs/ are those that the committed cells give."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import factors, methods

DOCS = Path(__file__).resolve().parents[2] / "docs"


def between(name: str, mark: str) -> str:
    """Return what stands between two marks of a document."""
    text = (DOCS / name).read_text(encoding="utf-8")
    return text.split(f"<!-- {mark} -->\n")[1].split(f"<!-- end of {mark} -->")[0].strip()


@pytest.mark.parametrize(
    ("document", "mark", "report"),
    [("benchmark.md", "cells", methods.report), ("method_study.md", "factors", factors.report)],
)
def test_tables_are_of_the_committed_cells(document: str, mark: str, report: object) -> None:
    assert between(document, mark) == report().strip()  # type: ignore[operator]
