"""Another domain as the source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.resplit import resplit_dataset
from data_prep.splits import assign_splits
from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.data.dataset_description import load_dataset, save_dataset, verify_hashes


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two domains of 20 cases each, in groups of two; source ``left``, half of it train."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    cases = []
    for domain in ("left", "right"):
        for number in range(20):
            name = f"{domain}{number}"
            values = np.random.default_rng([len(cases)]).integers(0, 255, (4, 4), dtype=np.uint8)
            for kind in ("image", "label"):
                Image.fromarray(values).save(folder / f"{name}_{kind}.png")
            files = {kind: f"{name}_{kind}.png" for kind in ("image", "label")}
            hashes = {kind: sha256_file(folder / file) for kind, file in files.items()}
            group = f"g{number // 2}"
            cases.append({"id": name, "domain": domain, "group": group, "spacing": None, "sha256": hashes, **files})
    fractions = {"train": 0.5, "validation": 0.2, "test": 0.3}
    content = {
        "format": 1,
        "name": "pair",
        "spatial_dims": 2,
        "channels": 1,
        "regions": {"thing": [1]},
        "source_domain": "left",
        "cases": assign_splits(cases, "left", fractions=tuple(fractions.values())),
        "processing": {"made_by": "hand", "split": {**fractions, "seed": 3}},
    }
    return save_dataset(folder, content).parent


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
    assert after.processing["resplit"] == {"from_source_domain": "left", "from_sha256": before.sha256}


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
        assert load_dataset(dataset.parent / path).cases[0].image == dataset.resolve() / "left0_image.png"


def test_mistakes_are_told_with_remedy(dataset: Path) -> None:
    with pytest.raises(ValueError, match=r"--source: .* no domain 'rigth', allowed: left, right; did you mean 'right'"):
        resplit_dataset(dataset, "rigth", dataset.parent / "new")
    with pytest.raises(ValueError, match=r"--output .*dataset: exists and is not an empty folder"):
        resplit_dataset(dataset, "right", dataset)
    with pytest.raises(FileNotFoundError, match=r"dataset\.json: no such file"):
        resplit_dataset(dataset.parent / "none", "right", dataset.parent / "new")
