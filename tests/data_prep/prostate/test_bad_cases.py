"""Volumes and labels that cannot be used: each is left out with its reason, and nothing is written."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from data_prep.image_files import UnusableCase
from data_prep.prostate.cases import ReleaseCase, take_case
from tests.data_prep.prostate.prostate_releases import AFFINE, SHAPE, label_of, save


def with_nan(path: Path, value: float) -> None:
    values = np.ones(SHAPE, np.float32)
    values[1, 2, 3] = value
    save(path, values)


def huge_claim(path: Path, shape: tuple[int, ...] = (32000, 32000, 10000)) -> None:
    """Write a header that claims 10^11 voxels or more, with no data behind it."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape(shape)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4)))


def truncate(path: Path) -> None:
    """Cut a file in the midst of its voxels, as a broken download does."""
    save(path, np.random.default_rng(0).integers(0, 900, (40, 40, 4)).astype(np.int16))
    path.write_bytes(path.read_bytes()[:5000])


def damage_stream(path: Path) -> None:
    """Overwrite compressed bytes, of which zlib complains."""
    save(path, np.random.default_rng(0).integers(0, 900, (40, 40, 4)).astype(np.int16))
    content = bytearray(path.read_bytes())
    content[5000:5200] = b"\xff" * 200
    path.write_bytes(content)


def flip_a_bit(path: Path, shape: tuple[int, ...] = SHAPE) -> None:
    """Change one voxel and keep the checksum of what it was."""
    save(path, np.ones(shape, np.int16))
    whole = gzip.decompress(path.read_bytes())
    changed = whole[:-1] + bytes([whole[-1] ^ 1])
    path.write_bytes(gzip.compress(changed)[:-8] + gzip.compress(whole)[-8:])


def singular(path: Path, shape: tuple[int, ...] = SHAPE) -> None:
    """Write zeros for the third axis straight into the header; nibabel itself would not."""
    save(path, np.ones(shape, np.int16))
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[252:256] = struct.pack("<hh", 0, 1)  # qform_code, sform_code
    for row in range(3):
        content[280 + 16 * row + 8 : 280 + 16 * row + 12] = struct.pack("<f", 0.0)
    path.write_bytes(gzip.compress(bytes(content)))


def negative_size(path: Path, shape: tuple[int, ...] = SHAPE) -> None:
    """Negate the third voxel size in the header, which nibabel turns positive while it loads."""
    save(path, np.ones(shape, np.int16))
    content = bytearray(gzip.decompress(path.read_bytes()))
    (size,) = struct.unpack_from("<f", content, 88)
    struct.pack_into("<f", content, 88, -size)
    path.write_bytes(gzip.compress(bytes(content)))


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
BAD_IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, r"no image .*/Case38\.nii\.gz"),
    "symlink loop": (loop, r"no image .*/Case38\.nii\.gz"),
    "zero bytes": (lambda path: path.write_bytes(b""), r"Case38\.nii\.gz cannot be read: it is empty"),
    "text": (lambda path: path.write_text("hello " * 100), r"Case38\.nii\.gz cannot be read"),
    "truncated gzip": (truncate, r"Case38\.nii\.gz is damaged or cut off"),
    "damaged gzip": (damage_stream, r"Case38\.nii\.gz is damaged or cut off"),
    "one bit flipped": (flip_a_bit, r"Case38\.nii\.gz is damaged or cut off .*CRC"),
    "not a number": (lambda path: with_nan(path, np.nan), r"Case38\.nii\.gz has voxels that are NaN or infinite"),
    "infinite": (lambda path: with_nan(path, -np.inf), r"Case38\.nii\.gz has voxels that are NaN or infinite"),
    "4-D": (lambda path: save(path, np.ones((*SHAPE, 2), np.int16)), r"has 4 dimensions \(12, 10, 4, 2\), expected 3"),
    "5-D": (lambda path: save(path, np.ones((*SHAPE, 1, 3), np.int16)), r"has 5 dimensions .*, expected 3"),
    "colours": (lambda path: save(path, rgb), r"has RGB colours, expected one real number a voxel"),
    "complex": (
        lambda path: save(path, np.ones(SHAPE, np.complex64)),
        r"complex numbers \(complex64\), expected one real",
    ),
    "huge claim": (huge_claim, r"claims shape \(32000, 32000, 10000\)"),
    "singular affine": (singular, r"singular or non-finite affine"),
    "negative voxel size": (negative_size, r"has the voxel size .* mm in pixdim, expected numbers above 0"),
    "other format": (
        lambda path: (
            nib.save(nib.MGHImage(np.ones(SHAPE, np.float32), AFFINE), path.with_suffix(".mgz"))
            or path.write_bytes(path.with_suffix(".mgz").read_bytes())
        ),
        r"Case38\.nii\.gz cannot be read",
    ),
    "smaller": (lambda path: save(path, np.ones((11, 10, 4), np.int16)), r"shape \(11, 10, 4\), label \(12, 10, 4\)"),
    "elsewhere": (
        lambda path: save(path, np.ones(SHAPE, np.int16), AFFINE + np.eye(4, k=3)),
        r"placed 1 mm apart by their affines, allowed 0\.06 mm",
    ),
}
BAD_LABELS: dict[str, tuple[NDArray[Any], str]] = {
    "almost one": (label_of(1) * np.float32(0.9999), r"label has values 0, 0\.999\d+, allowed: 0, 1, 2"),
    "unknown value": (label_of(2) * np.uint8(2), r"label has values 0, 2, 4, allowed"),
    "not a number": (np.where(label_of(1) > 0, np.nan, 0), r"label has values 0, nan"),
    "an image": (np.arange(480).reshape(SHAPE).astype(np.int16), r"0, 1, 2, 3, 4, 5, 6, 7, \.\.\., allowed"),
    "background": (np.zeros(SHAPE, np.uint8), r"label has no prostate voxel"),
    "trailing axis": (label_of(1)[..., None], r"_segmentation\.nii\.gz has 4 dimensions"),
    "larger": (np.ones((12, 10, 5), np.uint8), r"image has shape \(12, 10, 4\), label \(12, 10, 5\)"),
}


