"""All checks of a data set at one place: what is found, how it is told, and that memory stays bounded."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from data_prep.check import check_dataset
from data_prep.check_case import CaseResult
from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.data import load_dataset
from tests.data_prep import bad_files as bad

Content = dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Data sets of images and of volumes, by number of dimensions; not to be changed."""
    result = {}
    for dims, make in ((2, bad.make_pictures), (3, bad.make_volumes)):
        folder = tmp_path_factory.mktemp(f"set{dims}")
        assert bad.run("folder", make(folder / "root"), "--output", folder / "data") == 0
        result[dims] = folder / "data"
    return result


@pytest.fixture
def pictures(made: dict[int, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[2], tmp_path / "data"))


@pytest.fixture
def volumes(made: dict[int, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[3], tmp_path / "data"))


def check(data: Path, workers: int = 1) -> tuple[int, list[dict[str, str]], str]:
    """Return exit status, the problems of the report, and what was printed."""
    printed, report = io.StringIO(), data.parent / "report.json"
    status = check_dataset(data, workers=workers, fix_report=report, console=Console(file=printed, width=400))
    content = json.loads(report.read_text())
    found: list[dict[str, str]] = content["problems"]
    severities = [problem["severity"] for problem in found]
    assert (content["errors"], content["warnings"]) == (severities.count("error"), severities.count("warning"))
    return status, found, printed.getvalue()


def edit(data: Path, change: Callable[[Content], object], *, rehash: bool = True) -> None:
    """Change dataset.json, and by default record the hashes that the files have now."""
    path = data / "dataset.json"
    content = json.loads(path.read_text())
    change(content)
    for case in content["cases"] if rehash else []:
        case["sha256"] = {kind: sha256_file(data / case[kind]) for kind in ("image", "label")}
    path.write_text(json.dumps(content))


def case_of(content: Content, split: str, domain: str = "home") -> Content:
    found: Content = next(case for case in content["cases"] if (case["split"], case["domain"]) == (split, domain))
    return found


def keep(content: Content) -> None:
    """Change nothing."""


@pytest.mark.parametrize("dims", [2, 3])
def test_a_sound_data_set_passes_and_is_left_alone(made: dict[int, Path], dims: int) -> None:
    before = bad.contents(made[dims])
    status, found, printed = check(made[dims])
    assert (status, found) == (0, [])
    assert printed == "small: 7 cases checked, 0 errors, 0 warnings\n"
    assert bad.contents(made[dims]) == before


def spoil(data: Path) -> None:
    """Make one mistake of each kind, each in a case of its own."""

    def change(content: Content) -> None:
        home = [case for case in content["cases"] if case["domain"] == "home"]
        away = [case for case in content["cases"] if case["domain"] == "away"]
        away[0]["split"] = "train"
        home[0]["group"] = home[1]["group"] = "one patient"
        home[0]["split"], home[1]["split"], home[2]["split"] = "train", "test", "validation"
        (data / home[0]["image"]).write_bytes(b"no image")
        bad.change_pixels(lambda values: values * 7)(data / home[1]["label"])
        bad.change_pixels(lambda values: np.full_like(values, 9))(data / home[2]["image"])
        (data / home[3]["label"]).unlink()
        bad.change_pixels(lambda values: values * 0)(data / home[4]["label"])
        bad.change_pixels(lambda values: values[:-1])(data / away[1]["label"])

    edit(data, change, rehash=False)


