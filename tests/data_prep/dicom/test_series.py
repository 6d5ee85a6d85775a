"""DICOM series that are no volumes, and files that are no images: what is left out, and why."""

from __future__ import annotations

import builtins
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from tests.data_prep.dicom.dicom_files import (
    OBLIQUE,
    SHAPE,
    Change,
    assert_same_voxels,
    convert,
    only_image,
    rows_of,
    setting,
    without_slices,
    write_series,
)

# --- what is left out


def moved(shift: Callable[[int], float], axis: int = 2) -> Change:
    """Move each slice by some mm along one of the axes."""

    def change(index: int, dataset: Dataset) -> None:
        place = np.array(dataset.ImagePositionPatient, dtype=np.float64) + OBLIQUE[:, axis] * shift(index)
        dataset.ImagePositionPatient = [f"{value:.10g}" for value in place]

    return change


def stacked(keyword: str | None) -> Change:
    """Put two images at each position, told apart by a tag."""

    def change(index: int, dataset: Dataset) -> None:
        moved(lambda i: -3.5 * (i - i % 3))(index, dataset)
        if keyword:
            setattr(dataset, keyword, (20, 80)[index // 3])

    return change


def without(keyword: str) -> Change:
    return lambda index, dataset: dataset.__delattr__(keyword)


def smaller_first(index: int, dataset: Dataset) -> None:
    if index == 0:
        dataset.Rows = 4
        dataset.PixelData = dataset.PixelData[: 4 * 9 * 2]


def coloured(index: int, dataset: Dataset) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = bytes(SHAPE[1] * SHAPE[2] * 3 + SHAPE[1] * SHAPE[2] % 2)


def contours(index: int, dataset: Dataset) -> bool:
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = RTStructureSetStorage
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(dataset, keyword)
    return index == 0


LEFT_OUT = {
    "gap": (without_slices(2), r"missing slices: 1 \(1 between -?\d+\.\d and -?\d+\.\d mm along the normal\)"),
    "uneven": (moved(lambda i: 0.3 * i * i), "slices are unevenly spaced, 3.8 to 5.6 mm"),
    "echoes": (
        stacked("EchoTime"),
        r"2 of 5 images lie at the position of another; EchoTime tells them apart \(20\.0, 80\.0\)",
    ),
    "repeated": (stacked(None), "2 of 5 images lie at the position of another; no tag tells them apart"),
    "one place": (moved(lambda i: -3.5 * i), "4 of 5 images lie at the position of another; no tag"),
    "tilted": (moved(lambda i: 0.5 * i, axis=1), "shifted against each other .* tilted gantry"),
    "sizes": (smaller_first, r"mixed sizes \(columns x rows\): 9 x 12 \(4 images\), 9 x 4 \(1 image\)"),
    "orientations": (
        setting("ImageOrientationPatient", [1, 0, 0, 0, 1, 0], lambda i: i > 3),
        r"mixed orientations: .* \(4 images\), 1 0 0 0 1 0 \(1 image\)",
    ),
    "spacings": (
        setting("PixelSpacing", [1, 1], lambda i: i > 3),
        r"mixed pixel spacings: 0\.7 0\.9 \(4 images\), 1 1 \(1 image\)",
    ),
    "negatives": (
        setting("PhotometricInterpretation", "MONOCHROME1", lambda i: i > 3),
        r"mixed photometric interpretations: MONOCHROME2 \(4 images\), MONOCHROME1 \(1 image\)",
    ),
    "patients": (setting("PatientID", "B", lambda i: i > 3), "mixed patients; put"),
    "frames": (setting("FrameOfReferenceUID", "1.2", lambda i: i > 3), "mixed frames of reference; put"),
    "localizer": (setting("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer: planning images"),
    "one localizer": (
        setting("ImageType", ["DERIVED", "PRIMARY", "LOCALIZER"], lambda i: i == 0),
        r"localizer: .* \(1 of 5 images\)",
    ),
    "capture": (setting("SOPClassUID", SecondaryCaptureImageStorage), "secondary capture: a picture of a screen"),
    "colour": (coloured, "colour images; only grey ones"),
    "palette": (setting("PhotometricInterpretation", "PALETTE COLOR"), "palette colours"),
    "contours": (contours, r"no image \(RT Structure Set Storage\)"),
    "one image": (without_slices(0, 1, 2, 3), "one image, not a volume"),
    "no position": (without("ImagePositionPatient"), "no ImagePositionPatient, so the place in the patient is unknown"),
    "no orientation": (without("ImageOrientationPatient"), "no ImageOrientationPatient"),
    "no spacing": (without("PixelSpacing"), "no PixelSpacing"),
    "no rotation": (setting("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), "not two perpendicular unit vectors"),
    "zero spacing": (setting("PixelSpacing", [0, 1]), "PixelSpacing 0 x 1 is not positive"),
}


@pytest.mark.parametrize(("change", "reason"), LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_a_series_that_is_no_volume_is_left_out_with_the_reason(change: Change, reason: str, tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "bad", change=change, number=2)
    before = {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.dcm")}
    with pytest.raises(ValueError, match=f"none of 1 series is a volume.*{reason}"):
        convert(tmp_path / "in")
    assert not (tmp_path / "out").exists()
    good = write_series(tmp_path / "in" / "good", patient="B", seed=1)
    made, printed = convert(tmp_path / "in")
    assert_same_voxels(only_image(made), good)
    bad, converted = rows_of(made)
    assert bad["status"] == "left out"
    assert converted["status"] == "converted"
    assert bad["reason"].split(" ")[0] in printed
    assert {path: path.read_bytes() for path in before} == before


def test_evenly_spaced_images_with_odd_numbers_are_converted_with_a_note(tmp_path: Path) -> None:
    datasets = write_series(tmp_path / "in", change=without_slices(1, 3))
    made, printed = convert(tmp_path / "in")
    assert_same_voxels(only_image(made), datasets)
    assert rows_of(made)[0]["reason"] == "3 images are numbered 1 to 5"
    assert "numbered 1 to 5" in " ".join(printed.replace("│", " ").split())


def test_copies_of_an_image_are_taken_once(tmp_path: Path) -> None:
    datasets = write_series(tmp_path / "in")
    shutil.copy(tmp_path / "in" / "image000.dcm", tmp_path / "in" / "again.dcm")
    made, _ = convert(tmp_path / "in")
    assert_same_voxels(only_image(made), datasets)
    assert rows_of(made)[0]["reason"] == "copies of the same image left out: 1"


# --- files that are not images


def test_other_files_are_ignored_and_damaged_ones_named(tmp_path: Path) -> None:
    datasets = write_series(tmp_path / "in")
    (tmp_path / "in" / "notes.txt").write_text("x" * 300)
    (tmp_path / "in" / "empty").touch()
    (tmp_path / "in" / "._image000.dcm").write_bytes(b"from macOS" * 30)
    contents = Dataset()
    contents.file_meta = pydicom.dataset.FileMetaDataset()
    contents.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    contents.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    contents.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    contents.save_as(tmp_path / "in" / "DICOMDIR", enforce_file_format=True)
    (tmp_path / "in" / "zero.dcm").touch()
    (tmp_path / "in" / "text.dcm").write_text("not DICOM " * 40)
    (tmp_path / "in" / "cut.bin").write_bytes((tmp_path / "in" / "image000.dcm").read_bytes()[:150])
    made, printed = convert(tmp_path / "in")
    assert_same_voxels(only_image(made), datasets)
    assert "4 files that are not DICOM images" in printed
    assert "unreadable (3)" in printed
    assert all(name in printed for name in ("zero.dcm", "text.dcm", "cut.bin"))
    assert rows_of(made)[-1]["reason"] == "3 files or folders cannot be read"


def test_images_without_the_preamble_are_read(tmp_path: Path) -> None:
    datasets = write_series(tmp_path / "in")
    for path in (tmp_path / "in").iterdir():
        path.write_bytes(path.read_bytes()[132:])
    assert_same_voxels(only_image(convert(tmp_path / "in")[0]), datasets)


def test_a_file_that_may_not_be_read_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "in")
    locked = tmp_path / "in" / "locked.dcm"
    shutil.copy(tmp_path / "in" / "image000.dcm", locked)
    really_open = builtins.open

    def refuse(file: Any, *arguments: Any, **options: Any) -> Any:
        if str(file) == str(locked):
            raise PermissionError(13, "Permission denied")
        return really_open(file, *arguments, **options)

    monkeypatch.setattr(builtins, "open", refuse)
    made, printed = convert(tmp_path / "in")
    assert "locked.dcm" in printed
    assert "PermissionError" in printed
    assert only_image(made).shape == (9, 12, 5)


def test_a_folder_that_may_not_be_searched_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "in")
    (tmp_path / "in" / "locked").mkdir()
    really_scan = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return really_scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    made, printed = convert(tmp_path / "in")
    assert "cannot be searched (PermissionError)" in printed
    assert rows_of(made)[-1]["reason"] == "1 files or folders cannot be read"


def test_voxels_that_are_cut_off_stop_a_chosen_series_and_are_left_out_of_all(tmp_path: Path) -> None:
    datasets = write_series(tmp_path / "in" / "bad")
    good = write_series(tmp_path / "in" / "good", patient="B", seed=1)
    path = tmp_path / "in" / "bad" / "image002.dcm"
    whole = path.read_bytes()
    path.write_bytes(whole[:-60])
    uid = datasets[0].SeriesInstanceUID
    number = int(datasets[2].InstanceNumber)  # the slices of `write_series` ascend along the normal
    reason = rf"series {uid} cannot be converted: PixelData of image {number} of 5 along .* 156 bytes, expected 216 "
    with pytest.raises(ValueError, match=reason):
        convert(tmp_path / "in", series=uid)
    assert not (tmp_path / "out").exists()
    made, _ = convert(tmp_path / "in", series="all")
    assert_same_voxels(only_image(made), good)
    assert [row["status"] for row in rows_of(made)].count("left out") == 1
    path.write_bytes(whole)
    made, _ = convert(tmp_path / "in", tmp_path / "mended", series=uid)
    assert_same_voxels(only_image(made), datasets)


def nameless(index: int, dataset: Dataset) -> None:
    dataset.PatientID = dataset.PatientName = dataset.PatientBirthDate = ""


def named(name: str, birth: str = "19500101", study: str = "1.2.3") -> Change:
    """Take the PatientID away and leave a name."""

    def change(index: int, dataset: Dataset) -> None:
        dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate = "", name, birth
        dataset.StudyInstanceUID = study

    return change


@pytest.mark.parametrize(
    ("second", "patients"),
    [
        (named("MUSTER^ANNA^^ ", study="1.2.4"), 1),
        (named("Muster^Anna", birth="19500102", study="1.2.3"), 2),
        (named("Muster^Hanna", study="1.2.3"), 2),
    ],
    ids=["two studies of one patient", "another date of birth", "another name"],
)
def test_without_id_the_name_and_the_date_of_birth_make_the_patient(
    second: Change, patients: int, tmp_path: Path
) -> None:
    write_series(tmp_path / "in" / "1", seed=1, change=named("Muster^Anna"))
    write_series(tmp_path / "in" / "2", seed=2, change=second)
    made, printed = convert(tmp_path / "in", series="all")
    assert len({row["name"][:3] for row in rows_of(made)}) == patients
    assert all("told apart by name and date of birth" in row["reason"] for row in rows_of(made))
    for text in (printed, (made / "series.csv").read_text()):
        assert not any(word in text.lower() for word in ("muster", "anna", "1950"))


def test_patients_that_nothing_tells_apart_are_noted(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "1", patient="A", seed=1, change=nameless)
    write_series(tmp_path / "in" / "2", patient="B", seed=2, change=nameless)
    write_series(tmp_path / "in" / "3", patient="C", seed=3)
    made, printed = convert(tmp_path / "in", series="all", width=1000)
    notes = [row["reason"] for row in rows_of(made)]
    assert sorted("patients cannot be told apart" in note for note in notes) == [False, True, True]
    assert len({row["name"][:3] for row in rows_of(made)}) == 3
    assert printed.count("patients cannot be told apart") == 2


def identified(number: str, issuer: str = "", name: str = "Muster^A17name", study: str = "1.2.3") -> Change:
    """Set what tells patients apart."""

    def change(index: int, dataset: Dataset) -> None:
        dataset.PatientID, dataset.IssuerOfPatientID, dataset.PatientName = number, issuer, name
        dataset.StudyInstanceUID = study

    return change


@pytest.mark.parametrize(
    ("second", "patients", "noted"),
    [
        (identified("a17 "), 1, False),
        (identified("A17", "Hospital"), 1, False),
        (identified("A18"), 2, False),
        (identified("A17", name="Muster^Hanna"), 1, True),
    ],
    ids=["written otherwise", "with an issuer", "another id", "another name"],
)
def test_series_with_one_id_are_one_patient(second: Change, patients: int, noted: bool, tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "1", seed=1, change=identified("A17"))
    write_series(tmp_path / "in" / "2", seed=2, change=second)
    made, _ = convert(tmp_path / "in", series="all")
    assert len({row["name"][:3] for row in rows_of(made)}) == patients
    assert {"all of it counts as one patient" in row["reason"] for row in rows_of(made)} == {noted}


def test_ids_of_two_issuers_are_two_patients(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "1", seed=1, change=identified("A17", "Hospital"))
    write_series(tmp_path / "in" / "2", seed=2, change=identified("A17", "Clinic"))
    made, _ = convert(tmp_path / "in", series="all")
    assert len({row["name"][:3] for row in rows_of(made)}) == 2


@pytest.mark.parametrize(("study", "noted"), [("1.2.3", False), ("1.2.4", True)])
def test_a_placeholder_id_of_several_studies_is_noted(study: str, noted: bool, tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "1", seed=1, change=identified("ANONYMOUS", name=""))
    write_series(tmp_path / "in" / "2", seed=2, change=identified("ANONYMOUS", name="", study=study))
    made, _ = convert(tmp_path / "in", series="all")
    assert {"or is a placeholder" in row["reason"] for row in rows_of(made)} == {noted}


def test_images_of_two_patients_without_id_are_no_series(tmp_path: Path) -> None:
    def change(index: int, dataset: Dataset) -> None:
        named("Muster^Anna" if index else "Muster^Hanna")(index, dataset)

    write_series(tmp_path / "in", change=change)
    with pytest.raises(ValueError, match="mixed patients; put"):
        convert(tmp_path / "in")


def test_a_description_with_the_date_of_birth_is_withheld(tmp_path: Path) -> None:
    write_series(tmp_path / "in", change=setting("SeriesDescription", "t2 *19500101"))
    made, _ = convert(tmp_path / "in")
    assert rows_of(made)[0]["description"] == "(withheld)"


def test_loops_of_links_and_odd_folder_names_are_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "Bilder é ß" / "with space"
    datasets = write_series(folder)
    (folder / "loop").symlink_to(folder.parent, target_is_directory=True)
    (folder / "dead.dcm").symlink_to(folder / "nothing")
    made, printed = convert(tmp_path / "Bilder é ß", tmp_path / "out")
    assert_same_voxels(only_image(made), datasets)
    assert "dead.dcm" in printed


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder; give the folder that holds"):
        convert(tmp_path / "nowhere")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").touch()
    with pytest.raises(ValueError, match="no DICOM image found, only 0 unreadable DICOM files and 1 files of other"):
        convert(tmp_path / "in")
    assert not (tmp_path / "out").exists()


def test_an_output_with_content_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ValueError, match="out: exists and is not an empty folder"):
        convert(tmp_path / "in")
    assert [path.name for path in tmp_path.iterdir()] in (["in", "out"], ["out", "in"])


@pytest.mark.parametrize("place", ["in/out", "in/a/b", "link/out", "in"])
def test_an_output_in_the_input_is_refused_before_any_work(place: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in", target_is_directory=True)
    with pytest.raises(ValueError, match=f"--output .*{place}: lies in --input .*in, which is only read"):
        convert(tmp_path / "in", tmp_path / place)
    assert list((tmp_path / "in").iterdir()) == []


def test_an_input_below_the_folder_of_the_output_is_no_obstacle(tmp_path: Path) -> None:
    datasets = write_series(tmp_path / "in" / "scans")
    made, _ = convert(tmp_path / "in" / "scans", tmp_path / "in" / "scans of a site")
    assert_same_voxels(only_image(made), datasets)
    with pytest.raises(ValueError, match="in: exists and is not an empty folder"):
        convert(tmp_path / "in" / "scans", tmp_path / "in")