@pytest.mark.parametrize("fault", BAD_IMAGES)
def test_an_unusable_image_is_named_with_its_fault_and_nothing_is_written(
    fault: str, flat: ReleaseCase, tmp_path: Path
) -> None:
    damage, reason = BAD_IMAGES[fault]
    damage(flat.image)
    with pytest.raises(UnusableCase, match=reason) as caught:
        take_case(flat, tmp_path / "out")
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()


BAD_4D: dict[str, tuple[Callable[[Path], object], str]] = {
    **{fault: BAD_IMAGES[fault] for fault in ("missing", "zero bytes", "text", "other format")},
    "cut off": (
        lambda path: path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1])),
        r"Case38\.nii\.gz is cut off: it holds 4,191 bytes, its header claims 4,192",
    ),
    "truncated gzip": (lambda path: path.write_bytes(path.read_bytes()[:-20]), r"is damaged or cut off"),
    "one bit flipped": (lambda path: flip_a_bit(path, (*SHAPE, 2)), r"is damaged or cut off .*CRC"),
    "huge claim": (lambda path: huge_claim(path, (32000, 32000, 100, 2)), r"claims shape \(32000, 32000, 100, 2\)"),
    "colours": (
        lambda path: save(path, np.zeros((*SHAPE, 2), rgb.dtype)),
        r"has RGB colours, expected one real number",
    ),
    "complex": (lambda path: save(path, np.ones((*SHAPE, 2), np.complex64)), r"complex numbers \(complex64\)"),
    "singular affine": (lambda path: singular(path, (*SHAPE, 2)), r"has a singular or non-finite affine"),
    "negative voxel size": (
        lambda path: negative_size(path, (*SHAPE, 2)),
        r"has the voxel size .* x -4\.\d+ mm in pixdim, expected numbers above 0",
    ),
    "a folder": (lambda path: path.unlink() or path.mkdir(), r"no image .*/Case38\.nii\.gz"),
    "5-D": (lambda path: save(path, np.ones((*SHAPE, 1, 2), np.float32)), r"has 5 dimensions .*, expected 4"),
    "one channel": (
        lambda path: save(path, np.ones((*SHAPE, 1), np.float32)),
        r"has 1 channel\(s\), dataset\.json says 2 \(T2, ADC\)",
    ),
    "three channels": (lambda path: save(path, np.ones((*SHAPE, 3), np.float32)), r"has 3 channel\(s\), dataset\.json"),
    "3-D": (lambda path: save(path, np.ones(SHAPE, np.float32)), r"has 3 dimensions \(12, 10, 4\), expected 4"),
}


@pytest.mark.parametrize("fault", BAD_4D)
def test_an_unusable_4d_image_is_named_with_its_fault_and_nothing_is_written(
    fault: str, deep: ReleaseCase, tmp_path: Path
) -> None:
    damage, reason = BAD_4D[fault]
    damage(deep.image)
    with pytest.raises(UnusableCase, match=reason) as caught:
        take_case(deep, tmp_path / "out")
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", BAD_LABELS)
def test_an_unusable_label_is_named_with_its_fault_and_nothing_is_written(
    fault: str, flat: ReleaseCase, tmp_path: Path
) -> None:
    values, reason = BAD_LABELS[fault]
    nib.save(nib.Nifti1Image(values, AFFINE), flat.label)
    with pytest.raises(UnusableCase, match=reason):
        take_case(flat, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_may_not_be_read_is_left_out(
    flat: ReleaseCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(flat.image))

    if os.geteuid() == 0:  # permissions do not bind root
        monkeypatch.setattr("nibabel.load", refuse)
    else:
        flat.image.chmod(0)
    with pytest.raises(UnusableCase, match=r"Case38\.nii\.gz cannot be read: permission denied"):
        take_case(flat, tmp_path / "out")
