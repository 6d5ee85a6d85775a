"""Small DICOM series and SEG objects for tests, conversion of them, and where their voxels are by the standard."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import highdicom
import nibabel as nib
import numpy as np
import pytest
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from rich.console import Console
from scipy.spatial.transform import Rotation

from data_prep.dicom.convert import convert_dicom

COMPARED = 12
SHAPE = (5, 12, 9)
OBLIQUE = Rotation.from_euler("xyz", (17, -9, 31), degrees=True).as_matrix()
Change = Callable[[int, Dataset], Any]


def write_series(
    folder: Path,
    *,
    shape: tuple[int, int, int] = SHAPE,
    axes: NDArray[np.float64] = OBLIQUE,
    spacing: tuple[float, float, float] = (0.7, 0.9, 3.5),
    origin: Sequence[float] = (-31.0, 12.5, 40.25),
    patient: str = "A17",
    number: int = 4,
    seed: int = 0,
    change: Change | None = None,
) -> list[Dataset]:
    """Write one series and return its data sets, in an order of files that is not the order of the slices.

    Args:
        folder: made if absent.
        shape: slices, rows, columns.
        axes: columns of the matrix: direction along a row, along a column, along the slices; LPS.
        spacing: mm between rows, between columns, between slices.
        origin: position of the first voxel of the first slice.
        patient: PatientID, from which the study's and the frame's UIDs are made.
        number: SeriesNumber.
        seed: of the voxels, and of the series' UID.
        change: called with the slice's index and its data set before writing; returns False to leave it out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    uid = generate_uid(entropy_srcs=["series", patient, str(seed), str(number)])
    written: list[Dataset] = []
    for index in rng.permutation(shape[0]):
        dataset = _header(patient, number)
        dataset.SeriesInstanceUID = uid
        dataset.InstanceNumber = int(index) + 1
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(
            entropy_srcs=[uid, str(index)]
        )
        dataset.Rows, dataset.Columns = shape[1:]
        dataset.PixelSpacing = [spacing[0], spacing[1]]
        dataset.SliceThickness = spacing[2]
        dataset.ImageOrientationPatient = [f"{value:.10g}" for value in (*axes[:, 0], *axes[:, 1])]
        place = np.asarray(origin) + axes[:, 2] * spacing[2] * index
        dataset.ImagePositionPatient = [f"{value:.10g}" for value in place]
        dataset.PixelData = rng.integers(0, 1000, shape[1:]).astype("<u2").tobytes()
        if change is not None and change(int(index), dataset) is False:
            continue
        dataset.save_as(folder / f"image{len(written):03d}.dcm", enforce_file_format=True)
        written.append(dataset)
    return written


