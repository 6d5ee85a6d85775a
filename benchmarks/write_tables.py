"""Put the tables of the finished cells into ``docs/``: ``python -m benchmarks.write_tables``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import factors, method_choice, methods, style_tables, unseen_styles
from mixstyleflow_monai.artifacts import atomic_path

DOCS = Path(__file__).resolve().parents[1] / "docs"
TABLES: dict[tuple[str, str], Callable[[], str]] = {
    ("benchmark.md", "cells"): methods.report,
    ("method_study.md", "styles"): style_tables.report,
    ("method_study.md", "painted"): style_tables.painted,
    ("method_study.md", "factors"): factors.report,
    ("method_study.md", "unseen styles"): unseen_styles.report,
    ("method_study.md", "choice"): method_choice.report,
}
"""Document and mark -> what stands between ``<!-- mark -->`` and ``<!-- end of mark -->``."""


def divided(text: str, mark: str) -> tuple[str, str, str]:
    """Return what stands before a mark's table, the table, and what stands after it.

    Raises:
        ValueError: one of the two marks is not there exactly once.
    """
    for wanted in (f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"):
        count = text.count(wanted)
        if count != 1:
            raise ValueError(f"{wanted.strip()}: stands {count} times in the document, it must stand once.")
    before, _, rest = text.partition(f"<!-- {mark} -->\n")
    table, _, after = rest.partition(f"<!-- end of {mark} -->")
    return f"{before}<!-- {mark} -->\n", table, f"<!-- end of {mark} -->{after}"


def main(docs: Path = DOCS) -> None:
    """Write all tables anew; the text around them is kept."""
    for (name, mark), report in TABLES.items():
        path = docs / name
        before, _, after = divided(path.read_text(encoding="utf-8"), mark)
        with atomic_path(path) as partial:
            partial.write_text(f"{before}{report().strip()}\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
