"""Training slices: cached part, fresh part, and the order that seed and epoch give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, Lambdad
from torch import Tensor

from mixstyleflow_monai.data import (
    EpochOrder,
    ProcessSampler,
    RegionEncoding,
    SliceDataset,
    TrainingLoader,
    augmentation,
    epoch_seed,
    preprocessing,
    slices,
)

ENCODING = RegionEncoding({"organ": [1]})
SIZE = (32, 16)
Writer = Callable[..., str]


@pytest.fixture
def photographs(tmp_path: Path, write_image: Writer) -> list[dict[str, str]]:
    """Five images, the first without a label."""
    rng = np.random.default_rng(0)
    items = []
    for number in range(5):
        label = np.zeros((24, 40), np.uint8)
        label[4:20, 10:30] = number > 0
        values = (40 * label + rng.integers(0, 99, label.shape)).astype(np.uint8)
        items.append(
            {
                "image": write_image(tmp_path / f"{number}.png", values),
                "label": write_image(tmp_path / f"{number}_label.png", label),
            }
        )
    return items


@pytest.fixture
def volumes(tmp_path: Path, write_volume: Writer) -> list[dict[str, str]]:
    """Two volumes of four slices, of which the last two have a label."""
    rng = np.random.default_rng(0)
    items = []
    for number in range(2):
        label = np.zeros((20, 20, 4), np.uint8)
        label[5:15, 5:15, 2:] = 1
        items.append(
            {
                "image": write_volume(tmp_path / f"{number}.nii.gz", rng.normal(size=label.shape).astype(np.float32)),
                "label": write_volume(tmp_path / f"{number}_label.nii.gz", label),
            }
        )
    return items


def dataset(
    items: list[dict[str, str]], *, augment: bool = False, encoding: RegionEncoding = ENCODING, **options: Any
) -> SliceDataset:
    recipe = augmentation("prostate", SIZE) if augment else None
    return SliceDataset(
        items, preprocessing(SIZE, encoding=encoding), augmentation=recipe, progress=False, num_workers=1, **options
    )


def batches(loader: TrainingLoader, epoch: int) -> list[Tensor]:
    loader.set_epoch(epoch)
    return [batch["image"] for batch in loader]


def flat(epoch: list[Tensor]) -> Tensor:
    return torch.cat(epoch)


def test_plain_slices_repeat_and_augmented_ones_are_drawn_anew(photographs: list[dict[str, str]]) -> None:
    plain = dataset(photographs)
    assert len(plain) == 5
    assert torch.equal(plain[2]["image"], plain[2]["image"])
    augmented = dataset(photographs, augment=True)
    assert not torch.equal(augmented[2]["image"], augmented[2]["image"])
    for item in (plain[2], augmented[2]):
        assert {key: tuple(value.shape) for key, value in item.items()} == {"image": (1, *SIZE), "label": (1, *SIZE)}
        assert all(type(value) is Tensor and value.dtype == torch.float32 for value in item.values())


def test_deterministic_part_runs_once_a_case(photographs: list[dict[str, str]]) -> None:
    runs: list[int] = []

    def count(image: Tensor) -> Tensor:
        runs.append(1)
        return image

    transform = Compose([*preprocessing(SIZE, encoding=ENCODING).transforms, Lambdad("image", count)])
    slices = SliceDataset(photographs, transform, progress=False, num_workers=1)
    for _ in range(3):
        slices[0]
    assert len(runs) == 5


def test_augmentation_leaves_the_cache_and_the_plain_pair_alone(photographs: list[dict[str, str]]) -> None:
    plain = dataset(photographs)
    paired = dataset(photographs, augment=True, keep_plain=True)
    for _ in range(3):
        for index in range(5):
            augmented, unchanged = paired[index]
            assert torch.equal(unchanged["image"], plain[index]["image"])
            assert torch.equal(unchanged["label"], plain[index]["label"])
            assert not torch.equal(augmented["image"], unchanged["image"])


def test_batch_is_each_slice_augmented_and_the_same_slice_plain(photographs: list[dict[str, str]]) -> None:
    plain = dataset(photographs)
    loader = TrainingLoader(dataset(photographs, augment=True, keep_plain=True), 4, epoch_length=5)
    known = torch.stack([plain[k]["image"] for k in range(5)])
    loader.set_epoch(1)
    for batch in loader:
        assert batch["image"].shape == (4, 1, *SIZE)
        assert batch["label"].shape == (4, 1, *SIZE)
        found = [bool((known == image).flatten(1).all(1).any()) for image in batch["image"]]
        assert found == [False, True, False, True]


def test_volumes_are_cut_along_their_last_axis(volumes: list[dict[str, str]]) -> None:
    slices = dataset(volumes)
    assert len(slices) == 8
    whole = preprocessing(SIZE, encoding=ENCODING)(volumes[1])
    assert torch.equal(slices[4 + 3]["image"], whole["image"].as_tensor()[..., 3])
    assert torch.equal(slices[4 + 3]["label"], whole["label"][..., 3].float())


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_labelled_slices_are_those_with_a_region_in_them(volumes: list[dict[str, str]], activation: str) -> None:
    encoding = RegionEncoding({"organ": [1]}, activation)
    slices = dataset(volumes, slices="labelled", encoding=encoding)
    assert slices.index == [(0, 2), (0, 3), (1, 2), (1, 3)]


def test_images_without_a_label_are_kept(photographs: list[dict[str, str]]) -> None:
    assert len(dataset(photographs, slices="labelled")) == 5


def test_augmented_classes_stay_exclusive_where_the_field_of_view_ends(volumes: list[dict[str, str]]) -> None:
    slices = dataset(volumes, augment=True, encoding=RegionEncoding({"organ": [1]}, "softmax"), slices="labelled")
    slices.set_random_state(0)
    for _ in range(10):
        label = slices[0]["label"]
        assert torch.equal(label.sum(0), torch.ones(SIZE))


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("epoch_length", [None, 3])
def test_epoch_is_the_same_whatever_came_before(
    photographs: list[dict[str, str]], augment: bool, epoch_length: int | None
) -> None:
    def loader() -> TrainingLoader:
        slices = dataset(photographs, augment=augment, keep_plain=augment)
        return TrainingLoader(slices, 4, seed=7, epoch_length=epoch_length)

    used, fresh = loader(), loader()
    torch.manual_seed(0)
    first = [flat(batches(used, epoch)) for epoch in (1, 2, 3)]
    torch.manual_seed(1)
    next(iter(fresh))  # a batch that is thrown away
    assert torch.equal(flat(batches(fresh, 3)), first[2])
    assert not torch.equal(first[0], first[1])
    other = TrainingLoader(dataset(photographs, augment=augment, keep_plain=augment), 4, seed=8)
    assert not torch.equal(flat(batches(other, 1))[:4], first[0][:4])


def test_global_randomness_is_neither_used_nor_changed(photographs: list[dict[str, str]]) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batches(TrainingLoader(dataset(photographs, augment=True), 2), 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_worker_processes_repeat_an_epoch_too(photographs: list[dict[str, str]]) -> None:
    loader = TrainingLoader(dataset(photographs, augment=True, keep_plain=True), 4, seed=7, num_workers=1)
    first = flat(batches(loader, 1))
    second = flat(batches(loader, 2))
    assert torch.equal(flat(batches(loader, 1)), first)
    assert not torch.equal(first, second)
    # Order is the same as without workers.
    alone = TrainingLoader(dataset(photographs, augment=True, keep_plain=True), 4, seed=7)
    assert torch.equal(flat(batches(alone, 1))[1::2], first[1::2])


def test_epoch_may_be_longer_than_the_data_with_full_batches_and_every_slice(
    photographs: list[dict[str, str]],
) -> None:
    loader = TrainingLoader(dataset(photographs), 4, epoch_length=5)
    epoch = batches(loader, 1)
    assert [len(batch) for batch in epoch] == [4] * 5
    counts = flat(epoch).flatten(1).unique(dim=0, return_counts=True)[1]
    assert counts.tolist() == [4] * 5


@pytest.mark.parametrize(("batch_size", "steps"), [(2, 2), (4, 1), (12, 1)])
def test_default_epoch_is_one_pass_of_full_batches(
    photographs: list[dict[str, str]], batch_size: int, steps: int
) -> None:
    epoch = batches(TrainingLoader(dataset(photographs), batch_size), 1)
    assert [len(batch) for batch in epoch] == [batch_size] * steps


@pytest.mark.parametrize("word", ["null", "None", None])
def test_null_is_one_pass_also_as_a_word_of_the_command_line(photographs: list[dict[str, str]], word: Any) -> None:
    assert len(TrainingLoader(dataset(photographs), 2, epoch_length=word)) == 2


def test_several_processes_share_an_epoch(photographs: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    alone = TrainingLoader(dataset(photographs), 4, seed=7, epoch_length=3)
    alone.set_epoch(2)
    monkeypatch.setattr(slices, "world_size", lambda: 2)
    shared = []
    for number in range(2):
        monkeypatch.setattr(slices, "rank", lambda number=number: number)
        loader = TrainingLoader(dataset(photographs), 2, seed=7, epoch_length=3)
        loader.set_epoch(2)
        shared.append(list(loader))
    for whole, *parts in zip(alone, *shared, strict=True):
        together = torch.cat([part["image"] for part in parts]).flatten(1)
        assert torch.equal(together.sort(0).values, whole["image"].flatten(1).sort(0).values)


@pytest.mark.parametrize("length", range(1, 9))
@pytest.mark.parametrize("number", [1, 2, 3])
def test_positions_are_divided_without_repeats(length: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "world_size", lambda: number)
    parts = []
    for k in range(number):
        monkeypatch.setattr(slices, "rank", lambda k=k: k)
        parts.append(list(ProcessSampler(range(length))))
        order = EpochOrder(length, 0, 2 * number, share=(k, number))
        assert len(list(order)) == len(order) == 2
    if length >= number:
        assert sorted(position for part in parts for position in part) == list(range(length))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    else:
        assert parts == [list(range(length))] * number


def test_epoch_seeds_differ_between_runs_and_epochs() -> None:
    seeds = {epoch_seed(seed, epoch) for seed in range(5) for epoch in range(1, 200)}
    assert len(seeds) == 5 * 199


@pytest.mark.parametrize(
    ("options", "keep_plain", "message"),
    [
        ({"batch_size": 5}, True, "batch_size=5: expected a positive multiple of 2.*Use an even number"),
        ({"batch_size": 0}, False, "batch_size=0: expected a positive multiple of 1"),
        ({"batch_size": 2, "epoch_length": 0}, False, "epoch_length=0: expected at least 1 step"),
        ({"batch_size": 2, "epoch_length": "all"}, False, "epoch_length=all: expected at least 1 step, or null"),
        ({"batch_size": 2, "epoch_length": 2.5}, False, "epoch_length=2.5: expected at least 1 step, or null"),
    ],
)
def test_impossible_batches_and_epochs_are_refused(
    photographs: list[dict[str, str]], options: dict[str, Any], keep_plain: bool, message: str
) -> None:
    images = dataset(photographs, augment=True, keep_plain=keep_plain)
    with pytest.raises(ValueError, match=message):
        TrainingLoader(images, **options)


def test_image_and_label_of_other_sizes_name_both_files(tmp_path: Path, write_image: Writer) -> None:
    item = {
        "image": write_image(tmp_path / "wide.png", np.arange(24 * 40, dtype=np.uint8).reshape(24, 40)),
        "label": write_image(tmp_path / "narrow.png", np.zeros((24, 30), np.uint8)),
    }
    with pytest.raises(ValueError, match=r"wide\.png: the image has the grid \(40, 24\) and its label .*narrow\.png"):
        dataset([item])


@pytest.mark.parametrize("pixel_spacing", [None, (1.0, 1.0)])
def test_volume_and_label_at_other_places_are_refused(
    tmp_path: Path, write_volume: Writer, pixel_spacing: tuple[float, float] | None
) -> None:
    array = np.random.default_rng(0).normal(size=(20, 20, 4)).astype(np.float32)
    image = write_volume(tmp_path / "image.nii.gz", array)
    affine = nib.load(image).affine
    mask = (array > 0).astype(np.uint8)
    transform = preprocessing(SIZE, pixel_spacing=pixel_spacing, encoding=ENCODING)
    for name, change, fine in (("rounded", 0.01, True), ("shifted", 3.0, False)):
        moved = affine.copy()
        moved[0, 3] += change
        nib.save(nib.Nifti1Image(mask, moved), tmp_path / f"{name}.nii.gz")
        item = {"image": image, "label": str(tmp_path / f"{name}.nii.gz")}
        if fine:
            assert len(SliceDataset([item], transform, progress=False)) == 4
        else:
            with pytest.raises(ValueError, match=r"image\.nii\.gz.*shifted\.nii\.gz.*place a corner 3 mm apart"):
                SliceDataset([item], transform, progress=False)


def test_images_with_nan_name_the_file(tmp_path: Path, write_volume: Writer) -> None:
    array = np.random.default_rng(0).normal(size=(20, 20, 2)).astype(np.float32)
    array[3, 3] = np.nan
    item = {
        "image": write_volume(tmp_path / "holes.nii.gz", array),
        "label": write_volume(tmp_path / "label.nii.gz", np.ones((20, 20, 2), np.uint8)),
    }
    with pytest.raises(ValueError, match=r"holes\.nii\.gz: the image has values that are not finite"):
        dataset([item])


def test_empty_lists_and_unknown_choices_are_refused(
    photographs: list[dict[str, str]], tmp_path: Path, write_volume: Writer
) -> None:
    with pytest.raises(ValueError, match="the list of cases is empty"):
        dataset([])
    with pytest.raises(ValueError, match=r"slices='middle': expected one of \('all', 'labelled'\)"):
        dataset(photographs, slices="middle")
    empty = {
        "image": write_volume(tmp_path / "i.nii.gz", np.arange(800, dtype=np.float32).reshape(20, 20, 2)),
        "label": write_volume(tmp_path / "l.nii.gz", np.zeros((20, 20, 2), np.uint8)),
    }
    with pytest.raises(ValueError, match="no region is in any of the 1 labels of this split"):
        dataset([empty], slices="labelled")
    full = {**empty, "label": write_volume(tmp_path / "f.nii.gz", np.ones((20, 20, 2), np.uint8))}
    with pytest.raises(ValueError, match="no slice of the 1 labels of this split has a border of a region in it"):
        dataset([full], slices="labelled")


def test_order_depends_on_seed_and_epoch_alone_even_after_an_exhausted_iterator() -> None:
    order = EpochOrder(5, seed=3, num_samples=12)
    order.epoch = 2
    expected = list(order)
    assert [expected.count(k) for k in range(5)] == pytest.approx([2.4] * 5, abs=0.7)
    iterator = iter(order)
    list(iterator)
    assert next(iterator, None) is None
    assert list(order) == expected
    order.epoch = 3
    assert list(order) != expected
    assert list(EpochOrder(5, seed=4, num_samples=12)) != expected
    assert sorted(EpochOrder(5, seed=4)) == [0, 1, 2, 3, 4]
