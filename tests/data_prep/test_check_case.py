"""What one worker finds in one case: equal hashes for equal values, bounded memory, and no error on any bytes."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from data_prep import check_case as check_case_module
from data_prep.check_case import CaseJob, check_case, pieces
from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.data import Case, load_dataset
from tests.data_prep import bad_files as bad


@pytest.fixture
def made(tmp_path: Path) -> dict[int, Path]:
    """Data sets of images and of volumes, by number of dimensions."""
    result = {}
    for dims, make in ((2, bad.make_pictures), (3, bad.make_volumes)):
        folder = tmp_path / f"set{dims}"
        assert bad.run("folder", make(folder / "root"), "--output", folder / "data") == 0
        result[dims] = folder / "data"
    return result


@pytest.fixture
def volumes(made: dict[int, Path]) -> Path:
    return made[3]


def write_copy(source: Path, target: Path, dtype: str) -> None:
    volume = nib.load(source)
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype)
    nib.save(nib.Nifti1Image(np.asarray(volume.dataobj).astype(dtype), volume.affine, header), target)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", ">f8"])
@pytest.mark.parametrize("piece", [1, 60, 10**6])
def test_equal_volumes_have_equal_hashes_whatever_their_format(
    dtype: str, piece: int, volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = load_dataset(volumes).cases[0]
    job = CaseJob(case, 3, 1, {"organ": [1]})
    expected = check_case(job).pixels
    monkeypatch.setattr(check_case_module, "_PIECE", piece)
    for name in ("copy.nii", "copy.nii.gz"):
        write_copy(case.image, tmp_path / name, dtype)
        found = check_case(CaseJob(change_case(case, image=tmp_path / name), 3, 1, {"organ": [1]}))
        assert found.pixels == expected
    bad.with_value(901)(tmp_path / "copy.nii.gz")
    assert check_case(CaseJob(change_case(case, image=tmp_path / "copy.nii.gz"), 3, 1, {})).pixels != expected


def change_case(case: Case, **values: Any) -> Case:
    return Case(**{**vars(case), **values})


@pytest.mark.parametrize(("dims", "piece"), [(2, 1), (2, 200), (3, 1), (3, 100)])
def test_pieces_together_are_the_whole_array(
    dims: int, piece: int, made: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_case_module, "_PIECE", piece)
    image = load_dataset(made[dims]).cases[0].image
    parts = list(pieces(image))
    assert len(parts) > 1
    if dims == 3:
        np.testing.assert_array_equal(np.concatenate(parts, axis=2), np.asarray(nib.load(image).dataobj))
    else:
        with Image.open(image) as opened:
            np.testing.assert_array_equal(np.concatenate(parts), np.asarray(opened))


def test_region_sizes_are_those_of_the_array(volumes: Path) -> None:
    case = load_dataset(volumes).cases[0]
    values = np.random.default_rng(0).integers(0, 4, (8, 7, 5)).astype(np.uint8)
    nib.save(nib.Nifti1Image(values, bad.AFFINE), case.label)
    sizes = check_case(CaseJob(case, 3, 1, {"all": [1, 2, 3], "core": [2]})).region_sizes
    assert sizes == {"all": int((values > 0).sum()), "core": int((values == 2).sum())}


def test_memory_does_not_grow_with_the_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_case_module, "_PIECE", 2**16)
    peaks = []
    for slices in (64, 192):
        values = np.zeros((128, 128, slices), np.int16)
        values[::7, ::5] = 3
        files = {kind: tmp_path / f"{kind}{slices}.nii.gz" for kind in ("image", "label")}
        nib.save(nib.Nifti1Image(values, np.eye(4)), files["image"])
        nib.save(nib.Nifti1Image((values > 0).astype(np.uint8), np.eye(4)), files["label"])
        hashes = {kind: sha256_file(path) for kind, path in files.items()}
        job = CaseJob(Case("a", "home", "a", "train", **files, sha256=hashes, spacing=(1, 1, 1)), 3, 1, {"organ": [1]})
        tracemalloc.start()
        try:
            assert check_case(job).faults == []
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < values.size * 8 / 3


@pytest.mark.parametrize("seed", range(30))
def test_damaged_bytes_become_faults_and_never_errors(seed: int, volumes: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(seed)
    case = load_dataset(volumes).cases[0]
    content = bytearray(gzip.decompress(case.image.read_bytes()) if seed % 2 else case.image.read_bytes())
    for place in generator.integers(0, min(352, len(content)), 4):
        content[place] = generator.integers(0, 256)
    if seed % 3 == 0:
        content = content[: generator.integers(0, len(content))]
    case.image.write_bytes(gzip.compress(content) if seed % 2 else content)
    faults = check_case(CaseJob(case, 3, 1, {"organ": [1]})).faults
    assert any(fault.file == case.image for fault in faults)
    assert all(fault.text and fault.remedy for fault in faults)