def test_all_problems_are_told_at_once_with_remedies(pictures: Path) -> None:
    spoil(pictures)
    status, found, printed = check(pictures)
    assert status == 1
    faults = {(problem["case"], problem["fault"]) for problem in found if "sha256" not in problem["fault"]}
    assert faults == {
        ("-", "group 'one patient' of the domain 'home' is in two splits: 'home_p0' in 'train', 'home_p1' in 'test'"),
        ("away_p0", "split 'train', but its domain 'away' is not the source ('home')"),
        (
            "home_p0",
            "cannot be read (UnidentifiedImageError: cannot identify image file 'p0.png'), "
            "and is not the file recorded",
        ),
        ("home_p1", "has label values 7, allowed: 0, 1 (0 and those of `regions`)"),
        ("home_p2", "is constant: every value is 9"),
        ("home_p3", "does not exist"),
        ("home_p4", "is background only"),
        ("away_p1", "is 20 x 24 pixels, its label 20 x 23"),
    }
    changed = {problem["case"] for problem in found if "sha256 differs" in problem["fault"]}
    assert changed == {"home_p1", "home_p2", "home_p4", "away_p1"}
    assert all(problem["remedy"] for problem in found)
    for problem in found:
        (line,) = [line for line in printed.splitlines() if problem["fault"] in line and f" {problem['case']} " in line]
        assert problem["remedy"] in line
        assert problem["file"] in line
        assert problem["severity"] in line
    assert [problem["severity"] for problem in found] == sorted(problem["severity"] for problem in found)
    assert check(pictures, workers=2)[1:] == (found, printed)


def test_more_problems_of_dataset_json_than_load_dataset_shows_are_all_told(pictures: Path) -> None:
    def change(content: Content) -> None:
        away = case_of(content, "test", "away")
        content["cases"] += [{**away, "id": f"x{number}", "split": "train"} for number in range(30)]

    edit(pictures, change, rehash=False)
    found = check(pictures)[1]
    assert len([problem for problem in found if "split 'train', but its domain" in problem["fault"]]) == 30


