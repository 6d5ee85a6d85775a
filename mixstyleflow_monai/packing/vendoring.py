"""This package inside a bundle, and configurations that find it there.

A bundle's configurations name this package in ``imports``. MONAI evaluates these before anything else, and puts the
bundle's folder on ``sys.path`` only afterwards, so that a package in that folder is found from inside the folder alone
(https://github.com/Project-MONAI/MONAI/issues/6722). A packed configuration therefore has no imports of this package:
it has ids in their place, ``@module_data`` for ``data``, which are resolved on first use, after the id ``vendored``
has found the bundle's folder and put it in front of ``sys.path``.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mixstyleflow_monai.artifacts import write_json
from mixstyleflow_monai.bundle_paths import PACKAGE

IMPORT = re.compile(r"\$import (mixstyleflow_monai(?:\.\w+)*)(?: as (\w+))?")
HELPERS = ("$import sys", "$import inspect", "$import pathlib", "$import pkgutil")
ERRORS = "mixstyleflow_monai.bundle_errors"
# Bundles of the wheel, and commands, which work on the three bundles together.
_COMMANDS = {
    "cli.py",
    "command_line.py",
    "__main__.py",
    "options.py",
    "pipeline.py",
    "bundle_runs.py",
    "evaluate_run.py",
}
NOT_VENDORED = {
    PACKAGE: {"bundles", "benchmark", "packing", *_COMMANDS},
    PACKAGE / "report": {"run_report.py", "predictions.py", "templates"},
}
"""What stays behind, by folder."""

# Where the bundle is, the surest first: around the file that MONAI is reading, as its functions on the call stack know
# it; on the search path, where the Model Zoo's checks and MONAI Label put it; the working directory.
CONFIG_FILES = (
    "$[pathlib.Path(file) for entry in inspect.stack(0) for file in ("
    "*([entry.frame.f_locals['self'].config_root_path / 'metadata.json'] "
    "if isinstance(entry.frame.f_locals.get('self'), monai.bundle.ConfigWorkflow) else []), "
    "*(monai.utils.ensure_tuple(entry.frame.f_locals.get('config_file_') or ())[:1]))]"
)
CANDIDATES = (
    "$[*(file.resolve().parent.parent for file in @config_files), "
    "*(pathlib.Path(entry).resolve() for entry in sys.path if entry), pathlib.Path.cwd()]"
)
ROOTS = (
    "$[str(folder) for folder in @root_candidates if (folder / 'configs' / 'metadata.json').is_file() "
    "and (folder / 'mixstyleflow_monai' / 'bundle_paths.py').is_file()][:1]"
)
# The list of the folder in front of sys.path: empty if there is none, then the package must be installed.
VENDORED = "$[root for root in @vendored_roots if root in sys.path[:1] or sys.path.insert(0, root) is None]"


def vendor_package(root: Path) -> None:
    """Copy this package into a bundle's folder, without the commands of the repository, bundles and caches."""

    def ignored(folder: str, names: list[str]) -> set[str]:
        caches = {name for name in names if name == "__pycache__" or name.endswith(".pyc") or name.startswith(".")}
        return caches | (NOT_VENDORED.get(Path(folder), set()) & set(names))

    shutil.copytree(PACKAGE, root / PACKAGE.name, ignore=ignored)
    shutil.copyfile(root / "LICENSE", root / PACKAGE.name / "LICENSE")


def vendor_configs(configs: Path, change: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
    """Rewrite the configurations of a folder so that they find the package in the bundle.

    Args:
        configs: folder of a bundle's copy.
        change: called with name and content of each file, returns what to make of it.
    """
    contents = {
        path: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(configs.rglob("*.json"))
        if path.name != "metadata.json"
    }
    modules: dict[str, str] = {}
    for content in contents.values():
        modules |= _own_imports(content)
    for path, content in contents.items():
        name = path.relative_to(configs).with_suffix("").as_posix()
        write_json(path, change(name, vendored_config(content, modules)))


def _own_imports(content: Mapping[str, Any]) -> dict[str, str]:
    """Return name in expressions -> module, of this package, that a configuration imports."""
    found = (IMPORT.fullmatch(line) for line in content.get("imports", []))
    return {match[2] or match[1].rpartition(".")[2]: match[1] for match in found if match}


def vendored_config(content: Mapping[str, Any], modules: Mapping[str, str]) -> dict[str, Any]:
    """Return a configuration that finds this package in the bundle's folder, from any working directory.

    Args:
        content: configuration.
        modules: name in expressions -> module of this package; an overlay uses names that train.json imports.
    """
    names = "|".join(map(re.escape, modules))
    pattern = re.compile(rf"(?<![\w.@'\"])({names})\.") if names else None

    def rewritten(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rewritten(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [rewritten(entry) for entry in value]
        if isinstance(value, str) and value.startswith("$") and not value.startswith("$import ") and pattern:
            return pattern.sub(r"@module_\1.", value)
        return value

    result: dict[str, Any] = rewritten(dict(content))
    if "bundle_root" in result:
        result["bundle_root"] = f"$@vendored[0] if @vendored else {_by_name(result['bundle_root'].removeprefix('$'))}"
    own = _own_imports(content)
    if "imports" in result:
        kept = [line for line in result.pop("imports") if not IMPORT.fullmatch(line)]
        ids: dict[str, Any] = {"imports": list(dict.fromkeys([*HELPERS, *kept]))}
    else:
        ids = {}
    if own:
        ids |= {
            "config_files": CONFIG_FILES,
            "root_candidates": CANDIDATES,
            "vendored_roots": ROOTS,
            "vendored": VENDORED,
            **{f"module_{name}": f"$(@vendored, pkgutil.resolve_name('{module}'))[1]" for name, module in own.items()},
        }
    if "initialize" in result:
        # What is opened next may name a class of this package and refer to nothing that finds the package.
        result["initialize"] = ["$@vendored", f"$pkgutil.resolve_name('{ERRORS}')", *result["initialize"]]
    return {**ids, **result}


def _by_name(expression: str) -> str:
    """Return an expression without the word "import": MONAI parses one that has it as Python, and "@" is none."""
    return re.sub(r"__import__\('(mixstyleflow_monai\.\w+)'\)\.\w+", r"pkgutil.resolve_name('\1')", expression)
