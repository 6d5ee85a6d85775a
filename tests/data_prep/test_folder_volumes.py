"""Import of anyone's volumes by a spec."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.data_prep.folder_imports import Spec, left_out, run


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """Folder of NIfTI volumes, one folder a patient, where all files have the same two names."""
    root = tmp_path / "root"
    affine = np.diag([-0.5, 0.75, 3.0, 1.0])
    for number in range(5):
        folder = root / f"patient{number}"
        folder.mkdir(parents=True)
        image = np.random.default_rng(number).integers(-100, 900, (8, 7, 5)).astype(np.int16)
        label = np.zeros(image.shape, dtype=np.float32)
        label[2:5, 2:5, 1:3] = 3
        nib.save(nib.Nifti1Image(image, affine), folder / "t2.nii")
        nib.save(nib.Nifti1Image(label, affine), folder / "seg.nii.gz")
    return root


@pytest.fixture
def volume_spec() -> Spec:
    domain = {"images": "*/t2.nii", "labels": "{parent}/seg.nii.gz", "label_values": {0: 0, 3: 1}}
    return {
        "name": "volumes",
        "spatial_dims": 3,
        "regions": {"organ": [1]},
        "source_domain": "site",
        "domains": {"site": domain},
    }


def test_volumes_are_copied_unchanged_and_labels_follow_their_grid(volumes: Path, volume_spec: Spec) -> None:
    description = run(volume_spec, volumes)
    assert [case.id for case in description.cases] == [f"site_patient{number}_t2" for number in range(5)]
    for number, case in enumerate(description.cases):
        assert case.image.read_bytes() == (volumes / f"patient{number}" / "t2.nii").read_bytes()
        assert case.spacing == (0.5, 0.75, 3.0)
        image, label = nib.load(case.image), nib.load(case.label)
        np.testing.assert_allclose(label.affine, image.affine)
        assert label.get_data_dtype() == np.uint8
        assert np.unique(label.dataobj).tolist() == [0, 1]
        assert label.dataobj[3, 3, 2] == 1
    assert json.loads(run(volume_spec, volumes, "again").path.read_text()) == json.loads(description.path.read_text())


def test_volumes_that_do_not_fit_are_left_out(volumes: Path, volume_spec: Spec) -> None:
    shifted = nib.load(volumes / "patient0" / "seg.nii.gz")
    affine = shifted.affine.copy()
    affine[0, 3] = 0.5
    nib.save(nib.Nifti1Image(np.asarray(shifted.dataobj), affine), volumes / "patient0" / "seg.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((8, 7, 5, 2), np.int16), np.eye(4)), volumes / "patient1" / "t2.nii")
    description = run(volume_spec, volumes)
    assert left_out(description) == {
        "patient0/t2.nii": "image and label are placed 0.5 mm apart by their affines, allowed 0.05 mm",
        "patient1/t2.nii": "t2.nii has 4 dimensions (8, 7, 5, 2), expected 3; split it",
    }


def test_a_label_with_fractions_is_refused(volumes: Path, volume_spec: Spec) -> None:
    label = nib.load(volumes / "patient0" / "seg.nii.gz")
    values = np.asarray(label.dataobj) / 2
    nib.save(nib.Nifti1Image(values, label.affine), volumes / "patient0" / "seg.nii.gz")
    with pytest.raises(ValueError, match=r"seg\.nii\.gz: label has values 0, 1\.5; `label_values` knows 0, 3"):
        run(volume_spec, volumes)
