"""Labels of DICOM series, from SEG objects and from NIfTI files beside the images."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from rich.console import Console

from data_prep.dicom.convert import convert_dicom
from data_prep.folder import make_folder_dataset
from mixstyleflow_monai.data.dataset_description import load_dataset
from tests.data_prep.dicom.dicom_files import (
    SHAPE,
    affine_of,
    convert,
    in_order,
    rows_of,
    voxel_in,
    write_seg,
    write_series,
)


@pytest.fixture
def series(tmp_path: Path) -> list[Dataset]:
    """Slices of one oblique series in the folder ``in``, by index."""
    return in_order(write_series(tmp_path / "in"))


def two_segments() -> NDArray[np.uint8]:
    """Return a label map (slices, rows, columns) that no flip or transposition maps onto itself."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:4, 2:8, 3:6] = 1
    mask[2, 4:6, 4] = 2
    mask[3, 9, 7] = 2
    return mask


def assert_marked(path: Path, series: list[Dataset], mask: NDArray[np.uint8]) -> None:
    """Check that the label has the values of the mask (slices, rows, columns) at the places of its pixels only."""
    volume = nib.Nifti1Image.from_filename(path)
    values = np.asanyarray(volume.dataobj)
    marked = np.argwhere(mask)
    assert np.count_nonzero(values) == len(marked)
    for index, row, column in marked:
        assert values[voxel_in(volume, series[index], int(row), int(column))] == mask[index, row, column]
    image = nib.Nifti1Image.from_filename(
        path.parents[1] / "images" / path.name.replace("_segment1", "").replace("_segment2", "")
    )
    assert values.shape == image.shape
    np.testing.assert_array_equal(volume.affine, image.affine)


def only_label(made: Path) -> Path:
    (path,) = (made / "labels").iterdir()
    return path


# --- SEG objects


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
@pytest.mark.parametrize("omit_empty_frames", [True, False])
def test_segments_become_values_at_their_pixels(
    kind: str, omit_empty_frames: bool, series: list[Dataset], tmp_path: Path
) -> None:
    mask = two_segments()
    given: Any = mask
    if kind == "FRACTIONAL":
        given = np.stack([mask == 1, mask == 2], axis=-1).astype(np.float32)
    write_seg(tmp_path / "in" / "seg.dcm", series, given, kind=kind, omit_empty_frames=omit_empty_frames)
    made, printed = convert(tmp_path / "in")
    assert_marked(only_label(made), series, mask)
    (entry,) = json.loads((made / "segments.json").read_text()).values()
    assert entry["source"] == "DICOM SEG"
    assert entry["values"] == {
        "1": {"name": "Prostate", "voxels": int((mask == 1).sum())},
        "2": {"name": "Lesion", "voxels": 3},
    }
    assert rows_of(made)[0]["label"] == "DICOM SEG"
    assert "  prostate: [1]\n  lesion: [2]\n" in printed


@pytest.mark.parametrize("slices", [(2,), (0, 4), (0, 3), (1,)])
def test_frames_left_out_of_a_seg_are_empty_slices(
    slices: tuple[int, ...], series: list[Dataset], tmp_path: Path
) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[list(slices), 3:5, 2] = 1

    def without_distance(seg: Dataset) -> None:
        measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        if "SpacingBetweenSlices" in measures:
            del measures.SpacingBetweenSlices

    write_seg(tmp_path / "in" / "seg.dcm", series, mask, names=["Prostate"], change=without_distance)
    assert_marked(only_label(convert(tmp_path / "in")[0]), series, mask)


def volume_of(series: list[Dataset], mask: NDArray[np.uint8]) -> highdicom.Volume:
    """Return the mask on the grid of the series, with axes (slices, rows, columns)."""
    return highdicom.Volume(mask, affine_of(series), "PATIENT", frame_of_reference_uid=series[0].FrameOfReferenceUID)


