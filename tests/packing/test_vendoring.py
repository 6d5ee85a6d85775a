"""Packed configurations name this package only where MONAI finds it in the bundle."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir
from mixstyleflow_monai.packing.vendoring import vendor_configs, vendor_package, vendored_config

MODULES = {"data": "mixstyleflow_monai.data", "engines": "mixstyleflow_monai.engines"}


def expressions(value: Any) -> list[str]:
    """All expressions of a configuration."""
    if isinstance(value, dict):
        return [text for entry in value.values() for text in expressions(entry)]
    if isinstance(value, list):
        return [text for entry in value for text in expressions(entry)]
    return [value] if isinstance(value, str) and value.startswith("$") else []


def names(expression: str) -> set[str]:
    """Names that an expression takes from its surroundings; references are none."""
    tree = ast.parse(re.sub(r"@[\w#:]+", "None", expression.removeprefix("$")))
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("$data.load(@dataset_dir)", "$@module_data.load(@dataset_dir)"),
        ("$[data.a(), engines.b(data.c)]", "$[@module_data.a(), @module_engines.b(@module_data.c)]"),
        ("$@dataset.data", "$@dataset.data"),
        ("$f(data=@train#dataset#data)", "$f(data=@train#dataset#data)"),
        ("$'data.json'", "$'data.json'"),
        ("$monai.data.Dataset", "$monai.data.Dataset"),
        ("data.json", "data.json"),
    ],
)
def test_only_names_of_this_package_are_replaced(before: str, after: str) -> None:
    assert vendored_config({"a": [{"b": before}]}, MODULES) == {"a": [{"b": after}]}


@pytest.mark.parametrize("name", PHASE_BUNDLES.values())
def test_no_configuration_of_a_bundle_imports_the_package_or_uses_its_names(name: str, tmp_path: Path) -> None:
    source = bundles_dir() / name / "configs"
    for path in source.rglob("*.json"):
        target = tmp_path / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    aliases = set(re.findall(r"\$import mixstyleflow_monai[\w.]* as (\w+)", (source / "train.json").read_text()))
    assert aliases >= {"data", "engines"}
    vendor_configs(tmp_path, lambda _, content: content)
    changed = 0
    for path in sorted(tmp_path.rglob("*.json")):
        content, original = (json.loads((root / path.relative_to(tmp_path)).read_text()) for root in (tmp_path, source))
        changed += content != original
        for expression in expressions(content):
            assert not expression.startswith("$import mixstyleflow_monai")
            # MONAI parses an expression with this word in it as Python, which "@" is not.
            assert "@" not in expression or "import" not in expression
            if not expression.startswith("$import "):
                assert names(expression) & aliases == set(), expression
    assert changed >= 3


def test_vendored_package_has_the_sources_and_a_licence_and_no_commands(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("licence")
    vendor_package(tmp_path)
    copied = tmp_path / "mixstyleflow_monai"
    assert (copied / "LICENSE").read_text() == "licence"
    assert (copied / "data" / "dataset_schema.json").is_file()
    assert not {"bundles", "cli.py", "__main__.py"} & {path.name for path in copied.iterdir()}
    assert not list(copied.rglob("__pycache__"))


def test_vendored_package_imports_only_itself_and_what_the_metadata_require(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("licence")
    vendor_package(tmp_path)
    metadata = json.loads((bundles_dir() / PHASE_BUNDLES[3] / "configs" / "metadata.json").read_text())
    modules = {"pillow": "PIL", "pytorch-ignite": "ignite"}
    required = {modules.get(name, name) for name in metadata["required_packages_version"]} | {"monai", "numpy", "torch"}
    # ONNX is a form of export that needs packages of its own, and says so; requests comes with mlflow.
    allowed = required | {"onnx", "onnxscript", "requests"} | set(sys.stdlib_module_names)
    for path in tmp_path.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name.split(".")[0] == "mixstyleflow_monai":
                    module = tmp_path.joinpath(*name.split("."))
                    assert module.is_dir() or module.with_suffix(".py").is_file(), f"{path}: {name}"
                else:
                    assert name.split(".")[0] in allowed, f"{path}: {name}"


@pytest.mark.parametrize("name", PHASE_BUNDLES.values())
def test_metadata_require_what_the_package_imports(name: str, tmp_path: Path) -> None:
    """An environment of the requirements is not made here, so that nobody would notice one that is missing."""
    (tmp_path / "LICENSE").touch()
    vendor_package(tmp_path)
    imported = set()
    for path in (tmp_path / "mixstyleflow_monai").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).partition(".")[0])
    metadata = json.loads((bundles_dir() / name / "configs" / "metadata.json").read_text(encoding="utf-8"))
    packages = {"pillow": "PIL", "pytorch-ignite": "ignite"}
    required = {packages.get(package, package) for package in metadata["required_packages_version"]}
    # MONAI's metadata name these three elsewhere. ONNX is asked for where it is missing; requests is MLflow's.
    known = {"torch", "monai", "numpy", "onnx", "onnxscript", "requests", "mixstyleflow_monai"}
    assert imported - set(sys.stdlib_module_names) - known <= required
