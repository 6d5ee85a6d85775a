"""The names that the package exports are there, and loading it is light."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pydoc import locate

import pytest

from mixstyleflow_monai import data


@pytest.mark.parametrize("name", data.__all__)
def test_exported_names_are_found_by_python_and_by_monai_s_configurations(name: str) -> None:
    found = getattr(data, name)
    assert callable(found)
    assert locate(f"mixstyleflow_monai.data.{name}") is found
    assert name in dir(data)


def test_no_module_has_the_name_of_an_exported_object() -> None:
    for name in ("augmentations", "dataset_description", "inference", "regions", "slices", "task", "transforms"):
        import_module(f"mixstyleflow_monai.data.{name}")
        assert name not in data.__all__


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Tusk'"):
        _ = data.Tusk


def test_reading_a_data_set_needs_neither_torch_nor_monai() -> None:
    program = (
        "import sys, data_prep.__main__\n"
        "from mixstyleflow_monai.data import load_dataset\n"
        "print(sorted({'torch', 'monai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "[]"
