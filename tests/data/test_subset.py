"""Tests of shares of the training cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixstyleflow_monai.data.dataset_description import load_dataset
from mixstyleflow_monai.data.subset import subset_dataset
from tests.small_dataset import make_pairs


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains of 40 cases each, in groups of two; half of the source's are train."""
    return make_pairs(tmp_path_factory.mktemp("subset") / "dataset", 20, processing={"made_by": "hand"})


def train_ids(folder: Path) -> list[str]:
    return [case.id for case in load_dataset(folder).select("train")]


def test_share_is_rounded_down_to_whole_groups_and_everything_else_stays(dataset: Path, tmp_path: Path) -> None:
    subset_dataset(dataset, 0.35, tmp_path / "some")
    whole, part = load_dataset(dataset), load_dataset(tmp_path / "some")
    assert len(whole.select("train")) == 20
    assert len(part.select("train")) == 6
    for split in ("validation", "test"):
        assert [case.id for case in part.select(split)] == [case.id for case in whole.select(split)]
    kept = {case.id: case for case in part.cases}
    assert all(kept[case.id].image == case.image for case in whole.cases if case.id in kept)
    groups = [case.group for case in part.select("train")]
    assert all(groups.count(group) == 2 for group in groups)
    assert part.processing["train_fraction"]["from_sha256"] == whole.sha256
    assert part.processing["made_by"] == "hand"


def test_smaller_share_is_part_of_a_larger_one(dataset: Path, tmp_path: Path) -> None:
    for share in (0.1, 0.3):
        subset_dataset(dataset, share, tmp_path / str(share))
    assert set(train_ids(tmp_path / "0.1")) < set(train_ids(tmp_path / "0.3")) < set(train_ids(dataset))


def test_one_group_is_left_at_least(dataset: Path, tmp_path: Path) -> None:
    subset_dataset(dataset, 0.001, tmp_path / "one")
    assert len(set(train_ids(tmp_path / "one"))) == 2


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan"), True])
def test_wrong_share_is_told(dataset: Path, tmp_path: Path, share: float) -> None:
    with pytest.raises(ValueError, match=r"expected a share above 0 and up to 1"):
        subset_dataset(dataset, share, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()