def test_other_cases_are_checked_where_one_entry_is_wrong(pictures: Path) -> None:
    def change(content: Content) -> None:
        content["cases"][0]["splt"] = content["cases"][0].pop("split")
        (pictures / content["cases"][1]["image"]).unlink()

    edit(pictures, change, rehash=False)
    status, found, printed = check(pictures)
    assert status == 1
    assert {(problem["case"], problem["fault"]) for problem in found} == {
        ("home_p0", "cases[0] (id 'home_p0'): key 'split' is missing"),
        ("home_p0", "cases[0] (id 'home_p0'): unknown key 'splt'"),
        ("home_p1", "does not exist"),
    }
    assert "6 cases checked" in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"dataset\.json: not valid JSON .*Write it again"),
        ('{"name": "a", "name": "b"}', r"dataset\.json: not valid JSON \(key 'name' is given twice; remove one\)"),
        (b"\xff\xfe\xff", r"dataset\.json: not valid JSON"),
        ("[" * 100_000, r"dataset\.json: not valid JSON \(objects or lists nested more than 100 deep\)"),
        ('{"name": NaN}', r"dataset\.json: not valid JSON \(NaN is no number of JSON\)"),
    ],
)
def test_a_file_that_is_not_json_is_refused(text: str | bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        check_dataset(tmp_path)


def test_no_data_set_and_no_cases_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bad.run("check", tmp_path / "none") == 1
    assert "none/dataset.json: no such file. Make a data set" in capsys.readouterr().err
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").write_text("[1]")
    status, found, _ = check(tmp_path / "data")
    assert status == 1
    assert found[0]["fault"] == "top level: found [1] (list), expected object"


@pytest.mark.parametrize("content", ["", "text", "{}", "[]", '{"format": 1, "errors": 0}', '{"dependencies": {}}'])
def test_a_file_that_is_no_report_is_not_replaced(content: str, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text(content)
    with pytest.raises(ValueError, match=r"package\.json: exists and is not a report of an earlier check, so it is"):
        check_dataset(pictures, workers=1, fix_report=tmp_path / "package.json")
    assert (tmp_path / "package.json").read_text() == content


def test_an_earlier_report_is_replaced(pictures: Path) -> None:
    assert check(pictures)[1] == []
    edit(pictures, lambda content: content.update(channels=1))
    assert check(pictures)[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "--workers: found 0, allowed: a whole number from 1"),
        (["--workers", "two"], "--workers: found 'two', allowed: a whole number from 1"),
        (["--fix-report"], "--fix_report has no value; give one, as in --fix_report NAME"),
        (["--fix-report", "report.txt"], "--fix-report report.txt: expected a name that ends in .json"),
        (["--fix-report", "{data}/dataset.json"], "dataset.json: is a file of the data set; give another name"),
        (["--fix-report", "{data}/none/report.json"], "there is no folder .*none; make it first"),
    ],
)
def test_wrong_options_are_told_before_any_work(
    options: list[str], message: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = bad.contents(pictures)
    assert bad.run("check", pictures, *(word.format(data=pictures) for word in options)) == 1
    error = capsys.readouterr().err
    with pytest.raises(ValueError, match=message):
        raise ValueError(error)
    assert "case/s" not in error
    assert bad.contents(pictures) == before


def test_a_killed_worker_is_told(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def killed(*_: object) -> Iterator[Iterator[CaseResult]]:
        def results() -> Iterator[CaseResult]:
            raise BrokenProcessPool
            yield

        yield results()

    monkeypatch.setattr("data_prep.check._mapping", killed)
    with pytest.raises(
        ValueError, match=r"dataset\.json: a worker ended .* memory ran out; try again with --workers 1"
    ):
        check_dataset(pictures)


@pytest.mark.parametrize(
    ("one", "other", "severity"),
    [
        (("train", "home"), ("test", "home"), "error"),
        (("train", "home"), ("test", "away"), "error"),
        (("train", "home"), ("train", "home"), "warning"),
        (("test", "away"), ("test", "away"), "warning"),
    ],
)
def test_equal_images_are_found_across_formats(
    one: tuple[str, str], other: tuple[str, str], severity: str, pictures: Path
) -> None:
    cases = json.loads((pictures / "dataset.json").read_text())["cases"]
    first = next(case for case in cases if (case["split"], case["domain"]) == one)
    second = next(case for case in cases[::-1] if (case["split"], case["domain"]) == other)
    assert first["id"] != second["id"]
    with Image.open(pictures / first["image"]) as image:
        image.save(pictures / second["image"], compress_level=1)
    edit(pictures, keep)
    status, found, _ = check(pictures)
    assert status == (severity == "error")
    (problem,) = found
    assert problem["severity"] == severity
    assert {first["id"], second["id"]} == {problem["case"], problem["fault"].split("pixels as ")[1].split(" (")[0]}
    assert "keep one of them" in problem["remedy"] or "remove one" in problem["remedy"]


def test_identical_files_in_two_splits_are_one_problem(pictures: Path) -> None:
    def change(content: Content) -> None:
        train, test = case_of(content, "train"), case_of(content, "test")
        shutil.copyfile(pictures / train["image"], pictures / test["image"])

    edit(pictures, change)
    status, (problem,), _ = check(pictures)
    assert status == 1
    assert "image hash" in problem["fault"]
    assert "is in two splits" in problem["fault"]


def test_a_region_that_training_never_sees_is_an_error_and_one_unseen_elsewhere_a_warning(pictures: Path) -> None:
    def add_region(content: Content) -> None:
        content["regions"]["core"] = [2]
        for case in content["cases"]:
            if case["split"] == "validation":
                bad.change_pixels(lambda values: values + (values == 1))(pictures / case["label"])

    edit(pictures, add_region)
    found = {(problem["severity"], problem["fault"]) for problem in check(pictures)[1]}
    assert found == {
        ("error", "no label in 'train' of the domain 'home' shows core"),
        ("error", "no label in 'validation' of the domain 'home' shows organ"),
        ("warning", "no label in 'test' of the domain 'home' shows core"),
        ("warning", "no label in 'test' of the domain 'away' shows core"),
    }


def test_a_domain_of_background_only_is_an_error(pictures: Path) -> None:
    def blacken(content: Content) -> None:
        for case in content["cases"]:
            if case["domain"] == "away":
                bad.change_pixels(lambda values: values * 0)(pictures / case["label"])

    edit(pictures, blacken)
    status, found, _ = check(pictures)
    assert status == 1
    assert [problem["severity"] for problem in found] == ["error", "warning", "warning"]
    assert found[0]["fault"] == "all of the 2 labels in 'test' of the domain 'away' are background only"


@pytest.mark.parametrize(
    ("scale", "expected"),
    [(1, 0), (6.6, 0), (0.1, 0), (7, 1), (0.09, 1), (0.001, 1)],
)
def test_extreme_spacing_is_a_warning(scale: float, expected: int, volumes: Path) -> None:
    def rescale(content: Content) -> None:
        case = content["cases"][0]
        case["spacing"] = [size * scale for size in case["spacing"]]
        for kind in ("image", "label"):
            volume = nib.load(volumes / case[kind])
            affine = volume.affine @ np.diag([scale, scale, scale, 1])
            nib.save(nib.Nifti1Image(np.asarray(volume.dataobj), affine), volumes / case[kind])

    edit(volumes, rescale)
    status, found, _ = check(volumes)
    assert status == 0
    assert len(found) == 2 * expected
    assert all("usual are 0.05 to 20 mm" in problem["fault"] for problem in found)
    assert all("check the unit" in problem["remedy"] for problem in found)


def test_recorded_spacing_is_compared_with_the_file(volumes: Path) -> None:
    edit(volumes, lambda content: content["cases"][0].update(spacing=[0.5, 0.75, 2.9]))
    status, (problem,), _ = check(volumes)
    assert (status, problem["fault"]) == (1, "has voxels of 0.5 x 0.75 x 3 mm, dataset.json says 0.5 x 0.75 x 2.9")


def test_recorded_spacing_of_images_in_another_unit_is_a_warning(pictures: Path) -> None:
    edit(pictures, lambda content: content["cases"][0].update(spacing=[600, 600]))
    status, (problem,), _ = check(pictures)
    assert (status, problem["severity"]) == (0, "warning")
    assert problem["fault"] == "has pixels of 600 x 600 mm; usual are 1e-05 to 10 mm"


def test_a_shift_of_a_part_of_a_voxel_is_a_warning(volumes: Path) -> None:
    case = load_dataset(volumes).cases[0]
    affine = bad.AFFINE.copy()
    affine[0, 3] = 0.1
    label = nib.load(case.label)
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj), affine), case.label)
    edit(volumes, keep)
    status, (problem,), _ = check(volumes)
    assert (status, problem["severity"]) == (0, "warning")
    assert problem["fault"] == "image and label are placed 0.1 mm apart by their affines"


