"""Finding sites and cases of the six-site release."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from data_prep.prostate.six_sites import SITES, SixSites, find_sites
from tests.data_prep.prostate.prostate_releases import SITE_NUMBERS, write_sites

FEW = {site: list(numbers)[:2] for site, numbers in SITE_NUMBERS.items()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_sites(tmp_path / "sites", FEW)


def summary(found: SixSites) -> dict[str, list[tuple[str, str, str]]]:
    return {
        site.name: [(c.name, c.image.name, c.label.name) for c in found.cases if c.domain == site.name]
        for site in found.sites
    }


def test_every_site_has_its_published_cases(tmp_path: Path) -> None:
    for site, numbers in SITE_NUMBERS.items():
        (tmp_path / site).mkdir()
        for number in numbers:
            (tmp_path / site / f"Case{number:02d}.nii.gz").touch()
            (tmp_path / site / f"Case{number:02d}_{'S' if site == 'BMC' else 's'}egmentation.nii.gz").touch()
    found = find_sites(tmp_path)
    assert Counter(case.domain for case in found.cases) == {site.name: site.cases for site in SITES}
    assert sum(site.cases for site in SITES) == 116
    assert all(case.label.is_file() for case in found.cases)
    assert (found.missing, found.left_out) == ((), ())


def test_labels_are_found_in_any_letter_case_and_numbers_keep_their_gaps(root: Path) -> None:
    found = summary(find_sites(root))
    assert list(found) == ["RUNMC", "BMC", "I2CVB", "UCL", "BIDMC", "HK"]
    assert found["BMC"][0] == ("Case00", "Case00.nii.gz", "Case00_Segmentation.nii.gz")
    assert found["UCL"] == [
        ("Case01", "Case01.nii.gz", "Case01_segmentation.nii.gz"),
        ("Case26", "Case26.nii.gz", "Case26_segmentation.nii.gz"),
    ]
    (root / "HK" / "Case38.nii.gz").rename(root / "HK" / "CASE38.NII.GZ")
    assert summary(find_sites(root))["HK"][0] == ("Case38", "CASE38.NII.GZ", "Case38_segmentation.nii.gz")


@pytest.mark.parametrize(
    ("site", "folder"),
    [
        ("RUNMC", "ISBI"),
        ("RUNMC", "A-ISBI"),
        ("RUNMC", "Site A"),
        ("RUNMC", "site_A_RUNMC"),
        ("BMC", "ISBI_1.5"),
        ("BMC", "B-ISBI_1.5"),
        ("BMC", "bmc"),
        ("I2CVB", "SiteC"),
        ("HK", "F_HK"),
    ],
)
def test_folders_are_known_by_the_names_they_are_given(site: str, folder: str, root: Path) -> None:
    expected = summary(find_sites(root))
    (root / site).rename(root / folder)
    found = find_sites(root)
    assert summary(found) == expected
    assert {case.shown.split("/")[0] for case in found.cases if case.domain == site} == {folder}


def test_a_folder_around_the_sites_is_entered(root: Path) -> None:
    outer = root.parent / "outer"
    outer.mkdir()
    (outer / "__MACOSX" / "HK").mkdir(parents=True)
    root.rename(outer / "Prostate")
    found = find_sites(outer)
    assert len(found.cases) == 12
    assert found.cases[0].shown == "Prostate/RUNMC/Case00.nii.gz"


def test_missing_sites_are_known(root: Path) -> None:
    shutil.rmtree(root / "UCL")
    assert [site.name for site in find_sites(root).missing] == ["UCL"]


def test_other_files_are_reported_and_hidden_ones_are_not(root: Path) -> None:
    (root / "HK" / "Case38.nii.gz").unlink()
    (root / "HK" / "notes.txt").touch()
    (root / "HK" / ".DS_Store").touch()
    (root / "UCL" / "Case01_segmentation.nii.gz").unlink()
    found = find_sites(root)
    assert [(entry.domain, entry.image, entry.reason) for entry in found.left_out] == [
        ("HK", "HK/notes.txt", "name is not CaseNN.nii.gz"),
        ("HK", "HK/Case38_segmentation.nii.gz", "no image for this label"),
    ]
    lacking = [case for case in found.cases if not case.label.exists()]
    assert [(case.id, case.label.name) for case in lacking] == [("UCL_Case01", "Case01_segmentation.nii.gz")]


def test_a_folder_that_is_not_the_release_is_refused_with_what_is_in_it(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"--sites .*none: no such folder\. It holds RUNMC, BMC, I2CVB"):
        find_sites(tmp_path / "none")
    (tmp_path / "sites.zip").touch()
    with pytest.raises(FileNotFoundError, match=r"sites\.zip: is a file; extract it and give the folder"):
        find_sites(tmp_path / "sites.zip")
    (tmp_path / "other" / "RUNMCC").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no folder of a site in it; found RUNMCC, allowed: RUNMC, .*mean 'RUNMC'"):
        find_sites(tmp_path / "other")
    with pytest.raises(ValueError, match=r"no folder of a site in it; found no folder, allowed"):
        find_sites(root / "HK")


def test_a_site_that_is_there_twice_is_refused(root: Path) -> None:
    shutil.copytree(root / "RUNMC", root / "ISBI")
    with pytest.raises(ValueError, match=r"site A is there twice, as ISBI and RUNMC; remove one"):
        find_sites(root)


def test_a_case_in_two_files_is_refused(root: Path) -> None:
    shutil.copy(root / "HK" / "Case38.nii.gz", root / "HK" / "Case38.nii")
    with pytest.raises(ValueError, match=r"HK: Case38\.nii and Case38\.nii\.gz are the same case in two files"):
        find_sites(root)


def test_a_folder_without_cases_is_refused_and_prepared_sets_are_known(root: Path) -> None:
    shutil.rmtree(root / "HK")
    (root / "HK").mkdir()
    with pytest.raises(ValueError, match=r"no CaseNN\.nii\.gz of site F \(HK\) in it; found nothing\. Get the release"):
        find_sites(root)
    (root / "HK" / "patient_1").mkdir()
    with pytest.raises(ValueError, match=r"found patient_1\. Folders patient_N are a set that others resampled"):
        find_sites(root)
