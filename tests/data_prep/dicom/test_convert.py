"""DICOM series as NIfTI: grids and values, the choice of series, names that tell nobody."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless
from rich.console import Console
from scipy.spatial.transform import Rotation

from data_prep.__main__ import main
from data_prep.dicom.convert import convert_dicom
from tests.data_prep.dicom.dicom_files import (
    OBLIQUE,
    SHAPE,
    Change,
    assert_same_voxels,
    convert,
    functional_groups,
    only_image,
    rows_of,
    setting,
    without_slices,
    write_series,
)

# --- grids and values


@pytest.mark.parametrize("seed", range(6))
def test_voxels_lie_where_the_headers_say_for_any_orientation(seed: int, tmp_path: Path) -> None:
    axes = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    spacing = tuple(np.random.default_rng([seed, 1]).uniform(0.4, 4.0, 3))
    datasets = write_series(tmp_path / "in", axes=axes, spacing=spacing, seed=seed)
    volume = only_image(convert(tmp_path / "in")[0])
    assert volume.shape == (SHAPE[2], SHAPE[1], SHAPE[0])
    assert_same_voxels(volume, datasets, seed)
    expected = np.diag([-1, -1, 1]) @ axes * (spacing[1], spacing[0], spacing[2])
    np.testing.assert_allclose(volume.affine[:3, :3], expected, atol=1e-5)
    for code in ("get_sform", "get_qform"):
        np.testing.assert_allclose(getattr(volume, code)(), volume.affine, atol=1e-4)


def test_slices_written_against_their_normal_give_a_right_handed_grid(tmp_path: Path) -> None:
    datasets = write_series(tmp_path / "in", axes=OBLIQUE * (1, 1, -1))
    volume = only_image(convert(tmp_path / "in")[0])
    assert np.linalg.det(volume.affine[:3, :3]) > 0
    assert_same_voxels(volume, datasets)


def set_rescale(slope: Callable[[int], float], intercept: float) -> Change:
    def change(index: int, dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = slope(index), intercept

    return change


@pytest.mark.parametrize(
    ("slope", "intercept", "kind"),
    [(lambda i: 1, -1024, np.int16), (lambda i: 0.25, -3.5, np.float32), (lambda i: 1 + 0.5 * i, 0, np.float32)],
    ids=["hounsfield", "fraction", "another slope in each slice"],
)
def test_rescaling_is_applied(slope: Callable[[int], float], intercept: float, kind: type, tmp_path: Path) -> None:
    datasets = write_series(tmp_path / "in", change=set_rescale(slope, intercept))
    volume = only_image(convert(tmp_path / "in")[0])
    assert volume.get_data_dtype() == kind
    assert_same_voxels(volume, datasets)


def test_values_beyond_16_bits_are_kept(tmp_path: Path) -> None:
    datasets = write_series(tmp_path / "in", change=set_rescale(lambda i: 50, 40000))
    volume = only_image(convert(tmp_path / "in")[0])
    assert volume.get_data_dtype() == np.int32
    assert_same_voxels(volume, datasets)


def test_compressed_images_are_read(tmp_path: Path) -> None:
    datasets = write_series(tmp_path / "in", change=lambda index, dataset: dataset.compress(RLELossless))
    assert_same_voxels(only_image(convert(tmp_path / "in")[0]), datasets)


def test_rounded_positions_are_still_a_regular_grid(tmp_path: Path) -> None:
    def rounded(index: int, dataset: Dataset) -> None:
        dataset.ImagePositionPatient = [round(float(value), 2) for value in dataset.ImagePositionPatient]

    write_series(tmp_path / "in", change=rounded)
    volume = only_image(convert(tmp_path / "in")[0])
    np.testing.assert_allclose(nib.affines.voxel_sizes(volume.affine), (0.9, 0.7, 3.5), atol=5e-3)


def test_multi_frame_objects_are_converted(tmp_path: Path) -> None:
    datasets = write_series(tmp_path / "single")
    functional_groups(datasets, tmp_path / "in" / "multi.dcm")
    made, _ = convert(tmp_path / "in")
    for dataset in datasets:
        dataset.RescaleSlope, dataset.RescaleIntercept = 2.0, -10.0
    assert_same_voxels(only_image(made), datasets)
    assert rows_of(made)[0]["size"] == "9 x 12 x 5"


def test_multi_frame_objects_without_one_grid_are_left_out(tmp_path: Path) -> None:
    datasets = write_series(tmp_path / "single")
    datasets[1].ImagePositionPatient = datasets[0].ImagePositionPatient
    functional_groups(datasets, tmp_path / "in" / "multi.dcm")
    with pytest.raises(ValueError, match="multi-frame object whose frames are no regular volume"):
        convert(tmp_path / "in")


# --- several series


@pytest.fixture
def three_series(tmp_path: Path) -> tuple[Path, list[str]]:
    """Two series of one patient and one of another in one folder, and their UIDs."""
    made = [
        write_series(tmp_path / "in" / str(seed), patient=patient, number=number, seed=seed)
        for seed, (patient, number) in enumerate([("A17", 4), ("A17", 5), ("B", 4)])
    ]
    return tmp_path / "in", [datasets[0].SeriesInstanceUID for datasets in made]


def test_of_several_series_one_has_to_be_chosen(three_series: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, uids = three_series
    printed = io.StringIO()
    with pytest.raises(ValueError, match=r"3 series are volumes .* Choose with --series UID") as error:
        convert_dicom(folder, tmp_path / "out", console=Console(file=printed, width=300))
    assert all(uid in str(error.value) for uid in uids)
    for shown in (*uids, "t2_tse_tra", "MR", "9 x 12 x 5", "0.9 x 0.7 x 3.5"):
        assert shown in printed.getvalue()
    assert not (tmp_path / "out").exists()


def test_chosen_series_are_converted_and_keep_their_names(three_series: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, uids = three_series

    def names(series: Any, name: str) -> dict[str, str]:
        made, _ = convert(folder, tmp_path / name, series)
        written = {path.name.removesuffix(".nii.gz") for path in (made / "images").iterdir()}
        rows = {row["uid"]: row["name"] for row in rows_of(made) if row["status"] == "converted"}
        assert written == set(rows.values())
        return rows

    everything = names("all", "all")
    assert list(everything) == sorted(uids, key=lambda uid: (uid == uids[1], uid))
    assert len({name[:3] for name in everything.values()}) == 2
    assert everything[uids[0]][:3] == everything[uids[1]][:3]
    one = names(uids[1], "one")
    assert one == {uids[1]: everything[uids[1]]}
    assert names(f"{uids[1]}, {uids[2]}", "two") == names([uids[2], uids[1]], "also two")


def test_the_command_takes_several_series(
    three_series: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, uids = three_series
    words = ["dicom", "--input", str(folder), "--output", str(tmp_path / "out")]
    assert main(words) == 1
    assert "Choose with --series UID" in capsys.readouterr().err
    assert main([*words, f"--series={uids[0]},{uids[2]}"]) == 0
    assert "written:" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "images").iterdir())) == 2


def test_wrong_choices_are_explained(three_series: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, uids = three_series
    with pytest.raises(ValueError, match=f"--series {uids[0]}1: not in .*; did you mean '?{uids[0]}"):
        convert(folder, series=f"{uids[0]}1")
    with pytest.raises(ValueError, match="give a SeriesInstanceUID or all"):
        convert(folder, series=",")
    bad = write_series(folder / "bad", change=without_slices(2), seed=9)[0].SeriesInstanceUID
    with pytest.raises(ValueError, match=f"--series {bad}: cannot be converted: missing slices"):
        convert(folder, series=bad)
    assert not (tmp_path / "out").exists()


# --- privacy


def test_nothing_written_tells_who_the_patient_is(tmp_path: Path) -> None:
    def described(index: int, dataset: Dataset) -> None:
        dataset.SeriesDescription = "T2 for MUSTER"
        dataset.PatientID = "ID-20345"

    folder = tmp_path / "MUSTER_ANNA"
    write_series(folder, change=described)
    (folder / "Muster.dcm").write_text("damaged")
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, 2), np.uint8), np.eye(4)), folder / "Muster_Anna_1950.nii.gz")
    made, _ = convert(folder, tmp_path / "out")
    assert rows_of(made)[0]["description"] == "(withheld)"
    assert "label: the NIfTI beside the images has 4 dimensions" in rows_of(made)[0]["reason"]
    for path in made.rglob("*"):
        if path.is_file():
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            text = f"{path.relative_to(made)} ".encode() + content
            assert not any(word in text.lower() for word in (b"muster", b"a17name", b"20345", b"1950", b"20200101"))


@pytest.mark.parametrize("text", ["t2 [ax]", "t2 0.5x0.5x3 b1000", "ep2d 1.5 3.0", "VIBE 5.5.25", "t2 2-3-10"])
def test_an_ordinary_description_is_kept(text: str, tmp_path: Path) -> None:
    write_series(tmp_path / "in", change=setting("SeriesDescription", text))
    made, printed = convert(tmp_path / "in")
    assert rows_of(made)[0]["description"] == text
    assert text in printed


@pytest.mark.parametrize("text", ["T2 Wu ax", "T2 20200131", "T2 31.1.2020 ax", "2020-01-31"])
def test_a_description_with_a_short_name_or_a_date_is_withheld(text: str, tmp_path: Path) -> None:
    def change(index: int, dataset: Dataset) -> None:
        dataset.PatientName, dataset.SeriesDescription = "Wu^Li", text

    write_series(tmp_path / "in", change=change)
    made, printed = convert(tmp_path / "in")
    assert rows_of(made)[0]["description"] == "(withheld)"
    assert text not in printed


# --- the whole


def test_dicom_libraries_are_needed_only_when_called() -> None:
    code = """
import sys
sys.modules.update(dict.fromkeys(("pydicom", "highdicom", "itk")))  # an import of them raises
import data_prep.dicom.convert
print("imported")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert done.stdout.strip() == "imported", done.stderr


@pytest.mark.shared_data
def test_a_real_oblique_series_keeps_its_place(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "volumes" / "prostate_t2_dicom"
    made, printed = convert(folder, tmp_path / "out")
    volume = only_image(made)
    assert volume.shape == (384, 384, 19)
    assert volume.get_data_dtype() == np.int16
    assert nib.aff2axcodes(volume.affine) == ("L", "P", "S")
    np.testing.assert_allclose(nib.affines.voxel_sizes(volume.affine), (0.5, 0.5, 3), atol=1e-6)
    assert_same_voxels(volume, [pydicom.dcmread(path) for path in folder.glob("*.dcm")])
    assert "ProstateX" not in (made / "series.csv").read_text()
    assert json.loads((made / "segments.json").read_text()) == {}
    assert "No labels were found" in printed
