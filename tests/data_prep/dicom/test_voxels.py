"""Voxels of DICOM series: none lost, none from another image, none changed by the type that holds them."""

from __future__ import annotations

import locale
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import itk
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from tests.data_prep.dicom.dicom_files import (
    Change,
    assert_same_voxels,
    convert,
    functional_groups,
    in_order,
    only_image,
    rows_of,
    setting,
    voxel_in,
    write_series,
)

SHAPE = (4, 40, 33)
BYTES = 40 * 33 * 2


@pytest.fixture(autouse=True)
def same_locale() -> Iterator[None]:
    """Reading leaves the locale of the process as it is: torch, later, reads its own sources by it."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    assert locale.setlocale(locale.LC_ALL) == before


def file_of(folder: Path, index: int) -> Path:
    """Return the file of a slice of ``write_series``."""
    (path,) = (path for path in folder.iterdir() if pydicom.dcmread(path).InstanceNumber == index + 1)
    return path


def pixels(change: Callable[[bytes], bytes], index: int = 2) -> Change:
    def apply(number: int, dataset: Dataset) -> None:
        if number == index:
            dataset.PixelData = change(dataset.PixelData)

    return apply


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda data: data[:1000], 1000),
        (lambda data: data[:-2], BYTES - 2),
        (lambda data: data[:1800], 1800),
        (lambda data: data + bytes(2), BYTES + 2),
        (lambda data: b"", 0),
    ],
    ids=["short", "one pixel short", "short and not read with the header", "long", "empty"],
)
def test_an_element_of_another_length_than_the_image_is_refused(
    change: Callable[[bytes], bytes], found: int, tmp_path: Path
) -> None:
    write_series(tmp_path / "in", shape=SHAPE, change=pixels(change))
    path = file_of(tmp_path / "in", 2)
    reason = f"PixelData of image 3 of 4 along the normal has {found} bytes, expected {BYTES} .*{path.name}"
    with pytest.raises(ValueError, match=reason):
        convert(tmp_path / "in")
    assert not (tmp_path / "out").exists()
    mended = write_series(tmp_path / "in", shape=SHAPE)
    assert_same_voxels(only_image(convert(tmp_path / "in")[0]), mended)


def test_the_damaged_file_is_shown_and_not_written(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "MUSTER_ANNA"
    write_series(folder, shape=SHAPE, change=pixels(lambda data: data[:1000]))
    good = write_series(tmp_path / "in" / "good", seed=1)
    made, printed = convert(tmp_path / "in", series="all", width=1000)
    assert_same_voxels(only_image(made), good)
    assert f"fetch it again ({file_of(folder, 2)})" in printed
    text = (made / "series.csv").read_text()
    assert "has 1000 bytes" in text
    assert "MUSTER" not in text
    assert "image00" not in text


def test_a_pad_byte_is_no_fault(tmp_path: Path) -> None:
    def bytes_only(index: int, dataset: Dataset) -> None:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.Rows = 39
        dataset.PixelData = dataset.PixelData[: 39 * 33] + b"\0"

    datasets = write_series(tmp_path / "in", shape=SHAPE, change=bytes_only)
    assert_same_voxels(only_image(convert(tmp_path / "in")[0]), datasets)


def test_images_that_do_not_say_that_they_are_grey_are_read(tmp_path: Path) -> None:
    def unsaid(index: int, dataset: Dataset) -> None:
        del dataset.SamplesPerPixel, dataset.PhotometricInterpretation

    datasets = write_series(tmp_path / "in", shape=SHAPE, change=unsaid)
    made = only_image(convert(tmp_path / "in")[0])
    for dataset in datasets:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    assert_same_voxels(made, datasets)


def test_images_with_0_as_white_are_inverted_with_a_note(tmp_path: Path) -> None:
    datasets = write_series(tmp_path / "in", change=setting("PhotometricInterpretation", "MONOCHROME1"))
    made = convert(tmp_path / "in")[0]
    (row,) = rows_of(made)
    assert row["reason"] == "stored with 0 as white (MONOCHROME1): values are inverted, so that 0 is black"
    stored = np.stack([dataset.pixel_array for dataset in datasets])
    found = np.asarray(only_image(made).dataobj)
    np.testing.assert_array_equal(np.sort(65535 - stored.ravel()), np.sort(found.ravel()))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_lengths_are_compared_in_each_native_transfer_syntax(syntax: UID, tmp_path: Path) -> None:
    def stored(index: int, dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset["PixelData"].VR = "OW"

    def short(index: int, dataset: Dataset) -> None:
        pixels(lambda data: data[:1000])(index, dataset)
        stored(index, dataset)

    datasets = write_series(tmp_path / "good", shape=SHAPE, change=stored)
    assert_same_voxels(only_image(convert(tmp_path / "good")[0]), datasets)
    write_series(tmp_path / "bad", shape=SHAPE, change=short)
    with pytest.raises(ValueError, match=f"has 1000 bytes, expected {BYTES}"):
        convert(tmp_path / "bad", tmp_path / "none")


def test_a_file_cut_off_within_the_voxels_is_named(tmp_path: Path) -> None:
    write_series(tmp_path / "in", shape=SHAPE)
    path = file_of(tmp_path / "in", 1)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(ValueError, match=f"image 2 of 4 along the normal .*{path.name}"):
        convert(tmp_path / "in")


def test_multi_frame_objects_that_lack_a_frame_are_refused(tmp_path: Path) -> None:
    datasets = write_series(tmp_path / "single", shape=SHAPE)
    datasets[-1].PixelData = b""
    functional_groups(datasets, tmp_path / "in" / "multi.dcm")
    with pytest.raises(ValueError, match=rf"has {3 * BYTES} bytes, expected {4 * BYTES} .*multi\.dcm"):
        convert(tmp_path / "in")


# --- compressed


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_images_that_are_cut_are_refused(syntax: UID, tmp_path: Path) -> None:
    def cut(index: int, dataset: Dataset) -> None:
        dataset.compress(syntax)
        if index == 2:
            frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
            dataset.PixelData = encapsulate([frame[: len(frame) // 4 * 2]])

    write_series(tmp_path / "in", shape=SHAPE, change=cut)
    path = file_of(tmp_path / "in", 2)
    with pytest.raises(ValueError, match=f"image 3 of 4 along the normal cannot be read .*{path.name}"):
        convert(tmp_path / "in")


def test_an_rle_frame_of_zeros_does_not_end_the_program(tmp_path: Path) -> None:
    def zeros(index: int, dataset: Dataset) -> None:
        dataset.compress(RLELossless)
        if index == 2:
            dataset.PixelData = encapsulate([bytes(500)])

    write_series(tmp_path / "in", shape=SHAPE, change=zeros)
    with pytest.raises(ValueError, match="RLE frame of image 3 of 4 along the normal has 0 segments, expected 2"):
        convert(tmp_path / "in")


def as_jpeg(path: Path, scratch: Path) -> None:
    """Compress the image of a file by JPEG Lossless, with ITK's writer, and leave its tags as they are.

    The writer, unlike the reader, sets the locale of the process to C.
    """
    before = locale.setlocale(locale.LC_ALL)
    picture = itk.Image[itk.US, 2]
    read = itk.ImageFileReader[picture].New(FileName=str(path), ImageIO=itk.GDCMImageIO.New())
    form = itk.GDCMImageIO.New()
    form.SetCompressor("JPEG")
    write = itk.ImageFileWriter[picture].New(read.GetOutput(), FileName=str(scratch), ImageIO=form, UseCompression=True)
    write.Update()
    locale.setlocale(locale.LC_ALL, before)
    made, dataset = pydicom.dcmread(scratch), pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = made.file_meta.TransferSyntaxUID
    dataset.PixelData = made.PixelData
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.save_as(path)


def test_a_jpeg_that_ends_early_is_refused_although_the_library_fills_it_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    native = write_series(tmp_path / "in", shape=SHAPE)
    for path in (tmp_path / "in").iterdir():
        as_jpeg(path, tmp_path / "jpeg.dcm")
    assert_same_voxels(only_image(convert(tmp_path / "in", tmp_path / "whole")[0]), native)
    path = file_of(tmp_path / "in", 2)
    dataset = pydicom.dcmread(path)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) // 4 * 2] + b"\xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    with pytest.raises(ValueError, match=f"image 3 of 4 along the normal cannot be read .*{path.name}"):
        convert(tmp_path / "in")
    assert "Corrupt JPEG data" in capfd.readouterr().err  # passed on
    assert not (tmp_path / "out").exists()


# --- types


def wide(values: NDArray[Any], **tags: Any) -> Change:
    """Store (slices, rows, columns) of 32 bits."""

    def change(index: int, dataset: Dataset) -> None:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 32, 32, 31
        dataset.PixelRepresentation = int(values.dtype.kind == "i")
        dataset.PixelData = values[index].astype(values.dtype.newbyteorder("<")).tobytes()
        dataset["PixelData"].VR = "OW"
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)

    return change


@pytest.mark.parametrize(
    ("low", "high", "tags", "stored"),
    [
        (0, 2**15, {}, np.int16),
        (2**24, 2**24 + 999, {}, np.int32),
        (-(2**31), -(2**31) + 999, {}, np.int32),
        (2**31 - 999, 2**31, {}, np.int32),
        (2**32 - 999, 2**32, {}, np.float64),
        (2**20, 2**20 + 999, {"RescaleSlope": 0.5, "RescaleIntercept": 0}, np.float32),
        (2**30, 2**30 + 999, {"RescaleSlope": 0.1, "RescaleIntercept": 0}, np.float64),
    ],
)
def test_values_of_32_bits_are_kept_to_the_last_digit(
    low: int, high: int, tags: dict[str, float], stored: type, tmp_path: Path
) -> None:
    kind = np.int32 if low < 0 else np.uint32
    values = np.random.default_rng(3).integers(low, high, SHAPE).astype(kind)
    series = in_order(write_series(tmp_path / "in", shape=SHAPE, change=wide(values, **tags)))
    volume = only_image(convert(tmp_path / "in")[0])
    assert volume.get_data_dtype() == stored
    found = np.asanyarray(volume.dataobj)
    for index in range(SHAPE[0]):
        for row, column in np.random.default_rng(index).integers(0, SHAPE[1:], (20, 2)):
            expected = float(values[index, row, column]) * tags.get("RescaleSlope", 1)
            assert found[voxel_in(volume, series[index], int(row), int(column))] == expected


def test_a_slope_that_leads_beyond_the_whole_numbers_of_float32_changes_no_value(tmp_path: Path) -> None:
    def change(index: int, dataset: Dataset) -> None:
        dataset.PixelData = np.random.default_rng(index).integers(60000, 65536, SHAPE[1:]).astype("<u2").tobytes()
        dataset.RescaleSlope, dataset.RescaleIntercept = 1001, 7

    (first, *_) = series = in_order(write_series(tmp_path / "in", shape=SHAPE, change=change))
    volume = only_image(convert(tmp_path / "in")[0])
    assert volume.get_data_dtype() == np.int32
    found = np.asanyarray(volume.dataobj)
    for column in range(first.Columns):
        expected = int(series[0].pixel_array[5, column]) * 1001 + 7
        assert found[voxel_in(volume, first, 5, column)] == expected


def test_multi_frame_objects_of_32_bits_keep_their_values(tmp_path: Path) -> None:
    values = np.random.default_rng(3).integers(2**24, 2**24 + 999, SHAPE).astype(np.uint32)
    series = in_order(write_series(tmp_path / "single", shape=SHAPE, change=wide(values)))
    functional_groups(series, tmp_path / "in" / "multi.dcm")
    made, _ = convert(tmp_path / "in")
    volume = only_image(made)
    assert volume.get_data_dtype() == np.int32
    assert rows_of(made)[0]["status"] == "converted"
    found = np.asanyarray(volume.dataobj)
    for column in range(SHAPE[2]):  # slope and intercept of the frames are 2 and -10
        assert found[voxel_in(volume, series[1], 7, column)] == 2 * int(values[1, 7, column]) - 10
