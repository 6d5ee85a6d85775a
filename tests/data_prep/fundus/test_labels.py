"""Codings of optic disc labels, and the check of what they give."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.fundus.labels import ExpertShares, GreyCoding, implausible, shown_values
from data_prep.fundus.releases import CUP_BLACK, CUP_BLACK_THRESHOLDS, INDEX, RELEASES, RIM_WHITE, THREE_OF_FOUR_EXPERTS
from data_prep.image_files import UnusableCase
from tests.data_prep.fundus import fundus_builders as build


@pytest.mark.parametrize(
    ("coding", "values"),
    [(CUP_BLACK, build.CUP_BLACK), (RIM_WHITE, build.RIM_WHITE), (INDEX, build.INDEX)],
    ids=["cup black", "rim white", "index"],
)
def test_exact_codings_invert_the_coding_and_know_no_other_value(coding: GreyCoding, values: dict[int, int]) -> None:
    label = build.disc_label(3)
    decoded = coding.decode([build.coded(label, values)])
    assert decoded is not None
    np.testing.assert_array_equal(decoded, label)
    for value in set(range(256)) - set(values.values()):
        assert coding.decode([np.full((2, 2), value)]) is None


def test_thresholds_of_dofe_are_those_of_its_loader() -> None:
    grey = np.arange(256)
    decoded = CUP_BLACK_THRESHOLDS.decode([grey[None]])
    assert decoded is not None
    # The published comparison: above 200 background, 51 to 200 rim, 50 and below cup.
    np.testing.assert_array_equal(decoded[0], np.select([grey > 200, grey > 50], [0, 1], 2))
    assert CUP_BLACK_THRESHOLDS.meaning == "201 to 255 background, 51 to 200 rim, 0 to 50 cup"


@pytest.mark.parametrize("rounding", [np.floor, np.ceil], ids=["down", "up"])
@pytest.mark.parametrize("needed", [1, 2, 3, 4])
def test_expert_shares_count_votes_whatever_the_rounding(needed: int, rounding: np.ufunc) -> None:
    generator = np.random.default_rng(needed)
    disc = generator.integers(0, 5, (9, 9))
    cup = np.minimum(generator.integers(0, 5, (9, 9)), disc)
    decoded = ExpertShares(4, needed).decode([rounding(255 * votes / 4).astype(np.uint8) for votes in (disc, cup)])
    assert decoded is not None
    np.testing.assert_array_equal(decoded >= 1, disc >= needed)
    np.testing.assert_array_equal(decoded == 2, cup >= needed)


def test_expert_shares_refuse_other_values() -> None:
    votes = np.full((2, 2), 128, dtype=np.uint8)
    assert THREE_OF_FOUR_EXPERTS.decode([votes, votes]) is not None
    assert THREE_OF_FOUR_EXPERTS.decode([votes, votes + 10]) is None


def test_maps_of_different_sizes_are_unusable(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("disc.png", "cup.png")]
    for path, size in zip(paths, ((4, 5), (5, 5)), strict=True):
        build.write(path, np.zeros(size, dtype=np.uint8))
    with pytest.raises(UnusableCase, match=r"maps of disc and cup differ in size: 4 x 5 and 5 x 5 \(rows x columns\)"):
        THREE_OF_FOUR_EXPERTS.read(paths)


def test_only_threshold_codings_take_the_luminance_of_colours(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.new("RGB", (3, 2), (120, 130, 140)).save(path)
    (found,) = CUP_BLACK_THRESHOLDS.read([path])
    assert np.unique(found).tolist() == [round(0.299 * 120 + 0.587 * 130 + 0.114 * 140)]
    for coding, paths in ((CUP_BLACK, [path]), (THREE_OF_FOUR_EXPERTS, [path, path])):
        with pytest.raises(UnusableCase, match=r"^label mask\.png of mode RGB has colours, and .* grey") as caught:
            coding.read(paths)
        assert caught.value.remedy == "restore it from the release"


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_of_all_ways_to_name_the_three_values_one_is_plausible(order: tuple[int, int, int]) -> None:
    for seed in range(20):
        renamed = np.array(order, dtype=np.uint8)[build.disc_label(seed)]
        assert (implausible(renamed) is None) == (order == (0, 1, 2))


def test_a_disc_without_a_cup_is_plausible_and_an_empty_label_is_not() -> None:
    assert implausible((build.disc_label(0) > 0).astype(np.uint8)) is None
    assert implausible(np.zeros((5, 5), dtype=np.uint8)) == "it has no optic disc"


def test_real_labels_are_plausible_in_their_own_coding_only(shared_data: Path) -> None:
    sets = {"drishti_gs": INDEX, "refuge_train": CUP_BLACK}
    for folder, coding in sets.items():
        paths = sorted((shared_data / "fundus" / folder / "masks").glob("*.png"))
        assert paths
        for path in paths:
            label = coding.decode(coding.read([path]))
            assert label is not None
            assert implausible(label) is None
            for order in permutations(range(3)):
                if order != (0, 1, 2):
                    assert implausible(np.array(order, dtype=np.uint8)[label]) is not None


def test_long_lists_of_values_are_cut() -> None:
    assert shown_values([np.array([[3, 1], [1, 0]])]) == "0, 1, 3"
    assert shown_values([np.arange(40)[None]]).endswith("10, 11, ... (40 values)")


def test_every_release_says_what_its_values_mean() -> None:
    for release in RELEASES:
        for domain in release.domains:
            meaning = release.coding_of(domain).meaning
            assert "cup" in meaning
            assert "background" in meaning or "experts" in meaning
