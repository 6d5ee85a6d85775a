"""Label maps on the images' own grid."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from numpy.typing import NDArray
from PIL import Image

from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.bundle_errors import root_cause
from mixstyleflow_monai.data import (
    LabelMapd,
    RegionEncoding,
    SaveLabeld,
    Task,
    common_folder,
    inference_datalist,
    preprocessing,
)
from tests.data.small_predictions import SIZE, grey, predict_ones

Writer = Callable[..., str]
ENCODING = RegionEncoding({"outer": [1, 2], "inner": [2]})


def corner(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a nested label that no flip or transposition maps onto itself."""
    label = np.zeros(shape, np.uint8)
    label[2 : shape[0] // 2, 3 : shape[1] // 3] = 1
    label[4 : shape[0] // 3, 5 : shape[1] // 4] = 2
    if len(shape) == 3:
        label[..., shape[2] // 2 + 1 :] = 0
    return label


def write_prediction(image: str, label: str, output_dir: Path, root: str = "", **options: Any) -> None:
    """Bring an image and its label to the network's grid, and write the label's masks as if they were predicted."""
    both = preprocessing(SIZE, encoding=ENCODING, **options)({"image": image, "label": label})
    transform = preprocessing(SIZE, **options)
    data = transform({"image": image})
    data["pred"] = MetaTensor(both["label"].as_tensor().float(), meta=data["image"].meta)
    Compose(
        [
            Invertd("pred", orig_keys="image", transform=transform, nearest_interp=False, to_tensor=True),
            LabelMapd("pred", ENCODING),
            SaveLabeld("pred", output_dir, data_root_dir=root),
        ]
    )(data)


def overlap(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the smaller Dice of the two regions."""
    pairs = [(found > value, expected > value) for value in (0, 1)]
    return min(2.0 * float((a & b).sum()) / float(a.sum() + b.sum()) for a, b in pairs)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PSR", "AIL"])
@pytest.mark.parametrize(("spacing", "pixel_spacing"), [((1.0, 1.0, 4.0), None), ((0.7, 0.9, 3.0), (0.8, 0.7))])
def test_label_map_of_a_volume_lies_on_the_image(
    axes: str,
    spacing: tuple[float, float, float],
    pixel_spacing: tuple[float, float] | None,
    tmp_path: Path,
    write_volume: Writer,
) -> None:
    shape = (40, 32, 24)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    image = write_volume(tmp_path / "scan.nii.gz", values, axes=axes, spacing=spacing)
    label = write_volume(tmp_path / "label.nii.gz", corner(shape), axes=axes, spacing=spacing)
    if pixel_spacing is not None and axes in ("PSR", "AIL"):
        pixel_spacing = (1.2, 1.2)  # their slices are larger, and must fit
    write_prediction(image, label, tmp_path / "out", pixel_spacing=pixel_spacing)
    written, original = nib.load(tmp_path / "out" / "scan_seg.nii.gz"), nib.load(image)
    assert written.shape == original.shape
    assert written.get_data_dtype() == np.uint8
    assert nib.aff2axcodes(written.affine) == tuple(axes)
    np.testing.assert_allclose(written.affine, original.affine, atol=1e-5)
    for code in ("get_sform", "get_qform"):
        np.testing.assert_allclose(getattr(written, code)(), original.affine, atol=1e-5)
    assert overlap(np.asarray(written.dataobj), nib.load(label).get_fdata()) > 0.85


def test_label_map_of_a_single_slice_is_still_a_volume(tmp_path: Path, write_volume: Writer) -> None:
    values = np.random.default_rng(0).normal(size=(30, 26, 1)).astype(np.float32)
    image = write_volume(tmp_path / "scan.nii", values)
    label = write_volume(tmp_path / "label.nii", corner((30, 26, 1)) | corner((30, 26))[..., None])
    write_prediction(image, label, tmp_path / "out")
    assert nib.load(tmp_path / "out" / "scan_seg.nii.gz").shape == (30, 26, 1)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg", ".tif"])
@pytest.mark.parametrize("colour", [False, True])
def test_label_map_of_an_image_has_its_size_and_is_not_transposed(
    suffix: str, colour: bool, tmp_path: Path, write_image: Writer
) -> None:
    shape = (60, 44)
    image = write_image(tmp_path / f"field{suffix}", grey(shape=(*shape, 3) if colour else shape))
    label = write_image(tmp_path / "label.png", corner(shape))
    write_prediction(image, label, tmp_path / "out")
    with Image.open(tmp_path / "out" / "field_seg.png") as written, Image.open(image) as original:
        assert written.size == original.size
        assert written.mode == "L"
        written.load()
    assert overlap(np.asarray(written), corner(shape)) > 0.85


def test_certain_predictions_on_the_image_s_own_grid_are_written_exactly(tmp_path: Path, write_image: Writer) -> None:
    label = corner((48, 80))
    image = write_image(tmp_path / "a.png", grey(shape=label.shape))
    data = preprocessing((80, 48))({"image": image})
    data["pred"] = MetaTensor(torch.from_numpy(label.T[None].copy()), meta=data["image"].meta)
    SaveLabeld("pred", tmp_path / "out")(data)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "a_seg.png")), label)


def test_equal_names_in_other_folders_do_not_overwrite_each_other(
    tmp_path: Path, write_image: Writer, write_volume: Writer
) -> None:
    for site in ("one", "two/deep"):
        write_image(tmp_path / "in" / site / "case.1.png", grey())
        write_volume(tmp_path / "in" / site / "case.nii.gz", np.random.default_rng(0).normal(size=(8, 8, 2)))
    datalist = inference_datalist(tmp_path / "in", "unused")
    root = common_folder(datalist)
    for item in datalist:
        data = preprocessing(SIZE)(item)
        data["pred"] = MetaTensor(torch.ones(1, *data["image"].shape[1:]), meta=data["image"].meta)
        SaveLabeld("pred", tmp_path / "out", data_root_dir=root)(data)
    written = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert written == ["label_map_sources.json"] + [
        f"{site}/{name}" for site in ("one", "two/deep") for name in ("case.1_seg.png", "case_seg.nii.gz")
    ]
    assert [item["image"] for item in inference_datalist(tmp_path, "unused")] == [item["image"] for item in datalist]


def test_places_are_checked_before_the_first_image_and_the_end_tells_what_was_written(
    tmp_path: Path, write_image: Writer, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [{"image": str(write_image(tmp_path / "in" / f"{name}.png", grey()))} for name in ("a", "b", "c")]
    save = SaveLabeld("pred", tmp_path / "out", data_root_dir=str(tmp_path / "in"))
    save.check(images)
    assert not (tmp_path / "out").exists()
    for number, item in enumerate(images):
        data = preprocessing(SIZE)(item)
        data["pred"] = MetaTensor(torch.full((1, *data["image"].shape[1:]), number), meta=data["image"].meta)
        save(data)
    save.report()
    printed = capsys.readouterr().out
    assert printed.endswith(f"wrote 3 label maps to {tmp_path}/out\nnote: nothing was found in 1 of them: a_seg.png\n")
    save.check(images)
    (tmp_path / "out" / "c_seg.png").write_bytes(b"corrected by hand")
    with pytest.raises(ValueError, match=r"c_seg\.png: was changed since inference wrote it"):
        save.check(images)


def test_label_map_of_another_image_is_not_replaced(tmp_path: Path, write_image: Writer) -> None:
    first, second = (write_image(tmp_path / folder / "t2.png", grey()) for folder in ("p1", "p2"))
    predict_ones(Path(first), tmp_path / "out")
    target = tmp_path / "out" / "t2_seg.png"
    digest = sha256_file(target)
    with pytest.raises(ValueError, match=r"t2_seg\.png: is the label map of .*p1.*p2.*another --output_dir"):
        predict_ones(Path(second), tmp_path / "out")
    assert sha256_file(target) == digest
    predict_ones(Path(first), tmp_path / "out")
    target.unlink()
    predict_ones(Path(second), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "label_map_sources.json").read_text()) == {
        "t2_seg.png": {"image": str(second), "sha256": sha256_file(target)}
    }


def test_files_that_inference_did_not_write_or_that_were_changed_since_are_kept(
    tmp_path: Path, write_image: Writer
) -> None:
    image = Path(write_image(tmp_path / "t2.png", grey()))
    target = tmp_path / "out" / "t2_seg.png"
    write_image(target, grey(1))
    for reason in ("was not written by inference", "was changed since inference wrote it"):
        digest = sha256_file(target)
        with pytest.raises(ValueError, match=rf"t2_seg\.png: .*{reason}.*move the file away"):
            predict_ones(image, tmp_path / "out")
        assert sha256_file(target) == digest
        target.unlink()
        predict_ones(image, tmp_path / "out")
        predict_ones(image, tmp_path / "out")
        write_image(target, grey(2))


def test_calls_at_the_same_time_record_all_label_maps(tmp_path: Path, write_image: Writer) -> None:
    images = [Path(write_image(tmp_path / "in" / f"{number}.png", grey(number))) for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            list(pool.map(lambda image: predict_ones(image, tmp_path / "out"), images))
    assert len(json.loads((tmp_path / "out" / "label_map_sources.json").read_text())) == len(images)


def test_image_of_another_suffix_keeps_its_name(tmp_path: Path, write_image: Writer) -> None:
    for name in ("a.webp", "b"):
        data = preprocessing(SIZE)({"image": write_image(tmp_path / f"{name}.png", grey())})
        meta = {**data["image"].meta, "filename_or_obj": str(tmp_path / name)}
        data["pred"] = MetaTensor(torch.ones(1, *data["image"].shape[1:]), meta=meta)
        SaveLabeld("pred", tmp_path / "out")(data)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a_seg.png", "b_seg.png"]


def test_sources_of_an_earlier_version_are_understood(tmp_path: Path, write_image: Writer) -> None:
    image = Path(write_image(tmp_path / "t2.png", grey()))
    predict_ones(image, tmp_path / "out")
    sources = tmp_path / "out" / "label_map_sources.json"
    sources.write_text(json.dumps({"t2_seg.png": str(image)}))
    predict_ones(image, tmp_path / "out")
    assert "sha256" in json.loads(sources.read_text())["t2_seg.png"]
    sources.write_text("{")
    with pytest.raises(ValueError, match=r"label_map_sources\.json"):
        predict_ones(image, tmp_path / "out")


@pytest.mark.parametrize("units", ["mm", "micron", "unknown"])
def test_label_map_has_the_units_of_its_image_and_a_plain_name(units: str, tmp_path: Path) -> None:
    volume = nib.Nifti1Image(np.random.default_rng(0).normal(size=(20, 18, 3)).astype(np.float32), np.eye(4))
    volume.header.set_xyzt_units(units)
    nib.save(volume, tmp_path / "SCAN.nii.gz")
    image = (tmp_path / "SCAN.nii.gz").rename(tmp_path / "SCAN.NII.GZ")
    predict_ones(image, tmp_path / "out")
    written = nib.load(tmp_path / "out" / "SCAN_seg.nii.gz")
    assert written.header.get_xyzt_units()[0] == ("mm" if units == "unknown" else units)


def test_hidden_files_and_our_own_label_maps_are_no_images(tmp_path: Path, write_image: Writer) -> None:
    image = Path(write_image(tmp_path / "study" / "a.png", grey()))
    for hidden in ("._a.png", ".cache/a.png"):
        write_image(tmp_path / "study" / hidden, grey())
    predict_ones(image, tmp_path / "study" / "run" / "predictions")
    assert (tmp_path / "study" / "run" / "predictions" / "a_seg.png").is_file()
    assert [item["image"] for item in inference_datalist(tmp_path / "study", "unused")] == [str(image)]
    own = write_image(tmp_path / "study" / "my_seg.png", grey())
    found = [item["image"] for item in inference_datalist(tmp_path / "study", "unused")]
    assert found == [str(image), str(own)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_image_with_values_that_are_not_finite_is_refused(value: float, tmp_path: Path, write_volume: Writer) -> None:
    values = np.random.default_rng(0).normal(size=(20, 18, 3)).astype(np.float32)
    values[3, 4, 1] = value
    image = write_volume(tmp_path / "scan.nii.gz", values)
    with pytest.raises(RuntimeError) as caught:
        Task(1, {"blob": [1]}, (32, 32), spatial_dims=3).inference_preprocessing()({"image": str(image)})
    assert re.search(r"scan\.nii\.gz: the image has values that are not finite", str(root_cause(caught.value)))


@pytest.mark.parametrize(("name", "writer"), [("scan.nii.gz", "nibabel.save"), ("photo.png", "PIL.Image.Image.save")])
def test_a_write_that_breaks_off_leaves_the_old_file_and_no_rest(
    name: str,
    writer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_volume: Writer,
    write_image: Writer,
) -> None:
    volume = name.endswith("gz")
    values = grey(shape=(20, 24, 3)[: 3 if volume else 2])
    image = (write_volume if volume else write_image)(tmp_path / name, values)
    data = preprocessing(SIZE)({"image": image})
    data["pred"] = MetaTensor(torch.ones(1, *data["image"].shape[1:]), meta=data["image"].meta)
    save = SaveLabeld("pred", tmp_path / "out")
    save(data)
    (before,) = (tmp_path / "out").glob("*_seg.*")
    digest = sha256_file(before)

    def break_off(*arguments: Any, **_: Any) -> None:
        path = next(a for a in arguments if isinstance(a, str | os.PathLike))
        Path(path).write_bytes(b"half a fi")
        raise OSError("disk full")

    monkeypatch.setattr(writer, break_off)
    with pytest.raises(RuntimeError, match="disk full"):
        save(data)
    assert sorted((tmp_path / "out").iterdir()) == sorted([before, tmp_path / "out" / "label_map_sources.json"])
    assert sha256_file(before) == digest
