"""Another domain as the source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mixstyleflow_monai.data.dataset_description import SPLITS, load_dataset, verify_hashes
from mixstyleflow_monai.data.resplit import resplit_dataset
from tests.small_dataset import PAIR_FRACTIONS, make_pairs


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two domains of 20 cases each, in groups of two; source ``left``, half of it train."""
    fractions = dict(zip(SPLITS, PAIR_FRACTIONS, strict=True))
    return make_pairs(tmp_path / "dataset", 10, processing={"made_by": "hand", "split": {**fractions, "seed": 3}})


def test_the_new_source_is_divided_and_files_stay_where_they_are(dataset: Path) -> None:
    before = load_dataset(dataset)
    after = load_dataset(resplit_dataset(dataset, "right", dataset.parent / "deep" / "new"))
    assert after.domains == ["right", "left"]
    assert [len(after.select(split, "right")) for split in ("train", "validation", "test")] == [10, 4, 6]
    assert {case.split for case in after.select(domain="left")} == {"test"}
    for old, new in zip(before.cases, after.cases, strict=True):
        assert (new.image, new.label, new.sha256, new.group) == (old.image, old.label, old.sha256, old.group)
    assert list(verify_hashes(after)) == []
    assert [path.name for path in after.path.parent.iterdir()] == ["dataset.json"]
    assert after.processing["split"]["seed"] == 3
    assert after.processing["resplit"] == {
        "from_source_domain": "left",
        "from_sha256": before.sha256,
        "from": {"split": before.processing["split"]},
    }


def test_there_and_back_gives_the_same_division(dataset: Path) -> None:
    first = resplit_dataset(dataset, "left", dataset.parent / "same")
    resplit_dataset(dataset, "right", dataset.parent / "other")
    back = resplit_dataset(dataset.parent / "other", "left", dataset.parent / "back")
    assert load_dataset(back).cases == load_dataset(first).cases


def test_the_seed_changes_the_division(dataset: Path) -> None:
    divisions = {
        tuple(case.split for case in load_dataset(resplit_dataset(dataset, "right", dataset.parent / str(s), s)).cases)
        for s in range(4)
    }
    assert len(divisions) > 1


def test_a_data_set_moved_together_with_its_resplit_still_loads(dataset: Path) -> None:
    resplit_dataset(dataset, "right", dataset.parent / "new")
    moved = dataset.parent.parent / f"{dataset.parent.name}_moved"
    dataset.parent.rename(moved)
    assert len(load_dataset(moved / "new").cases) == 40


def test_links_to_the_output_are_followed(dataset: Path) -> None:
    (dataset.parent / "far" / "away").mkdir(parents=True)
    (dataset.parent / "link").symlink_to(dataset.parent / "far" / "away")
    resplit_dataset(dataset, "right", dataset.parent / "link" / "new")
    for path in ("link/new", "far/away/new"):
        assert load_dataset(dataset.parent / path).cases[0].image == dataset.resolve() / "left0.png"


def processing(dataset: Path, **facts: Any) -> None:
    content = json.loads((dataset / "dataset.json").read_text())
    content["processing"] = facts
    (dataset / "dataset.json").write_text(json.dumps(content))


THREE = {"train": 0.5, "validation": 0.2, "test": 0.3}


@pytest.mark.parametrize(
    "split",
    [
        "by hand",
        None,
        7,
        [0.5, 0.2, 0.3],
        {},
        {"train": 0.5},
        {"train": 10, "validation": 3, "test": 7},
        {**THREE, "train": "0.5"},
        {**THREE, "test": True},
        {**THREE, "test": 10**400},
        {**THREE, "test": None},
    ],
)
def test_a_recorded_division_that_cannot_be_used_gives_the_default_and_is_told(
    split: object, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    processing(dataset, made_by="hand", split=split)
    after = load_dataset(resplit_dataset(dataset, "right", dataset.parent / "new"))
    assert [len(after.select(name, "right")) for name in ("train", "validation", "test")] == [14, 2, 4]
    assert after.processing["split"] == {"train": 0.7, "validation": 0.1, "test": 0.2, "seed": 0}
    assert after.processing["resplit"]["from"] == {"split": split}
    assert "note: " in (told := capsys.readouterr().out)
    assert "by the default train 0.7, validation 0.1, test 0.2" in told


@pytest.mark.parametrize("seed", ["x", -1, 1.5, True, None])
def test_a_recorded_seed_that_cannot_be_used_gives_0(seed: object, dataset: Path) -> None:
    processing(dataset, split={**THREE, "seed": seed})
    after = load_dataset(resplit_dataset(dataset, "right", dataset.parent / "new"))
    assert after.processing["split"] == {**THREE, "seed": 0}


def test_facts_of_the_old_division_are_told_as_such(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = {"split": {**THREE, "seed": 3}, "notes": ["2 of 22"], "unused_training_patients": ["p1"], "train_fraction": 1}
    processing(dataset, made_by="data_prep prostate", resampled=False, **old)
    after = load_dataset(resplit_dataset(dataset, "right", dataset.parent / "new"))
    assert set(after.processing) == {"made_by", "resampled", "split", "resplit"}
    assert after.processing["resplit"]["from"] == old
    assert capsys.readouterr().out == ""


def test_an_output_that_is_a_dead_link_is_refused(dataset: Path) -> None:
    (dataset.parent / "link").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"--output .*link: is a link that leads nowhere"):
        resplit_dataset(dataset, "right", dataset.parent / "link")


def test_deep_nesting_and_equal_keys_are_told(dataset: Path) -> None:
    path = dataset / "dataset.json"
    text = path.read_text()
    for processing_text in ("[" * 100_000, f"{'[' * 3000}{']' * 3000}"):
        path.write_text(text.replace('"processing": {', f'"processing": {{"x": {processing_text}, '))
        with pytest.raises(ValueError, match=r"dataset\.json: not valid JSON \(.* more than 100 deep\)\. Write it"):
            resplit_dataset(dataset, "right", dataset.parent / "new")
    path.write_text(text.replace('"name": "pairs"', '"name": "pairs", "name": "other"'))
    with pytest.raises(ValueError, match=r"dataset\.json: not valid JSON \(key 'name' is given twice; remove one\)"):
        resplit_dataset(dataset, "right", dataset.parent / "new")
    assert not (dataset.parent / "new").exists()


def test_mistakes_are_told_with_remedy(dataset: Path) -> None:
    with pytest.raises(ValueError, match=r"--source: .* no domain 'rigth', allowed: left, right; did you mean 'right'"):
        resplit_dataset(dataset, "rigth", dataset.parent / "new")
    with pytest.raises(ValueError, match=r"--output .*dataset: exists and is not an empty folder"):
        resplit_dataset(dataset, "right", dataset)
    with pytest.raises(FileNotFoundError, match=r"dataset\.json: no such file"):
        resplit_dataset(dataset.parent / "none", "right", dataset.parent / "new")
