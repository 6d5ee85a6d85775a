"""What an import tells of cases that it passes over, leaves out, or divides badly."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from data_prep.folder import make_folder_dataset
from mixstyleflow_monai.data.dataset_description import load_dataset
from mixstyleflow_monai.data.resplit import resplit_dataset


def write_case(root: Path, name: str, *, positive: bool = True, suffix: str = "png", size: int = 20) -> None:
    """Write an image of 20 x 20 pixels and a label of another size where that is wanted."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(sum(map(ord, name))).integers(0, 255, (20, 20), dtype=np.uint8)
    label = np.zeros((size, size), np.uint8)
    label[5:10, 5:10] = 1 if positive else 0
    Image.fromarray(image).save(root / "images" / f"{name}.{suffix}")
    Image.fromarray(label).save(root / "masks" / f"{name}.png")


def run(
    root: Path,
    split: dict[str, Any] | None = None,
    domains: dict[str, Any] | None = None,
    source: str | None = "home",
) -> str:
    """Import what is in ``root`` into ``data`` beside it; return what was printed."""
    domain = {"images": "images/*.png", "labels": "masks/{stem}.png", "label_values": {0: 0, 1: 1}}
    content: dict[str, Any] = {
        "name": "tiny",
        "spatial_dims": 2,
        "regions": {"lesion": [1]},
        "source_domain": source,
        "domains": {"home": domain, **(domains or {})},
        **({"split": split} if split else {}),
    }
    path, text = root.parent / "spec.yaml", io.StringIO()
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    make_folder_dataset(path, root.parent / "data", root, console=Console(file=text, width=1000))
    return text.getvalue()


def test_a_single_case_of_a_site_without_a_source_is_a_test_case_and_can_become_no_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_case(tmp_path / "root", "p1")
    told = run(tmp_path / "root", source=None)
    assert [line.split() for line in told.splitlines() if "unseen" in line] == [
        ["│", "home", "│", "unseen", "│", "0", "│", "0", "│", "1", "│", "1", "│", "0", "│", "6.2", "│"]
    ]
    assert "note: source_domain is null: all cases are to be tested on" in told
    content = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert (content["source_domain"], content["cases"][0]["split"]) == (None, "test")
    assert "split" not in content["processing"]
    with pytest.raises(ValueError, match=r"source_domain 'home': 1 group"):
        resplit_dataset(tmp_path / "data", "home", tmp_path / "resplit")
    assert "processing.split" not in capsys.readouterr().out  # nothing was divided, and so nothing is missing


def test_a_split_without_a_region_is_told_with_a_seed_that_has_it_everywhere(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number in range(12):
        write_case(root, f"p{number:02}", positive=number % 4 == 0)
    told = run(root)
    assert "note: no label of the source shows lesion in " in told
    seed = int(told.split("write `seed: ")[1].split("`")[0])
    (tmp_path / "data").rename(tmp_path / "first")
    assert "no label of the source shows" not in run(root, {"seed": seed})
    description = load_dataset(tmp_path / "data")
    for split in ("train", "validation"):
        labels = [np.asarray(Image.open(case.label)) for case in description.select(split)]
        assert any(label.any() for label in labels)


def test_one_case_of_a_region_cannot_be_in_two_splits(tmp_path: Path) -> None:
    for number in range(6):
        write_case(tmp_path / "root", f"p{number}", positive=number == 0)
    assert "chosen by there: add cases of the source that show it, or remove the region." in run(tmp_path / "root")


def test_two_cases_of_a_region_are_divided_for_the_training(tmp_path: Path) -> None:
    for number in range(12):
        write_case(tmp_path / "root", f"p{number:02}", positive=number in (2, 3))
    told = run(tmp_path / "root", {"seed": 1})
    assert "chosen by there: write `seed: " in told
    assert "`, with which train, validation have all regions." in told.replace("` under `split`", "`")


def test_too_few_cases_are_refused_with_why_the_others_were_left_out(tmp_path: Path) -> None:
    for number in range(5):
        write_case(tmp_path / "root", f"p{number}", size=20 if number < 2 else 18)
    message = r"at least 3 groups.* 3 images of home were left out: 3 x image and label differ in size: 20 x 20 and 18"
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "root")


def test_files_of_another_case_are_told(tmp_path: Path) -> None:
    for number in range(3):
        write_case(tmp_path / "root", f"p{number}")
    assert "passes over" not in run(tmp_path / "root")
    write_case(tmp_path / "root", "p3", suffix="PNG")
    (tmp_path / "data").rename(tmp_path / "first")
    told = run(tmp_path / "root")
    assert "note: home: `images` images/*.png passes over 1 files" in told
    assert "such as p3.PNG. Rename them, or write the letters that differ as [nN]." in told


def test_files_that_another_domain_takes_are_not_told(tmp_path: Path) -> None:
    for number in range(3):
        write_case(tmp_path / "root", f"p{number}")
        write_case(tmp_path / "root", f"q{number}", suffix="PNG")
    assert "passes over" in run(tmp_path / "root")
    (tmp_path / "data").rename(tmp_path / "first")
    away = {"images": "images/*.PNG", "labels": "masks/{stem}.png", "label_values": {0: 0, 1: 1}}
    assert "passes over" not in run(tmp_path / "root", domains={"away": away})
