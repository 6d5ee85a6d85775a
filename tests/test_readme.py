"""The README's commands and examples run."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fire
import monai.bundle
import numpy as np
import pytest
import torch
import yaml
from monai.utils import set_determinism
from PIL import Image

from data_prep.__main__ import main as data_prep_main
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.cli import main as package_main
from tests.small_dataset import SMALL, make_dataset

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def small_options(allowed: set[str]) -> list[str]:
    return [text for key, value in SMALL.items() if key in allowed for text in (f"--{key}", str(value))]


def run_line(line: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one command of the README in process, with a small data set and small settings."""
    places = {"DATASET": "dataset", "SPEC.yaml": "spec.yaml", "FOLDER": "raw", "IMAGES": "dataset"}
    words = [places.get(word, word) for word in shlex.split(line)]
    assert words[:2] == ["python", "-m"], line
    module, arguments = words[2], words[3:]
    if module == "monai.bundle":
        config = Path(arguments[arguments.index("--config_file") + 1])
        if config.name == "train.json":
            ids = set(re.findall(r'^    "(\w+)":', config.read_text(encoding="utf-8"), flags=re.MULTILINE))
            arguments += small_options(ids)
        # A bundle finds its folder by the command line.
        monkeypatch.setattr("sys.argv", ["monai.bundle", *arguments])
        fire.Fire({"run": monai.bundle.run}, command=arguments, serialize=lambda _: None)
    elif module == "mixstyleflow_monai":
        assert package_main([*arguments, *(small_options(set(SMALL)) if arguments[0] == "run" else [])]) == 0
    else:
        assert module == "data_prep"
        if "--output" in arguments and arguments[0] == "folder":
            shutil.rmtree(workplace / "dataset")
        assert data_prep_main(arguments) == 0


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with copies of the bundles, a data set, and raw images with a description of them."""
    for name in PHASE_BUNDLES.values():
        shutil.copytree(ROOT / "bundles" / name / "configs", tmp_path / "bundles" / name / "configs")
    make_dataset(tmp_path / "dataset")
    random = np.random.default_rng(0)
    for site in ("here", "there"):
        (tmp_path / "raw" / site).mkdir(parents=True)
        for number in range(6):
            image = random.integers(0, 255, (40, 40), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / "raw" / site / f"{number}.png")
            Image.fromarray((image > 120).astype(np.uint8)).save(tmp_path / "raw" / site / f"{number}_label.png")
    domains = {site: {"images": f"{site}/?.png", "labels": f"{site}/{{stem}}_label.png"} for site in ("here", "there")}
    spec: dict[str, Any] = {"name": "mine", "spatial_dims": 2, "regions": {"blob": [1]}, "source_domain": "here"}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({**spec, "domains": domains}))
    monkeypatch.chdir(tmp_path)
    # MONAI configures logging for the whole process.
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield tmp_path
    root.handlers[:], root.level = handlers, level
    set_determinism(seed=None)


@pytest.mark.slow
def test_every_command_runs_in_the_order_of_the_readme(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]
    assert len(lines) >= 9
    for line in lines:
        run_line(line, workplace, monkeypatch)
    assert (workplace / "runs" / "mine" / "evaluation.json").is_file()
    assert (workplace / "runs" / "mine_again" / "evaluation.csv").is_file()
    assert (workplace / "runs" / "mine_again.html").is_file()
    assert list((workplace / "bundles" / PHASE_BUNDLES[3] / "predictions").rglob("*_seg.png"))


def test_python_example_runs() -> None:
    (example,) = blocks("python")
    names: dict[str, Any] = {}
    # A smaller picture shows the same thing.
    exec(example.replace("96, 96", "32, 32"), names)
    assert isinstance(names["stylised"], torch.Tensor)
    assert names["stylised"].shape == (20, 1, 32, 32)


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w+)", README):
        if target in ("demo", "test"):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_links_and_figures_exist() -> None:
    for target in re.findall(r"\]\((?!https:)([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target
