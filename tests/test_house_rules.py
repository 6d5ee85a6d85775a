"""Rules of the house that a linter does not know: which way imports point, how long a function is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What builds on a package, and so must not be imported by it.
ABOVE = {
    "mixstyleflow_monai": {"data_prep", "benchmarks", "bundles", "tests", "tools"},
    "data_prep": {"benchmarks", "bundles", "tests", "tools"},
}


def imported(path: Path) -> set[str]:
    """Return the top-level packages that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module))
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("package", ABOVE)
def test_package_imports_nothing_that_builds_on_it(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 20
    assert {str(path.relative_to(ROOT)): found for path in files if (found := imported(path) & ABOVE[package])} == {}


def test_imports_are_found_wherever_they_are(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("import a.b as c, d\nfrom . import e\ndef f():\n    from g.h import i\n", encoding="utf-8")
    assert imported(path) == {"a", "d", "g"}


@pytest.mark.parametrize("folder", ["mixstyleflow_monai", "data_prep", "benchmarks", "tools"])
def test_functions_have_fewer_than_sixty_lines(folder: str) -> None:
    lengths = {
        f"{path.relative_to(ROOT)}, {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert lengths
    assert {name: length for name, length in lengths.items() if length >= 60} == {}
