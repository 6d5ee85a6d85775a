"""dataset.json: what is refused, and what is read back."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixstyleflow_monai.data.dataset_description import check_files, load_dataset, save_dataset, verify_hashes
from tests.small_dataset import make_dataset

Change = Callable[[dict[str, Any]], object]


def make_case(folder: Path, name: str, domain: str, split: str) -> dict[str, Any]:
    """Write two small files and describe them as a case."""
    hashes = {}
    for kind in ("image", "label"):
        path = folder / f"{name}_{kind}.png"
        path.write_bytes(f"{name} {kind}".encode())
        hashes[kind] = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "id": name,
        "domain": domain,
        "group": f"group {name}",
        "split": split,
        "image": f"{name}_image.png",
        "label": f"{name}_label.png",
        "sha256": hashes,
        "spacing": [0.5, 0.75],
    }


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    splits = [("a", "train"), ("b", "validation"), ("c", "test")]
    cases = [make_case(tmp_path, name, "home", split) for name, split in splits]
    cases += [make_case(tmp_path, name, domain, "test") for name, domain in (("z", "zoo"), ("y", "bay"))]
    return {
        "format": 1,
        "name": "tiny",
        "spatial_dims": 2,
        "channels": 3,
        "regions": {"disc": [1, 2], "cup": [2]},
        "source_domain": "home",
        "cases": cases,
        "processing": {"anything": ["goes"]},
    }


def test_what_is_saved_is_read_back(tmp_path: Path, content: dict[str, Any]) -> None:
    path = save_dataset(tmp_path, content)
    for place in (tmp_path, path):
        description = load_dataset(place)
        assert json.loads(description.path.read_text()) == content
        assert description.regions == content["regions"]
        assert [case.id for case in description.cases] == ["a", "b", "c", "z", "y"]
        assert description.cases[0].image == tmp_path.resolve() / "a_image.png"
        assert description.cases[0].spacing == (0.5, 0.75)
        assert description.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_source_comes_first_and_unseen_domains_are_sorted(tmp_path: Path, content: dict[str, Any]) -> None:
    description = load_dataset(save_dataset(tmp_path, content))
    assert description.domains == ["home", "bay", "zoo"]
    assert description.unseen_domains == ["bay", "zoo"]


def test_without_a_source_all_cases_are_test_cases(tmp_path: Path, content: dict[str, Any]) -> None:
    content["source_domain"] = None
    message = r"2 problems\n  case 'a': split 'train', .* source \(None\); .* only be in 'test'\n  case 'b'"
    with pytest.raises(ValueError, match=message):
        save_dataset(tmp_path, content)
    content["cases"] = [{**case, "split": "test"} for case in content["cases"][:1]]
    description = load_dataset(save_dataset(tmp_path, content))
    assert description.domains == description.unseen_domains == ["home"]
    assert description.select("test") == description.select("all") == description.cases
    for split in ("train", "validation"):
        with pytest.raises(ValueError, match=r"dataset\.json: source_domain is null: no case to train on or choose by"):
            description.select(split)


def test_select_and_datalist_follow_split_and_domain(tmp_path: Path, content: dict[str, Any]) -> None:
    description = load_dataset(save_dataset(tmp_path, content))
    assert [case.id for case in description.select("test")] == ["c", "z", "y"]
    assert [case.id for case in description.select(domain="home")] == ["a", "b", "c"]
    folder = tmp_path.resolve()
    assert description.datalist("test", "zoo") == [
        {
            "image": str(folder / "z_image.png"),
            "label": str(folder / "z_label.png"),
            "case_id": "z",
            "domain": "zoo",
            "group": "group z",
        }
    ]
    with pytest.raises(
        ValueError, match=r"no split 'training', allowed: train, validation, test, all; did you mean 'train'"
    ):
        description.select("training")
    with pytest.raises(ValueError, match=r"no domain 'zoe', allowed: home, bay, zoo; did you mean 'zoo'"):
        description.select(domain="zoe")


def test_files_reached_by_parent_folders_are_found(tmp_path: Path, content: dict[str, Any]) -> None:
    for case in content["cases"]:
        case["image"], case["label"] = f"../{case['image']}", f"../{case['label']}"
    description = load_dataset(save_dataset(tmp_path / "below", content))
    assert description.cases[0].image == tmp_path.resolve() / "a_image.png"


def test_changed_and_missing_files_are_told_by_their_hashes(tmp_path: Path, content: dict[str, Any]) -> None:
    description = load_dataset(save_dataset(tmp_path, content))
    assert list(verify_hashes(description)) == []
    (tmp_path / "a_image.png").write_bytes(b"changed")
    (tmp_path / "z_label.png").unlink()
    found = {(entry.case_id, entry.kind, entry.found is None) for entry in verify_hashes(description)}
    assert found == {("a", "image", False), ("z", "label", True)}


def set_in(*keys: Any, value: Any) -> Change:
    """Return a change that sets ``content[keys[0]][keys[1]]... = value``."""

    def change(content: dict[str, Any]) -> None:
        node: Any = content
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value

    return change


MISTAKES: dict[str, tuple[Change, str]] = {
    "unknown key": (set_in("sorce_domain", value="x"), r"unknown key 'sorce_domain'; did you mean 'source_domain'\?"),
    "unknown case key": (
        set_in("cases", 1, "weight", value=2),
        r"cases\[1\] \(id 'b'\): unknown key 'weight' \(allowed: id, domain",
    ),
    "missing key": (lambda content: content.pop("channels"), r"top level: key 'channels' is missing; add it"),
    "missing hash": (
        lambda content: content["cases"][0]["sha256"].pop("label"),
        r"cases\[0\] \(id 'a'\)\.sha256: key 'label' is missing",
    ),
    "wrong split": (
        set_in("cases", 0, "split", value="trian"),
        r"cases\[0\] \(id 'a'\)\.split: found 'trian', allowed: 'train', 'validation', 'test'; did you mean 'train'",
    ),
    "wrong type": (set_in("channels", value="3"), r"channels: found '3' \(str\), expected integer"),
    "wrong dimensions": (set_in("spatial_dims", value=4), r"spatial_dims: found 4, allowed: 2, 3"),
    "wrong format": (set_in("format", value=2), r"format: found 2, allowed: 1"),
    "region 0": (set_in("regions", "cup", value=[0]), r"regions\.cup\[0\]: found 0, .* minimum: 1"),
    "empty region": (set_in("regions", "cup", value=[]), r"regions\.cup: found \[\], needs at least 1"),
    "no regions": (set_in("regions", value={}), r"regions: found \{\}, needs at least 1"),
    "not a hash": (set_in("cases", 0, "sha256", "image", value="abc"), r"sha256\.image: found 'abc', .* pattern"),
    "duplicate id": (set_in("cases", 1, "id", value="a"), r"id 'a' is used 2 times; ids must be unique"),
    "unknown source": (
        set_in("source_domain", value="hame"),
        r"no case is of the domain 'hame'; the cases have bay, home, zoo; did you mean 'home'",
    ),
    "source that is a number": (set_in("source_domain", value=1), r"source_domain: found 1 \(int\), .*string or null"),
    "unseen case in train": (
        set_in("cases", 3, "split", value="train"),
        r"case 'z': split 'train', but its domain 'zoo' is not the source \('home'\); .* may only be in 'test'",
    ),
    "empty validation": (
        set_in("cases", 1, "split", value="train"),
        r"the source domain 'home' has no 'validation' case",
    ),
    "group in two splits": (
        set_in("cases", 1, "group", value="group a"),
        r"group 'group a' of the domain 'home' is in two splits: 'a' in 'train', 'b' in 'validation'",
    ),
    "null byte": (
        set_in("cases", 0, "image", value="a\0.png"),
        r"image: found 'a\\x00\.png', allowed: text without the char",
    ),
    "half a letter": (set_in("cases", 0, "id", value="\ud800"), r"id: found '\\ud800', allowed: text without the char"),
    "spacing without bound": (
        set_in("cases", 0, "spacing", value=[1, 1e9]),
        r"spacing\[1\]: found 1000000000\.0, .*maximum",
    ),
    "spacing of a volume": (
        set_in("cases", 0, "spacing", value=[1, 1, 3]),
        r"case 'a': spacing \[1, 1, 3\] has 3 values, spatial_dims is 2",
    ),
    "missing file": (
        set_in("cases", 2, "image", value="gone.png"),
        r"case 'c': image 'gone.png' does not exist .* restore the file",
    ),
    "absolute path": (
        set_in("cases", 2, "label", value="/data/label.png"),
        r"case 'c': label '/data/label.png' is absolute; write it relative",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_named_with_value_and_remedy(mistake: str, tmp_path: Path, content: dict[str, Any]) -> None:
    change, message = MISTAKES[mistake]
    change(content)
    with pytest.raises(ValueError, match=message):
        save_dataset(tmp_path, content)
    assert not (tmp_path / "dataset.json").exists()
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load_dataset(path)


def test_same_image_in_two_splits_is_refused_also_across_domains(tmp_path: Path, content: dict[str, Any]) -> None:
    content["cases"][3]["sha256"]["image"] = content["cases"][0]["sha256"]["image"]
    with pytest.raises(
        ValueError, match=r"image hash .* is in two splits: 'a' in 'train', 'z' in 'test'; .* identical"
    ):
        save_dataset(tmp_path, content)


def test_all_problems_are_told_at_once_and_the_rest_is_counted(tmp_path: Path, content: dict[str, Any]) -> None:
    del content["name"]
    content["channels"] = 0
    with pytest.raises(ValueError, match=r"2 problems\n  .*'name' is missing.*\n  channels: found 0"):
        save_dataset(tmp_path, content)
    many = copy.deepcopy(content) | {"name": "x", "channels": 1, "cases": [{"bad": 1}] * 30}
    with pytest.raises(ValueError, match=r"270 problems(.|\n)*\.\.\. and 250 more") as caught:
        save_dataset(tmp_path, many)
    assert len(str(caught.value).splitlines()) == 22


def test_existence_of_files_need_not_be_checked(tmp_path: Path, content: dict[str, Any]) -> None:
    path = save_dataset(tmp_path, content)
    (tmp_path / "a_image.png").unlink()
    assert len(load_dataset(path, check_files=False).cases) == 5
    with pytest.raises(ValueError, match=r"'a_image\.png' does not exist"):
        load_dataset(path)


def test_a_missing_or_damaged_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"dataset.json: no such file. Make a data set with"):
        load_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match=r"dataset\.json: not valid JSON"):
        load_dataset(tmp_path)


def test_files_that_changed_since_are_told(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data")
    description = load_dataset(folder)
    assert check_files(description) is description
    (folder / "c1_label.png").write_bytes(b"corrected")
    (folder / "c2.png").unlink()
    with pytest.raises(
        ValueError, match=r"2 files are missing, or not those that it records: .*c1_label\.png, .*c2\.png"
    ):
        check_files(description)