@pytest.mark.parametrize(
    "turn",
    [
        lambda volume: volume.flip_spatial([1]),
        lambda volume: volume.flip_spatial([0, 2]),
        lambda volume: volume.permute_spatial_axes([2, 0, 1]),
        lambda volume: volume[1:4, 2:10, 1:8],
    ],
    ids=["rows reversed", "columns and slices reversed", "sagittal", "cropped"],
)
def test_a_seg_in_another_order_of_axes_is_turned(
    turn: Callable[[highdicom.Volume], highdicom.Volume], series: list[Dataset], tmp_path: Path
) -> None:
    mask = two_segments()
    write_seg(tmp_path / "in" / "seg.dcm", series, turn(volume_of(series, mask)))
    assert_marked(only_label(convert(tmp_path / "in")[0]), series, mask)


def test_overlapping_segments_are_one_file_each(series: list[Dataset], tmp_path: Path) -> None:
    first = (two_segments() > 0).astype(np.uint8)
    second = np.roll(first, 2, axis=1)
    write_seg(tmp_path / "in" / "seg.dcm", series, np.stack([first, second], axis=-1))
    made, printed = convert(tmp_path / "in")
    one, two = sorted((made / "labels").iterdir())
    assert one.name.endswith("_segment1.nii.gz")
    assert_marked(one, series, first)
    assert_marked(two, series, 2 * second)
    (entry,) = json.loads((made / "segments.json").read_text()).values()
    assert entry["overlap"] is True
    assert entry["files"] == [f"labels/{one.name}", f"labels/{two.name}"]
    assert "segments overlap: one file a segment" in rows_of(made)[0]["reason"]
    assert "Where segments overlap, labels/NAME_segmentN.nii.gz holds segment N" in printed


def shifted(volume: highdicom.Volume, voxels: float) -> highdicom.Volume:
    affine = volume.affine.copy()
    affine[:3, 3] += volume.spacing_vectors()[2] * voxels
    return highdicom.Volume(volume.array, affine, "PATIENT", frame_of_reference_uid=volume.frame_of_reference_uid)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mask": lambda s: shifted(volume_of(s, two_segments()), 0.5)}, "SEG lies on another grid than the image"),
        ({"mask": lambda s: shifted(volume_of(s, two_segments()), 6)}, "voxels of the SEG lie outside the image"),
        (
            {"mask": lambda s: np.full((*SHAPE, 1), 0.5, np.float32), "names": ["Prostate"], "kind": "FRACTIONAL"},
            "SEG holds probabilities; threshold it",
        ),
        (
            {"change": lambda seg: setattr(seg, "FrameOfReferenceUID", "1.2.3")},
            "SEG refers to this series but has another FrameOfReferenceUID",
        ),
        ({"change": lambda seg: delattr(seg, "SegmentSequence")}, r"SEG cannot be read \(\w+\)"),
        (
            {"change": lambda seg: delattr(seg.SegmentSequence[0], "SegmentedPropertyTypeCodeSequence")},
            r"SEG (cannot be read|does not describe its segments) \(\w+\)",
        ),
        (
            {"change": lambda seg: setattr(seg, "PixelData", seg.PixelData[:10])},
            r"SEG cannot be decoded \(\w+\)",
        ),
    ],
    ids=["half a voxel off", "outside", "probabilities", "frame of reference", "no segments", "no type", "cut off"],
)
def test_a_seg_that_cannot_be_used_is_reported_and_the_image_kept(
    options: dict[str, Any], reason: str, series: list[Dataset], tmp_path: Path
) -> None:
    mask = options.pop("mask", lambda s: two_segments())(series)
    write_seg(tmp_path / "in" / "seg.dcm", series, mask, **options)
    made, _ = convert(tmp_path / "in")
    (row,) = rows_of(made)
    assert row["status"] == "converted"
    assert row["label"] == "left out"
    with pytest.raises(AssertionError, match=reason):  # shows the text if it is another one
        raise AssertionError(row["reason"])
    assert not (made / "labels").exists()
    assert json.loads((made / "segments.json").read_text()) == {}


