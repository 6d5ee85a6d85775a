"""The paper's prostate data set from small releases that are laid out as the public ones."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from data_prep.prostate.split import divide
from mixstyleflow_monai.data import Task
from mixstyleflow_monai.data.dataset_description import DatasetDescription, load_dataset, verify_hashes
from mixstyleflow_monai.data.resplit import resplit_dataset
from tests.data_prep.prostate.prostate_releases import (
    AFFINE,
    SHAPE,
    import_releases,
    label_of,
    write_decathlon,
    write_sites,
    write_tar,
)

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both releases with all their cases: 32 and 116 tiny volumes. Tests only read them."""
    root = tmp_path_factory.mktemp("published")
    write_decathlon(root)
    write_sites(root / "sites")
    return root


def left_out(description: DatasetDescription) -> dict[str, str]:
    with open(description.path.parent / "left_out.csv", newline="") as stream:
        return {row["image"]: row["reason"] for row in csv.DictReader(stream)}


def ids(description: DatasetDescription, split: str | None = None) -> list[str]:
    return [case.id for case in description.select(split, "decathlon")]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_papers_data_set(published: Path, tmp_path: Path) -> None:
    before = contents(published)
    description, printed = import_releases(published, tmp_path / "out")
    assert contents(published) == before
    assert description.domains == ["decathlon", "BIDMC", "BMC", "HK", "I2CVB", "RUNMC", "UCL"]
    assert (description.spatial_dims, description.channels, description.regions) == (3, 1, {"prostate": [1, 2]})
    assert [len(description.select(split, "decathlon")) for split in SPLITS] == [22, 3, 7]
    counts = Counter((case.domain, case.split) for case in description.cases if case.domain != "decathlon")
    assert counts == {
        ("RUNMC", "test"): 30,
        ("BMC", "test"): 30,
        ("I2CVB", "test"): 19,
        ("UCL", "test"): 13,
        ("BIDMC", "test"): 12,
        ("HK", "test"): 12,
    }
    assert left_out(description) == {}
    assert list(verify_hashes(description)) == []
    assert printed.count("note:") == 1
    assert "(version Raw_nii of the release)" in printed
    assert printed.count("unseen") == 6


def test_the_version_of_the_six_sites_is_told_and_recorded(root: Path, tmp_path: Path) -> None:
    for site, note in (
        ("HK", "only HK seem to have slices with prostate alone"),
        (None, "version Clipped_nii of the release"),
    ):
        for path in (root / "sites").glob(f"{site or '*'}/Case*_?egmentation.nii.gz"):
            label = nib.load(path)
            save(path, np.repeat(np.asarray(label.dataobj)[..., 1:2], SHAPE[2], axis=2), label.affine)
        description, printed = import_releases(root, tmp_path / f"out {site}")
        assert note in printed
        slices = {name: facts.get("slices") for name, facts in description.processing["domains"].items()}
        assert slices["HK"] == "with prostate"
        assert slices["UCL"] == ("all" if site else "with prostate")


def test_volumes_are_kept_as_released(published: Path, tmp_path: Path) -> None:
    description, _ = import_releases(published, tmp_path / "out")
    for case in description.cases:
        name = case.id.removeprefix(f"{case.domain}_")
        if case.domain == "decathlon":
            source = published / "Task05_Prostate" / "imagesTr" / f"{name}.nii.gz"
            found, written = nib.load(source), nib.load(case.image)
            np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(found.dataobj)[..., 0])
            np.testing.assert_array_equal(written.affine, found.affine)
            assert written.get_data_dtype() == np.float32
            label = published / "Task05_Prostate" / "labelsTr" / f"{name}.nii.gz"
        else:
            assert case.image.read_bytes() == (published / "sites" / case.domain / f"{name}.nii.gz").read_bytes()
            (label,) = (published / "sites" / case.domain).glob(f"{name}_?egmentation.nii.gz")
        assert case.label.read_bytes() == label.read_bytes()
        values = set(np.unique(np.asarray(nib.load(case.label).dataobj)).tolist())
        assert values == ({0, 1, 2} if case.domain in ("decathlon", "RUNMC", "BMC") else {0, 1})