def _header(patient: str, number: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
    dataset.PatientName, dataset.PatientID = f"Muster^{patient}name", patient
    dataset.PatientBirthDate, dataset.PatientSex = "19500101", "O"
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study", patient])
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame", patient])
    dataset.PositionReferenceIndicator = ""
    dataset.StudyID, dataset.StudyDate, dataset.StudyTime = "1", "20200101", "120000"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "", ""
    dataset.Modality, dataset.SeriesNumber, dataset.SeriesDescription = "MR", number, "t2_tse_tra"
    dataset.Manufacturer, dataset.ImageType = "none", ["ORIGINAL", "PRIMARY", "M"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    return dataset


def in_order(datasets: Sequence[Dataset]) -> list[Dataset]:
    """Return the slices of a series of ``write_series`` in the order of their index."""
    return sorted(datasets, key=lambda dataset: int(dataset.InstanceNumber))


def affine_of(series: Sequence[Dataset]) -> NDArray[np.float64]:
    """Return the affine from (slice, row, column) to LPS mm of slices that are in the order of their index."""
    first, last = series[0], series[-1]
    cosines = np.array(first.ImageOrientationPatient, dtype=np.float64)
    places = [np.array(dataset.ImagePositionPatient, dtype=np.float64) for dataset in (first, last)]
    affine = np.eye(4)
    affine[:3, 0] = (places[1] - places[0]) / (len(series) - 1)
    affine[:3, 1] = cosines[3:] * float(first.PixelSpacing[0])
    affine[:3, 2] = cosines[:3] * float(first.PixelSpacing[1])
    affine[:3, 3] = places[0]
    return affine


def voxel_in(volume: nib.Nifti1Image, dataset: Dataset, row: int, column: int) -> tuple[int, ...]:
    """Return the index in a NIfTI volume of a pixel of a DICOM image (PS3.3, equation C.7.6.2.1-1)."""
    cosines = np.array(dataset.ImageOrientationPatient, dtype=np.float64)
    between_rows, between_columns = (float(value) for value in dataset.PixelSpacing)
    lps = np.array(dataset.ImagePositionPatient, dtype=np.float64)
    lps = lps + cosines[:3] * between_columns * column + cosines[3:] * between_rows * row
    index = np.linalg.inv(volume.affine) @ [-lps[0], -lps[1], lps[2], 1.0]
    np.testing.assert_allclose(index[:3], index[:3].round(), atol=1e-3)
    return tuple(int(value) for value in index[:3].round())


def write_seg(
    path: Path,
    source: Sequence[Dataset],
    mask: NDArray[np.uint8] | highdicom.Volume,
    *,
    names: Sequence[str] = ("Prostate", "Lesion"),
    kind: str = "BINARY",
    change: Callable[[Dataset], None] | None = None,
    **options: Any,
) -> None:
    """Write a SEG object.

    Args:
        path: of the file.
        source: all slices of a series.
        mask: (slices, rows, columns) label map or (slices, rows, columns, segments), in the order of ``source``.
        names: labels of the segments.
        kind: BINARY, FRACTIONAL or LABELMAP.
        change: called with the object before writing.
        options: for highdicom's ``Segmentation``.
    """
    descriptions = [
        SegmentDescription(
            segment_number=index,
            segment_label=name,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Prostate,
            algorithm_type=SegmentAlgorithmTypeValues.MANUAL,
        )
        for index, name in enumerate(names, 1)
    ]
    seg = highdicom.seg.Segmentation(
        source_images=list(source),
        pixel_array=mask,
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=100,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    if change is not None:
        change(seg)
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)


def functional_groups(datasets: list[Dataset], path: Path) -> None:
    """Write a series as one enhanced MR object, with its frames in the order of the list."""
    multi = Dataset()
    multi.update({element.tag: element for element in datasets[0] if element.keyword != "PixelData"})
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        del multi[keyword]
    multi.file_meta = datasets[0].file_meta
    multi.file_meta.MediaStorageSOPClassUID = multi.SOPClassUID = EnhancedMRImageStorage
    multi.NumberOfFrames = len(datasets)
    shared, measures, plane, rescale = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = datasets[0].PixelSpacing, datasets[0].SliceThickness
    plane.ImageOrientationPatient = datasets[0].ImageOrientationPatient
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 2.0, -10.0, "US"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    shared.PixelValueTransformationSequence = [rescale]
    multi.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for index, dataset in enumerate(datasets, 1):
        frame, position, content = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = dataset.ImagePositionPatient
        content.DimensionIndexValues = [index]
        frame.PlanePositionSequence, frame.FrameContentSequence = [position], [content]
        frames.append(frame)
    multi.PerFrameFunctionalGroupsSequence = frames
    multi.PixelData = b"".join(dataset.PixelData for dataset in datasets)
    path.parent.mkdir()
    multi.save_as(path, enforce_file_format=True)


def without_slices(*left_out: int) -> Change:
    return lambda index, dataset: index not in left_out


def setting(keyword: str, value: Any, at: Callable[[int], bool] = lambda index: True) -> Change:
    def change(index: int, dataset: Dataset) -> None:
        if at(index):
            setattr(dataset, keyword, value)

    return change


def convert(folder: Path, output: Path | None = None, series: Any = None, *, width: int = 200) -> tuple[Path, str]:
    """Convert and return the output folder and what was printed, in lines of the width."""
    printed = io.StringIO()
    made = convert_dicom(
        folder, output or folder.parent / "out", series=series, console=Console(file=printed, width=width)
    )
    return made, printed.getvalue()


def rows_of(made: Path) -> list[dict[str, str]]:
    with open(made / "series.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def only_image(made: Path) -> nib.Nifti1Image:
    (path,) = (made / "images").iterdir()
    return nib.Nifti1Image.from_filename(path)


def assert_same_voxels(volume: nib.Nifti1Image, datasets: list[Dataset], seed: int = 0) -> None:
    """Compare random pixels of each DICOM image with the voxels at their places."""
    values = np.asanyarray(volume.dataobj)
    rng = np.random.default_rng(seed)
    for dataset in datasets:
        for _ in range(COMPARED):
            row, column = int(rng.integers(dataset.Rows)), int(rng.integers(dataset.Columns))
            slope, intercept = (float(dataset.get(f"Rescale{name}", d)) for name, d in (("Slope", 1), ("Intercept", 0)))
            expected = float(dataset.pixel_array[row, column]) * slope + intercept
            assert values[voxel_in(volume, dataset, row, column)] == pytest.approx(expected, rel=1e-6)
