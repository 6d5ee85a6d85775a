"""The worked examples: valid specs, and right on a few of the real images."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import data_prep
from data_prep.folder import make_folder_dataset
from data_prep.folder_spec import FolderSpec, load_spec
from mixstyleflow_monai.data.dataset_description import DatasetDescription, load_dataset

EXAMPLES = sorted((Path(data_prep.__path__[0]) / "examples").glob("*.yaml"))


def import_some(spec: FolderSpec, shared_data: Path, folder: Path, n: int) -> DatasetDescription:
    """Run an example on links to the first ``n`` images of each domain."""
    for domain in spec.domains:
        for image in sorted(shared_data.glob(domain.images))[:n]:
            label = domain.labels.format(stem=image.stem)
            for path in (image, shared_data / label):
                link = folder / "root" / path.relative_to(shared_data)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)
    output = make_folder_dataset(spec.path, folder / "out", folder / "root", console=Console(file=io.StringIO()))
    return load_dataset(output)


def test_there_are_examples() -> None:
    assert [path.stem for path in EXAMPLES] == ["fundus", "nuclei", "prostate_slices", "volumes", "white_cells"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_valid_spec(path: Path) -> None:
    assert load_spec(path).name == path.stem


def test_the_white_cell_example_names_every_key() -> None:
    text = next(path for path in EXAMPLES if path.stem == "white_cells").read_text()
    keys = {*FolderSpec.__dataclass_fields__, "split", "near_duplicates", "adjacent_tiles", "labels", "label_values"}
    keys |= {"centre_crop", "group", "spacing", "max_aspect_ratio", "exclude", "images"}
    assert [key for key in sorted(keys - {"path", "fractions"}) if f"{key}:" not in text] == []


def test_the_volume_example_keeps_a_patient_together(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 900, (2, 5, 2, 12, 10, 4)).astype(np.int16)
    for site, patients in zip(("site_a", "site_b"), values, strict=True):
        for kind in ("images", "labels"):
            (tmp_path / "root" / "volumes" / site / kind).mkdir(parents=True)
        for patient, scans in enumerate(patients):
            for scan, image in enumerate(scans):
                name = f"{site}/{{}}/p{patient}_t2{'ab'[scan]}.nii.gz"
                for kind, array in (("images", image), ("labels", (image % 3).astype(np.uint8))):
                    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "root" / "volumes" / name.format(kind))
    path = next(path for path in EXAMPLES if path.stem == "volumes")
    screen = io.StringIO()
    output = make_folder_dataset(path, tmp_path / "out", tmp_path / "root", console=Console(file=screen, width=150))
    description = load_dataset(output)
    assert len(description.cases) == 20
    splits: dict[str, set[str]] = {}
    for case in description.select(domain="site_a"):
        splits.setdefault(case.group, set()).add(case.split)
    assert sorted(splits) == [f"p{patient}" for patient in range(5)]
    assert all(len(found) == 1 for found in splits.values())
    assert "note:" not in screen.getvalue()


@pytest.mark.shared_data
@pytest.mark.parametrize("path", [path for path in EXAMPLES if path.stem != "volumes"], ids=lambda path: path.stem)
def test_labels_hold_the_regions_and_their_border_is_mostly_background(
    path: Path, shared_data: Path, tmp_path: Path
) -> None:
    spec = load_spec(path)
    description = import_some(spec, shared_data, tmp_path, 6)
    assert len(description.cases) == 6 * len(spec.domains)
    allowed = {0, *(value for values in spec.regions.values() for value in values)}
    for case in description.cases:
        label = np.asarray(Image.open(case.label))
        assert set(np.unique(label).tolist()) <= allowed
        assert (label > 0).any()
        border = np.concatenate([label[0], label[-1], label[:, 0], label[:, -1]])
        assert (border > 0).mean() < 0.6


@pytest.mark.shared_data
def test_the_fundus_pair_of_another_framing_is_left_out(shared_data: Path, tmp_path: Path) -> None:
    spec = load_spec(next(path for path in EXAMPLES if path.stem == "fundus"))
    folder = tmp_path / "root" / "fundus" / "drishti_gs"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
        for number in range(30, 35):
            source = shared_data / "fundus" / "drishti_gs" / kind / f"drishtiGS_{number:03}.png"
            shutil.copyfile(source, folder / kind / source.name)
    description = import_some(spec, shared_data, tmp_path, 1)
    assert "drishti_gs_drishtiGS_032" not in {case.id for case in description.cases}
    assert "drishtiGS_032.png,aspect ratio 2.00" in (tmp_path / "out" / "left_out.csv").read_text()
    (refuge,) = description.select(domain="refuge_train")
    assert np.asarray(Image.open(refuge.image)).shape == (560, 560, 3)


@pytest.mark.shared_data
def test_prostate_slices_cannot_be_divided_by_their_two_patients(shared_data: Path, tmp_path: Path) -> None:
    path = next(path for path in EXAMPLES if path.stem == "prostate_slices")
    by_patient = tmp_path / "by_patient.yaml"
    by_patient.write_text(path.read_text().replace("# group:", "group:"))
    with pytest.raises(ValueError, match=r"2 group\(s\), 'test_00' \(3 cases\), 'train_00' \(3 cases\).*at least 3"):
        import_some(load_spec(by_patient), shared_data, tmp_path, 6)