@pytest.mark.parametrize(("fraction", "count"), [(0.1, 2), (0.3, 6)])
def test_low_data_subsets_change_training_alone(fraction: float, count: int, published: Path, tmp_path: Path) -> None:
    description, printed = import_releases(published, tmp_path / "out", sites=None, train_fraction=fraction)
    names = sorted(path.name.removesuffix(".nii.gz") for path in (published / "Task05_Prostate/imagesTr").iterdir())
    whole = divide(names).split_of
    assert len(ids(description, "train")) == count
    for split in SPLITS:
        expected = {f"decathlon_{name}" for name, found in whole.items() if found == split}
        assert set(ids(description, split)) <= expected
        assert split == "train" or set(ids(description, split)) == expected
    unused = description.processing["unused_training_patients"]
    assert sorted([*unused, *ids(description)]) == [f"decathlon_{name}" for name in names]
    assert description.processing["train_fraction"] == fraction
    # Unused patients are not written at all.
    assert len(list((tmp_path / "out" / "images" / "decathlon").iterdir())) == count + 10
    assert f"{count} of 22 training patients are kept" in printed


def test_the_processing_facts_tell_how_it_was_made(published: Path, tmp_path: Path) -> None:
    processing = import_releases(published, tmp_path / "out", sites=None, train_fraction=2)[0].processing
    domains = processing.pop("domains")
    assert domains == {
        "decathlon": {
            "release": "Task05_Prostate",
            "name": "PROSTATE",
            "licence": "CC-BY-SA 4.0",
            "relase": "1.0 04/05/2018",
            "listed_cases": 32,
            "left_out": 0,
        }
    }
    assert len(processing.pop("unused_training_patients")) == 20
    assert len(processing.pop("notes")) == 2
    assert processing == {
        "made_by": "data_prep prostate",
        "split": {"train": 0.6875, "validation": 0.09375, "test": 0.21875, "seed": 0, "method": "paper"},
        "paper_loading": {
            "spacing": [0.625, 0.625, 3.6],
            "percentiles": [2.0, 98.0],
            "pad": [288, 288],
            "crop": [224, 224],
            "slices": "those with prostate",
        },
        "spacing": None,
        "resampled": False,
        "interpolation": None,
        "train_fraction": 2.0,
    }


def test_the_tar_file_gives_the_same_bytes_as_the_folder_and_so_does_a_rerun(root: Path, tmp_path: Path) -> None:
    archive = write_tar(root / "Task05_Prostate", tmp_path / "Task05_Prostate.tar")
    first, second, third = (
        contents(import_releases(root, tmp_path / name, decathlon=path)[0].path.parent)
        for name, path in (("a", root / "Task05_Prostate"), ("b", archive), ("c", root))
    )
    assert first == second == third
    assert not any(str(tmp_path).encode() in first[name] for name in ("dataset.json", "left_out.csv"))
    assert {Path(name).parts[0] for name in first} == {"dataset.json", "left_out.csv", "images", "labels"}


def test_resampled_volumes_have_the_spacing_and_say_so(root: Path, tmp_path: Path) -> None:
    description, _ = import_releases(root, tmp_path / "out", resample=True, spacing=(0.6, 0.5, 2.0))
    assert {case.spacing for case in description.cases} == {(0.6, 0.5, 2.0)}
    for case in description.cases:
        image, label = nib.load(case.image), nib.load(case.label)
        np.testing.assert_allclose(nib.affines.voxel_sizes(image.affine), (0.6, 0.5, 2.0), atol=1e-5)
        assert image.shape == label.shape
        assert set(np.unique(np.asarray(label.dataobj))) <= {0, 1, 2}
    facts = description.processing
    assert (facts["resampled"], facts["spacing"]) == (True, [0.6, 0.5, 2.0])
    assert facts["interpolation"] == {"image": "linear", "label": "nearest"}


