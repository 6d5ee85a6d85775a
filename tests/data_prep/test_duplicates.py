"""Clusters of images that look the same, and of tiles of one field."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from data_prep.duplicates import DisjointSets, group_adjacent_tiles, group_near_duplicates


def texture(seed: int, size: int = 64) -> NDArray[np.uint8]:
    """Return a smooth random image of full contrast."""
    values = gaussian_filter(np.random.default_rng(seed).normal(size=(size, size)), 4)
    values = (values - values.min()) / (values.max() - values.min())
    return (255 * values).astype(np.uint8)


def save(folder: Path, images: list[NDArray[np.uint8]]) -> list[Path]:
    paths = [folder / f"{index}.png" for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def test_resized_and_recompressed_copies_join_and_others_do_not(tmp_path: Path) -> None:
    paths = save(tmp_path, [texture(seed) for seed in range(6)])
    Image.open(paths[2]).resize((48, 48)).convert("RGB").save(tmp_path / "copy.jpg", quality=80)
    groups = group_near_duplicates([*paths, tmp_path / "copy.jpg"], 4)
    assert groups[6] == groups[2]
    assert len(set(groups)) == 6
    assert groups[0] == "cluster-0000"


def test_wide_images_are_not_clipped(tmp_path: Path) -> None:
    for seed in range(3):
        Image.fromarray(texture(seed).astype(np.uint16) * 200).save(tmp_path / f"wide{seed}.png")
    paths = save(tmp_path, [texture(seed) for seed in range(3)])
    groups = group_near_duplicates([*paths, *(tmp_path / f"wide{seed}.png" for seed in range(3))], 4)
    assert groups[:3] == groups[3:]
    assert len(set(groups)) == 3


def test_tiles_of_one_field_join_and_other_fields_do_not(tmp_path: Path) -> None:
    tiles = []
    for seed in range(4):
        field = texture(seed, 128)
        tiles += [field[:64, :64], field[:64, 64:], field[64:, :64], field[64:, 64:]]
    order = np.random.default_rng(0).permutation(len(tiles))
    groups = group_adjacent_tiles(save(tmp_path, [tiles[i] for i in order]), 0.9)
    fields = defaultdict(set)
    for group, index in zip(groups, order, strict=True):
        fields[group].add(int(index) // 4)
    assert sorted(tuple(members) for members in fields.values()) == [(0,), (1,), (2,), (3,)]


def test_empty_borders_join_nothing(tmp_path: Path) -> None:
    dark = np.full((32, 32), 10, dtype=np.uint8)
    dark[5] += 1
    assert len(set(group_adjacent_tiles(save(tmp_path, [dark] * 3 + [dark.T] * 3), 0.9))) == 6


def test_joined_sets_are_known_by_their_earliest_item() -> None:
    sets = DisjointSets("abcde")
    sets.join("e", "c")
    sets.join("b", "e")
    assert [sets.find(item) for item in "abcde"] == ["a", "b", "b", "d", "b"]


def test_thresholds_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="max_distance: found 65, allowed: 0 to 64"):
        group_near_duplicates([], 65)
    with pytest.raises(ValueError, match=r"min_correlation: found 1\.5, allowed: above 0"):
        group_adjacent_tiles([], 1.5)


@pytest.mark.shared_data
def test_the_cell_that_is_there_twice_is_one_cluster(shared_data: Path) -> None:
    folder = shared_data / "white_cells" / "yellow_stain" / "images"
    groups = group_near_duplicates([folder / f"{number}.bmp" for number in range(110, 150)], 4)
    assert groups[112 - 110] == groups[139 - 110]
    assert len(set(groups)) == 39
