"""Images to segment, and slices of them to look at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.data import ImageSlices, common_folder, inference_datalist, preprocessing
from tests.data.small_predictions import SIZE, grey, predict_ones

Writer = Callable[..., str]


def test_images_in_linked_folders_are_segmented_too(tmp_path: Path, write_image: Writer) -> None:
    write_image(tmp_path / "elsewhere" / "b.png", grey())
    write_image(tmp_path / "study" / "a.png", grey())
    (tmp_path / "study" / "patient").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "study" / "circle").symlink_to(tmp_path / "study")
    for images in (tmp_path / "study", f"{tmp_path}/study/**/*.png"):
        assert [item["case_id"] for item in inference_datalist(images, "unused")] == ["a", "b"]


def test_files_folders_patterns_and_lists_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.PNG", "a.nii.gz", "deep/c.tif", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(images: Any) -> list[str]:
        return [item["case_id"] for item in inference_datalist(images, "unused")]

    assert names(tmp_path) == ["a", "b", "c"]
    assert names(tmp_path / "a.nii.gz") == ["a"]
    assert names(str(tmp_path / "*.PNG")) == ["b"]
    assert names(str(tmp_path / "**" / "*.tif")) == ["c"]
    assert names([str(tmp_path / "b.PNG"), str(tmp_path / "a.nii.gz")]) == ["b", "a"]
    monkeypatch.chdir(tmp_path)
    assert names("deep") == names("d*/*") == names("deep/c.tif") == ["c"]
    item = inference_datalist("deep", "unused")[0]
    assert item == {"image": str(tmp_path / "deep" / "c.tif"), "case_id": "c", "domain": ""}


def test_a_link_keeps_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "4f2a.png").touch()
    (tmp_path / "patient.png").symlink_to(tmp_path / "store" / "4f2a.png")
    assert inference_datalist(tmp_path / "patient.png", "unused")[0]["image"] == str(tmp_path / "patient.png")


def test_a_pattern_leaves_our_own_label_maps_out_too(tmp_path: Path, write_image: Writer) -> None:
    for name in ("a", "b"):
        predict_ones(Path(write_image(tmp_path / "in" / f"{name}.png", grey())), tmp_path / "in")
    assert (tmp_path / "in" / "a_seg.png").is_file()
    found = inference_datalist(str(tmp_path / "in" / "*.png"), tmp_path)
    assert [Path(item["image"]).name for item in found] == ["a.png", "b.png"]


def test_nothing_but_our_own_label_maps_is_told_as_that(tmp_path: Path, write_image: Writer) -> None:
    predict_ones(Path(write_image(tmp_path / "a.png", grey())), tmp_path / "out")
    for images in ("out", "out/*.png"):
        with pytest.raises(FileNotFoundError, match="all 1 files are label maps that inference wrote"):
            inference_datalist(str(tmp_path / images), tmp_path)


@pytest.mark.parametrize("images", ["in", "in/*.png", "in/b.png"])
def test_a_dead_link_is_not_passed_over(images: str, tmp_path: Path, write_image: Writer) -> None:
    write_image(tmp_path / "in" / "a.png", grey())
    (tmp_path / "in" / "b.png").symlink_to("not_fetched.png")
    with pytest.raises(FileNotFoundError, match=r"b\.png is a link that leads nowhere\. Fetch the file"):
        inference_datalist(str(tmp_path / images), tmp_path)


def test_missing_and_foreign_files_are_refused_with_what_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"no images found. Give a file, a folder or a pattern.*\.nii\.gz"):
        inference_datalist(tmp_path, "unused")
    with pytest.raises(FileNotFoundError, match=r"nothing\*\.png: no images found"):
        inference_datalist(str(tmp_path / "nothing*.png"), "unused")
    with pytest.raises(FileNotFoundError, match=r"gone\.png: no such file"):
        inference_datalist([str(tmp_path / "gone.png")], "unused")
    with pytest.raises(ValueError, match=r"notes\.txt: not an image by its name, allowed are \.nii"):
        inference_datalist(tmp_path / "notes.txt", "unused")


def test_two_images_that_would_be_written_to_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp", "a.nii"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"a: the label maps of a\.bmp, a\.png would have the same name"):
        inference_datalist(tmp_path, "unused")
    (tmp_path / "a.bmp").unlink()
    assert len(inference_datalist(tmp_path, "unused")) == 2


def test_without_images_the_test_cases_of_the_data_set_are_taken(tmp_path: Path, write_image: Writer) -> None:
    cases = []
    for number, (domain, split) in enumerate(
        [("A", "train"), ("A", "validation"), ("A", "test"), ("B", "test"), ("B", "test")]
    ):
        files = {kind: f"{number}_{kind}.png" for kind in ("image", "label")}
        for seed, name in enumerate(files.values()):
            write_image(tmp_path / name, grey(10 * number + seed))
        hashes = {kind: sha256_file(tmp_path / name) for kind, name in files.items()}
        facts = {"id": str(number), "domain": domain, "group": str(number), "split": split, "spacing": None}
        cases.append({**facts, **files, "sha256": hashes})
    content = {"format": 1, "name": "some", "spatial_dims": 2, "channels": 1, "regions": {"outer": [1]}}
    (tmp_path / "dataset.json").write_text(json.dumps({**content, "source_domain": "A", "cases": cases}))
    assert [item["case_id"] for item in inference_datalist(None, tmp_path)] == ["2", "3", "4"]
    (item,) = inference_datalist(None, tmp_path, source_only=True)
    assert item == {"image": str(tmp_path / "2_image.png"), "case_id": "2", "domain": "A"}
    (tmp_path / "dataset.json").write_text(json.dumps({**content, "source_domain": None, "cases": cases[3:]}))
    assert len(inference_datalist(None, tmp_path)) == 2
    with pytest.raises(ValueError, match=r"source_domain is null: no images of the source\. Give --input\."):
        inference_datalist(None, tmp_path, source_only=True)


def test_common_folder_is_the_deepest_one_that_holds_all(tmp_path: Path) -> None:
    items = [{"image": str(tmp_path / name)} for name in ("a/b/x.png", "a/c/x.png")]
    assert common_folder(items) == str(tmp_path / "a")
    assert common_folder(items[:1]) == str(tmp_path / "a" / "b")


def test_slices_to_look_at_are_images_and_middle_slices(
    tmp_path: Path, write_volume: Writer, write_image: Writer
) -> None:
    volume = np.random.default_rng(0).normal(size=(20, 20, 5)).astype(np.float32)
    items = [
        {"image": write_image(tmp_path / "a.png", grey())},
        {"image": write_volume(tmp_path / "v.nii.gz", volume)},
    ]
    transform = preprocessing(SIZE)
    slices = ImageSlices(items, transform)
    assert len(slices) == 2
    assert all(slices[k]["image"].shape == (1, *SIZE) for k in range(2))
    assert torch.equal(slices[1]["image"], transform(items[1])["image"].as_tensor()[..., 2])
    assert "case_id" not in slices[0]
    named = ImageSlices([{**item, "case_id": f"case {k}"} for k, item in enumerate(items)], transform)
    assert [named[k]["case_id"] for k in range(2)] == ["case 0", "case 1"]


@pytest.mark.parametrize(("cases", "most", "chosen"), [(47, 24, 24), (5, 24, 5), (100, 3, 3), (7, 1, 1), (0, 4, 0)])
def test_chosen_images_are_spread_over_the_whole_list(cases: int, most: int, chosen: int) -> None:
    slices = ImageSlices([{"image": str(k)} for k in range(cases)], Compose([]), most)
    numbers = [int(item["image"]) for item in slices.data]
    assert len(set(numbers)) == chosen
    assert numbers == sorted(numbers)
    if chosen > 1:
        assert (numbers[0], numbers[-1]) == (0, cases - 1)