@pytest.mark.shared_data
def test_real_volumes_of_all_orientations_pass(shared_data: Path, tmp_path: Path) -> None:
    spec = bad.write_spec(tmp_path, 3, "*/image.nii.gz", "{{parent}}/label.nii.gz")
    spec.write_text(spec.read_text().split("  away:")[0])
    assert bad.run("folder", spec, "--output", tmp_path / "data", "--root", shared_data / "volumes") == 0
    status, found, printed = check(tmp_path / "data")
    assert (status, found) == (0, [])
    assert "3 cases checked" in printed


@pytest.mark.shared_data
def test_real_odd_volumes_are_read_or_named(shared_data: Path, volumes: Path) -> None:
    odd = shared_data / "volumes" / "odd"
    first, second, third = load_dataset(volumes).cases[:3]
    big = nib.load(odd / "anatomical_big_endian.nii")
    assert big.header.endianness == ">"

    def replace(content: Content) -> None:
        shutil.copyfile(odd / "anatomical_big_endian.nii", first.image.with_suffix("").with_suffix(".nii"))
        content["cases"][0]["image"] = content["cases"][0]["image"].removesuffix(".gz")
        nib.save(nib.Nifti1Image((np.indices(big.shape)[0] > 9).astype(np.uint8), big.affine), first.label)
        content["cases"][0]["spacing"] = [float(size) for size in nib.affines.voxel_sizes(big.affine)]
        for target, name in (
            (second.image, "four_dimensional.nii.gz"),
            (third.label, "decathlon_prostate_mask.nii.gz"),
        ):
            target.chmod(0o644)
            target.write_bytes((odd / name).read_bytes())

    edit(volumes, replace)
    _, found, _ = check(volumes)
    faults = {
        case.id: [problem["fault"] for problem in found if problem["case"] == case.id]
        for case in (first, second, third)
    }
    assert faults[first.id] == []
    assert faults[second.id] == ["has shape (128, 96, 24, 2), expected three axes"]
    assert faults[third.id] == [
        "has shape (8, 7, 5), its label (320, 320, 15)",
        "has label values 2, allowed: 0, 1 (0 and those of `regions`)",
    ]