def test_two_seg_objects_for_one_series_are_not_merged(series: list[Dataset], tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_seg(tmp_path / "in" / name / "seg.dcm", series, two_segments())
    made, _ = convert(tmp_path / "in")
    assert rows_of(made)[0]["reason"] == "label: 2 SEG objects refer to this series; leave the one to use in the folder"


def test_a_seg_of_another_series_is_listed_and_not_taken(series: list[Dataset], tmp_path: Path) -> None:
    absent = in_order(write_series(tmp_path / "elsewhere", number=9, seed=9))
    write_seg(tmp_path / "in" / "seg.dcm", absent, two_segments())
    made, _ = convert(tmp_path / "in")
    image, seg = rows_of(made)
    assert image["label"] == ""
    assert seg["modality"] == "SEG"
    assert seg["reason"] == f"refers to series {absent[0].SeriesInstanceUID}, which is not in the folder"


def test_a_seg_is_found_wherever_it_lies_and_goes_to_its_series(tmp_path: Path) -> None:
    both = [in_order(write_series(tmp_path / "in" / str(n), number=n, seed=n)) for n in (1, 2)]
    write_seg(tmp_path / "in" / "far" / "away.dcm", both[1], two_segments())
    made, _ = convert(tmp_path / "in", series="all")
    assert_marked(only_label(made), both[1], two_segments())
    assert [row["label"] for row in rows_of(made)] == ["", "DICOM SEG"]


def test_a_segment_named_after_the_patient_gets_its_coded_name(series: list[Dataset], tmp_path: Path) -> None:
    write_seg(tmp_path / "in" / "seg.dcm", series, two_segments(), names=["prostate Muster", "Lesion"])
    made, _ = convert(tmp_path / "in")
    text = (made / "segments.json").read_text()
    assert "muster" not in text.lower()
    assert next(iter(json.loads(text).values()))["values"]["1"]["name"] == "Prostate"


def test_cases_that_disagree_about_a_value_are_pointed_out(tmp_path: Path) -> None:
    for number, names in enumerate((["Prostate", "Lesion"], ["Lesion", "Prostate"])):
        slices = in_order(write_series(tmp_path / "in" / str(number), number=number, seed=number))
        write_seg(tmp_path / "in" / f"{number}.dcm", slices, two_segments(), names=names)
    _, printed = convert(tmp_path / "in", series="all")
    assert "Attention: value 1 is 'Prostate' in 1 cases, 'Lesion' in 1 cases; see segments.json" in printed
    assert "  region_1: [1]\n  region_2: [2]\n" in printed


def test_the_printed_spec_makes_a_data_set(tmp_path: Path) -> None:
    for number in range(4):
        slices = in_order(write_series(tmp_path / "in" / str(number), patient=f"A{number // 2}7", seed=number))
        write_seg(tmp_path / "in" / str(number) / "seg.dcm", slices, two_segments())
    for seed in (4, 5):
        slices = in_order(write_series(tmp_path / "in" / str(seed), patient=f"B{seed}7", seed=seed))
        write_seg(tmp_path / "in" / str(seed) / "seg.dcm", slices, two_segments())
    made, printed = convert(tmp_path / "in", series="all")
    (made / "spec.yaml").write_text(printed[printed.index("name: my_data") :])
    make_folder_dataset(made / "spec.yaml", tmp_path / "dataset", console=Console(file=io.StringIO()))
    description = load_dataset(tmp_path / "dataset")
    assert description.regions == {"prostate": [1], "lesion": [2]}
    assert len(description.cases) == 6
    assert len({case.group for case in description.cases}) == 4


@pytest.mark.shared_data
def test_a_seg_of_a_real_oblique_series_lies_on_it(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "volumes" / "prostate_t2_dicom"
    slices = in_order([pydicom.dcmread(path) for path in folder.glob("*.dcm")])
    for dataset in slices:
        dataset.PatientName = "Nobody^"  # highdicom warns of names without a second part
    mask = np.zeros((19, 384, 384), np.uint8)
    mask[7:9, 150:155, 200:203] = 1
    mask[18, 3, 380] = 2
    shutil.copytree(folder, tmp_path / "in")
    write_seg(tmp_path / "in" / "seg.dcm", slices, mask)
    assert_marked(only_label(convert(tmp_path / "in")[0]), slices, mask)


# --- NIfTI beside the images


def write_nifti_label(
    path: Path, series: list[Dataset], mask: NDArray[Any], axes: str | None = None, shift: float = 0.0
) -> None:
    """Write a mask (slices, rows, columns) as NIfTI, as another converter might: with its axes in another order."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_of(series)[:, [2, 1, 0, 3]]
    affine[:3, 3] += shift * affine[:3, 0]
    image = nib.Nifti1Image(mask.transpose(2, 1, 0), affine)
    image.header["descrip"] = b"Muster"
    if axes is not None:
        image = image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(tuple(axes))))
    nib.save(image, path)


@pytest.mark.parametrize("axes", [None, "RAS", "LIP", "ASR"])
@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.float64])
def test_a_nifti_on_the_same_voxels_is_the_label(
    axes: str | None, kind: type, series: list[Dataset], tmp_path: Path
) -> None:
    mask = two_segments()
    write_nifti_label(tmp_path / "in" / "label.nii.gz", series, mask.astype(kind), axes)
    made, _ = convert(tmp_path / "in")
    path = only_label(made)
    assert_marked(path, series, mask)
    assert nib.Nifti1Image.from_filename(path).get_data_dtype() == np.uint8
    assert b"Muster" not in gzip.decompress(path.read_bytes())
    assert rows_of(made)[0]["label"] == "NIfTI"
    (entry,) = json.loads((made / "segments.json").read_text()).values()
    assert entry["values"]["2"] == {"name": "", "voxels": 3}


def test_a_seg_comes_before_a_nifti(series: list[Dataset], tmp_path: Path) -> None:
    write_nifti_label(tmp_path / "in" / "label.nii", series, np.ones(SHAPE, np.uint8))
    write_seg(tmp_path / "in" / "seg.dcm", series, two_segments())
    assert_marked(only_label(convert(tmp_path / "in")[0]), series, two_segments())


def ramp() -> NDArray[np.int16]:
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


@pytest.mark.parametrize(
    ("mask", "shift", "reason"),
    [
        (two_segments()[:, :-1], 0.0, r"has size 9 x 11 x 5, the images have 9 x 12 x 5"),
        (two_segments(), 0.4, r"is off their grid by 0\.51 voxels"),
        (ramp(), 0.0, "540 values from 0 to 539, .* is it an image"),
        (two_segments() * 0.9999, 0.0, "3 values from 0 to 1.9998, a label has whole numbers"),
        (two_segments()[None], 0.0, "4 dimensions"),
        (np.where(two_segments() > 0, np.nan, 0), 0.0, "values from 0 to nan"),
    ],
    ids=["size", "shifted", "image", "not whole", "4-D", "nan"],
)
def test_a_nifti_that_is_no_label_of_the_images_is_reported(
    mask: NDArray[Any], shift: float, reason: str, series: list[Dataset], tmp_path: Path
) -> None:
    if mask.ndim == 3:
        write_nifti_label(tmp_path / "in" / "label.nii.gz", series, mask, shift=shift)
    else:
        nib.save(nib.Nifti1Image(mask, np.eye(4)), tmp_path / "in" / "label.nii.gz")
    made, _ = convert(tmp_path / "in")
    (row,) = rows_of(made)
    assert (row["status"], row["label"]) == ("converted", "left out")
    with pytest.raises(AssertionError, match=reason):  # shows the text if it is another one
        raise AssertionError(row["reason"])


def test_several_nifti_files_are_not_chosen_from(series: list[Dataset], tmp_path: Path) -> None:
    for name in ("a.nii", "b.nii.gz"):
        write_nifti_label(tmp_path / "in" / name, series, two_segments())
    made, _ = convert(tmp_path / "in")
    assert rows_of(made)[0]["reason"] == "label: 2 NIfTI files lie beside the images; leave the one label map there"


def test_a_nifti_that_fits_two_series_is_nobody_s(tmp_path: Path) -> None:
    def later(index: int, dataset: Dataset) -> None:
        dataset.InstanceNumber = index + 101

    first = in_order(write_series(tmp_path / "in", number=1, seed=1))
    write_series(tmp_path / "second", number=2, seed=2, change=later)
    for path in (tmp_path / "second").iterdir():
        path.rename(tmp_path / "in" / f"second_{path.name}")
    write_nifti_label(tmp_path / "in" / "label.nii.gz", first, two_segments())
    made, _ = convert(tmp_path / "in", series="all")
    assert {row["reason"] for row in rows_of(made)} == {
        "label: the NIfTI beside the images fits several series; put each series into a folder of its own"
    }
    made = convert_dicom(tmp_path / "in", tmp_path / "one", series=first[0].SeriesInstanceUID)
    assert_marked(only_label(made), first, two_segments())