def test_the_data_set_is_read_by_the_training_pipeline_and_by_resplit(root: Path, tmp_path: Path) -> None:
    description, _ = import_releases(root, tmp_path / "out")
    task = Task.from_dataset(description, (32, 32), pixel_spacing=(0.625, 0.625))
    item = task.training_preprocessing()(description.datalist("train")[0])
    assert tuple(item["image"].shape[:3]) == tuple(item["label"].shape[:3]) == (1, 32, 32)
    assert 0 < float(item["label"].float().mean()) < 1
    write_sites(tmp_path / "more", {"HK": range(5)})
    wider, _ = import_releases(root, tmp_path / "wider", sites=tmp_path / "more")
    assert load_dataset(resplit_dataset(wider.path.parent, "HK", tmp_path / "hk")).source_domain == "HK"


def test_another_number_of_cases_is_divided_at_random_and_told(root: Path, tmp_path: Path) -> None:
    description, printed = import_releases(root, tmp_path / "out")
    assert [len(description.select(split, "decathlon")) for split in SPLITS] == [4, 1, 1]
    assert description.processing["split"]["method"] == "fractions"
    assert "Task05_Prostate lists 6 cases, the release has 32: the paper's patients cannot be told" in printed
    assert "site A (RUNMC) has 2 cases, the release 30." in printed
    assert printed.count("note:") == len(description.processing["notes"]) == 8


def test_missing_sites_are_told(root: Path, tmp_path: Path) -> None:
    for site in ("BMC", "HK"):
        (root / "sites" / site).rename(tmp_path / site)
    description, printed = import_releases(root, tmp_path / "out")
    assert description.unseen_domains == ["BIDMC", "I2CVB", "RUNMC", "UCL"]
    assert "no folder of site B (BMC), F (HK); the paper tests on all of RUNMC, BMC" in printed
    assert "no unseen one" in import_releases(root, tmp_path / "alone", sites=None)[1]


def save(path: Path, values: Any, affine: Any = AFFINE) -> None:
    nib.save(nib.Nifti1Image(values, affine), path)


def test_unusable_cases_are_reported_and_the_other_patients_stay_where_they_are(
    published: Path, tmp_path: Path
) -> None:
    write_decathlon(tmp_path)
    release = tmp_path / "Task05_Prostate"
    whole, _ = import_releases(published, tmp_path / "whole", sites=None)
    train = [case.removeprefix("decathlon_") for case in ids(whole, "train")[:4]]
    save(release / "imagesTr" / f"{train[0]}.nii.gz", np.ones((*SHAPE, 1), np.float32))
    (release / "labelsTr" / f"{train[1]}.nii.gz").unlink()
    save(release / "labelsTr" / f"{train[2]}.nii.gz", label_of(2)[:-1])
    save(release / "labelsTr" / f"{train[3]}.nii.gz", label_of(2), AFFINE + np.eye(4, k=3))
    description, printed = import_releases(tmp_path, tmp_path / "out", sites=None)
    assert left_out(description) == {
        f"imagesTr/{train[0]}.nii.gz": f"{train[0]}.nii.gz has 1 channel(s), dataset.json says 2 (T2, ADC)",
        f"imagesTr/{train[1]}.nii.gz": f"no label labelsTr/{train[1]}.nii.gz",
        f"imagesTr/{train[2]}.nii.gz": "image has shape (12, 10, 4), label (11, 10, 4)",
        f"imagesTr/{train[3]}.nii.gz": "image and label are placed 1 mm apart by their affines, allowed 0.06 mm",
    }
    assert "left out (4, listed in left_out.csv)" in printed
    with open(tmp_path / "out" / "left_out.csv", newline="") as stream:
        assert all(row["domain"] == "decathlon" and row["remedy"] for row in csv.DictReader(stream))
    assert {case.id: case.split for case in description.cases} == {
        case.id: case.split for case in whole.cases if case.id.removeprefix("decathlon_") not in train
    }
    assert description.processing["split"]["method"] == "paper"
    assert description.processing["domains"]["decathlon"]["left_out"] == 4


