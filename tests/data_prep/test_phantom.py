"""The embedded phantom: what it promises about its files, its anatomy and its sites."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import data_prep.phantom as phantom
from data_prep.contact_sheet import contact_sheet
from data_prep.phantom import SHEET_FILE, TASKS, make_phantom
from data_prep.phantom_cameras import CAMERAS, photograph
from data_prep.phantom_fundus import build_eye, draw_fundus
from data_prep.phantom_prostate import build_prostate, draw_prostate
from data_prep.phantom_sites import PROSTATE_SITES, render_volume, tissue_signal
from mixstyleflow_monai.data.dataset_description import DatasetDescription, load_dataset
from mixstyleflow_monai.data.resplit import resplit_dataset

SMALL = {"source_cases": 3, "unseen_cases": 1}


def read(path: Path) -> np.ndarray:
    """Read the voxels or pixels of a file."""
    if path.name.endswith(".nii.gz"):
        return np.asarray(nib.load(path).dataobj)
    with Image.open(path) as stored:
        return np.asarray(stored)


@pytest.fixture(scope="module")
def prostate(tmp_path_factory: pytest.TempPathFactory) -> DatasetDescription:
    return load_dataset(make_phantom("prostate", tmp_path_factory.mktemp("phantom") / "prostate", 3, **SMALL))


@pytest.fixture(scope="module")
def fundus(tmp_path_factory: pytest.TempPathFactory) -> DatasetDescription:
    return load_dataset(make_phantom("fundus", tmp_path_factory.mktemp("phantom") / "fundus", 3, **SMALL))


@pytest.fixture(params=["prostate", "fundus"])
def dataset(request: pytest.FixtureRequest) -> DatasetDescription:
    return request.getfixturevalue(request.param)


def make_small(task: str, output: Path, **changes: int) -> DatasetDescription:
    return load_dataset(make_phantom(task, output, **{"seed": 3, **SMALL, **changes}))


def test_every_domain_is_there_and_unseen_ones_are_test_only(dataset: DatasetDescription) -> None:
    task = TASKS["prostate" if dataset.spatial_dims == 3 else "fundus"]
    assert dataset.source_domain == task["domains"][0].name
    assert set(dataset.domains) == {domain.name for domain in task["domains"]}
    assert len(dataset.unseen_domains) >= (4 if dataset.spatial_dims == 3 else 3)
    for domain in dataset.unseen_domains:
        assert {case.split for case in dataset.select(domain=domain)} == {"test"}
    source = dataset.select(domain=dataset.source_domain)
    assert {case.split for case in source} == {"train", "validation", "test"}
    assert all(case.group == case.id for case in dataset.cases)


def test_labels_hold_background_and_all_region_values(dataset: DatasetDescription) -> None:
    used = {value for values in dataset.regions.values() for value in values}
    for case in dataset.cases:
        label = read(case.label)
        assert label.dtype == np.uint8
        assert set(np.unique(label)) == {0, *used}


def test_processing_names_generator_seed_and_site_parameters(dataset: DatasetDescription) -> None:
    facts = dataset.processing
    assert facts["seed"] == 3
    assert facts["version"] == phantom.GENERATOR_VERSION
    assert set(facts["domains"]) == set(dataset.domains)


@pytest.mark.parametrize("task", ["prostate", "fundus"])
def test_same_seed_gives_same_arrays_and_more_cases_change_none(
    task: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    first = {case.id: case for case in request.getfixturevalue(task).cases}
    again = make_small(task, tmp_path / "again", source_cases=4)
    assert len(again.cases) == len(first) + 1
    for case in again.cases:
        if case.id in first:
            assert np.array_equal(read(case.image), read(first[case.id].image))
            assert np.array_equal(read(case.label), read(first[case.id].label))
            assert case.sha256 == first[case.id].sha256


def test_another_seed_gives_other_images(fundus: DatasetDescription, tmp_path: Path) -> None:
    other = make_small("fundus", tmp_path / "other", seed=4)
    hashes = {case.sha256["image"] for case in fundus.cases}
    assert hashes.isdisjoint(case.sha256["image"] for case in other.cases)


def test_affine_has_the_spacing_of_the_description(prostate: DatasetDescription) -> None:
    for case in prostate.cases:
        for path in (case.image, case.label):
            volume = nib.load(path)
            assert np.allclose(np.linalg.norm(volume.affine[:3, :3], axis=0), case.spacing)
            assert nib.aff2axcodes(volume.affine) == ("L", "P", "S")
        assert nib.load(case.image).get_data_dtype() == np.int16


def test_volumes_cover_the_gland_and_little_more(prostate: DatasetDescription) -> None:
    for case in prostate.cases:
        label = read(case.label)
        labelled = np.flatnonzero(label.any(axis=(0, 1)))
        outside = label.shape[2] - labelled.size
        assert 9 <= label.shape[2] <= 18
        assert 1 <= outside <= 5
        assert 112 <= label.shape[0] <= 160
        assert label.shape[0] * case.spacing[0] >= 140


@pytest.mark.parametrize("endorectal", [False, True])
def test_gland_volume_is_plausible(endorectal: bool) -> None:
    site = next(site for site in PROSTATE_SITES if site.endorectal is endorectal)
    for number in range(4):
        rng = np.random.default_rng(number)
        volume = render_volume(site, build_prostate(draw_prostate(rng, endorectal=endorectal), rng), rng)
        millilitres = (volume.label > 0).sum() * np.prod(volume.spacing) / 1000
        assert 20 <= millilitres <= 100
        assert 0.15 < (volume.label == 1).sum() / (volume.label > 0).sum() < 0.85


def test_cup_is_inside_the_disc_and_away_from_its_edge() -> None:
    for number in range(20):
        rng = np.random.default_rng(number)
        label = build_eye(draw_fundus(rng), rng).label
        disc, cup = label > 0, label == 2
        assert 0.03 < cup.sum() / disc.sum() < 0.8
        neighbours = np.zeros_like(cup)
        for axis in (0, 1):
            for step in (-1, 1):
                neighbours |= np.roll(cup, step, axis)
        assert disc[neighbours].all()


def test_contrast_order_of_gland_and_fat_differs_between_sites() -> None:
    brighter = {site.name: tissue_signal(site, "transition") > tissue_signal(site, "fat") for site in PROSTATE_SITES}
    assert set(brighter.values()) == {True, False}


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: camera.name)
def test_cup_is_brighter_than_rim_and_disc_than_retina_with_every_camera(camera: phantom.Camera) -> None:
    differences = []
    for number in range(6):
        rng = np.random.default_rng(number)
        eye = build_eye(draw_fundus(rng), rng)
        green = photograph(camera, eye, rng)[..., 1].astype(float)
        cup, rim, retina = (np.median(green[eye.label == value]) for value in (2, 1, 0))
        differences.append((cup - rim, rim - retina))
    assert np.mean(differences, axis=0).min() > 4


def test_contact_sheet_is_written_and_shows_something(dataset: DatasetDescription, tmp_path: Path) -> None:
    assert (dataset.path.parent / SHEET_FILE).is_file()
    sheet = read(contact_sheet(dataset, tmp_path / "sheet.png", cases_per_domain=2))
    assert sheet[..., :3].std() > 20
    height = sheet.shape[0] // len(dataset.domains)
    for row in range(len(dataset.domains)):
        assert sheet[row * height : (row + 1) * height, :, :3].std() > 10


def test_contact_sheet_of_no_cases_is_refused(fundus: DatasetDescription, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cases_per_domain is 0"):
        contact_sheet(fundus, tmp_path / "sheet.png", cases_per_domain=0)


def test_complete_phantom_of_the_same_request_is_kept(
    fundus: DatasetDescription, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fundus.path.stat().st_mtime_ns
    assert make_phantom("fundus", fundus.path.parent, 3, **SMALL) == fundus.path.parent
    assert fundus.path.stat().st_mtime_ns == before
    assert "already holds this phantom" in capsys.readouterr().out


def test_a_resplit_or_damaged_phantom_is_not_taken_for_the_phantom(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {"source_cases": 3, "unseen_cases": 3}
    whole = load_dataset(make_phantom("fundus", tmp_path / "whole", 3, **counts))
    resplit_dataset(str(tmp_path / "whole"), whole.domains[-1], str(tmp_path / "other"))
    assert "processing.split" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="holds another phantom"):
        make_phantom("fundus", tmp_path / "other", 3, **counts)
    image = whole.cases[0].image
    image.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{image.name}: is not as it was written"):
        make_phantom("fundus", tmp_path / "whole", 3, **counts)


def test_another_phantom_or_folder_is_refused(fundus: DatasetDescription, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds another phantom"):
        make_phantom("fundus", fundus.path.parent, 99, **SMALL)
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        make_phantom("fundus", tmp_path, 3, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(phantom, "contact_sheet", fail)
    with pytest.raises(OSError, match="disk full"):
        make_phantom("fundus", tmp_path / "out", 0, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown task 'liver', allowed: prostate, fundus"):
        make_phantom("liver", tmp_path / "out")
    with pytest.raises(ValueError, match="seed is -1"):
        make_phantom("fundus", tmp_path / "out", -1)
    with pytest.raises(ValueError, match="source_cases is 2"):
        make_phantom("fundus", tmp_path / "out", source_cases=2)