def test_an_image_that_is_there_twice_stays_once(root: Path, tmp_path: Path) -> None:
    sites = root / "sites"
    (sites / "UCL" / "Case01.nii.gz").write_bytes((sites / "RUNMC" / "Case00.nii.gz").read_bytes())
    (sites / "UCL" / "Case01_segmentation.nii.gz").write_bytes(
        (sites / "RUNMC" / "Case00_segmentation.nii.gz").read_bytes()
    )
    save(
        sites / "HK" / "Case38.nii.gz",
        np.asarray(nib.load(root / "Task05_Prostate/imagesTr/prostate_03.nii.gz").dataobj)[..., 0],
    )
    save(sites / "HK" / "Case38_segmentation.nii.gz", label_of(1))
    description, _ = import_releases(root, tmp_path / "out")
    assert left_out(description) == {
        "HK/Case38.nii.gz": "identical to 'prostate_03' of the domain decathlon",
        "UCL/Case01.nii.gz": "identical to 'Case00' of the domain RUNMC",
    }
    # Stored as numbers of another type, it still is the same image.
    values = np.asarray(nib.load(sites / "RUNMC" / "Case01.nii.gz").dataobj)
    save(sites / "HK" / "Case38.nii.gz", values.astype(np.float32))
    save(sites / "HK" / "Case39.nii.gz", (values + 1).astype(np.float32), nib.load(sites / "HK/Case39.nii.gz").affine)
    assert left_out(import_releases(root, tmp_path / "again")[0]) == {
        "HK/Case38.nii.gz": "identical to 'Case01' of the domain RUNMC",
        "UCL/Case01.nii.gz": "identical to 'Case00' of the domain RUNMC",
    }
    written = [path.name for path in (tmp_path / "out").rglob("*.nii.gz") if path.parent.name in ("HK", "UCL")]
    assert len(written) == 4


def test_unseen_cases_are_the_same_whatever_share_of_the_training_patients_is_kept(
    published: Path, tmp_path: Path
) -> None:
    shutil.copytree(published, tmp_path / "root", symlinks=True)
    root = tmp_path / "root"
    unused = import_releases(root, tmp_path / "low", train_fraction=0.1)[0].processing["unused_training_patients"][0]
    name = unused.removeprefix("decathlon_")
    values = np.asarray(nib.load(root / f"Task05_Prostate/imagesTr/{name}.nii.gz").dataobj)[..., 0]
    save(root / "sites" / "HK" / "Case38.nii.gz", values)
    save(root / "sites" / "HK" / "Case38_segmentation.nii.gz", label_of(1))
    for number, fraction in enumerate((1.0, 0.1)):
        description, _ = import_releases(root, tmp_path / f"out{number}", train_fraction=fraction)
        assert left_out(description) == {"HK/Case38.nii.gz": f"identical to '{name}' of the domain decathlon"}


def test_a_domain_or_a_split_without_a_usable_case_is_an_error_that_leaves_nothing(root: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    labels = sorted((root / "sites" / "HK").glob("Case*_segmentation.nii.gz"))
    kept = [path.read_bytes() for path in labels]
    for path in labels:
        save(path, label_of(2) * np.uint8(100))
    with pytest.raises(
        ValueError, match=r"HK: no case can be used\. Left out: HK/Case38\.nii\.gz: label has values 0, 100"
    ):
        import_releases(root, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    for path, content in zip(labels, kept, strict=True):
        path.write_bytes(content)
    names = [f"prostate_{number:02d}" for number in range(6)]
    (only,) = (name for name, split in divide(names).split_of.items() if split == "validation")
    (root / "Task05_Prostate" / "imagesTr" / f"{only}.nii.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=rf"decathlon, validation: no case can be used\. Left out: imagesTr/{only}"):
        import_releases(root, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    save(root / "Task05_Prostate" / "imagesTr" / f"{only}.nii.gz", np.ones((*SHAPE, 2), np.float32))
    assert len(import_releases(root, tmp_path / "out")[0].cases) == 18


def test_paths_with_spaces_and_letters_of_other_alphabets(root: Path, tmp_path: Path) -> None:
    moved = root.rename(tmp_path / "données Ärzte 数据")
    assert len(import_releases(moved, tmp_path / "sorti é")[0].cases) == 18
