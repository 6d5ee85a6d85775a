"""Damaged and misleading inputs, each through the real commands `folder` and `check`.

Each has to give one message with the file, the fault and the remedy, leave its inputs as they are and nothing partial
behind, and be gone after the mend.
"""

from __future__ import annotations

import builtins
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.data import check_headers, load_dataset
from tests.data_prep import bad_files as bad
from tests.data_prep.bad_cases import PICTURES, VOLUMES, Bad
from tests.data_prep.bad_files import left_out, run

ALL = [pytest.param(2, entry, id=f"2d-{name}") for name, entry in PICTURES.items()]
ALL += [pytest.param(3, entry, id=f"3d-{name}") for name, entry in VOLUMES.items()]


def damaged_file(root: Path, dims: int, role: str) -> Path:
    if dims == 3:
        return root / "home" / "p1" / ("t2.nii.gz" if role == "image" else "seg.nii.gz")
    return root / "home" / ("images" if role == "image" else "masks") / "p1.png"


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, Path]]:
    """Releases of images and of volumes by number of dimensions, each with the data set made from it."""
    made = {}
    for dims, make in ((2, bad.make_pictures), (3, bad.make_volumes)):
        folder = tmp_path_factory.mktemp(f"release{dims}")
        assert run("folder", make(folder / "root"), "--output", folder / "data") == 0
        made[dims] = (folder / "root", folder / "data")
    return made


@pytest.fixture
def copied(releases: dict[int, tuple[Path, Path]], tmp_path: Path) -> Callable[[int], tuple[Path, Path]]:
    def copy(dims: int) -> tuple[Path, Path]:
        for source, name in zip(releases[dims], ("root", "data"), strict=True):
            shutil.copytree(source, tmp_path / name)
        return tmp_path / "root", tmp_path / "data"

    return copy


Copied = Callable[[int], tuple[Path, Path]]


@pytest.mark.parametrize(("dims", "entry"), ALL)
def test_folder_names_file_fault_and_remedy_and_works_after_the_mend(
    dims: int, entry: Bad, copied: Copied, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = copied(dims)
    path = damaged_file(root, dims, entry.role)
    whole = path.read_bytes()
    entry.damage(path)
    before, around = bad.contents(root), {child.name for child in tmp_path.iterdir()}
    status = run("folder", root / "spec.yaml", "--output", tmp_path / "out")
    printed = capsys.readouterr()
    if entry.stops:
        assert status == 1
        assert {child.name for child in tmp_path.iterdir()} == around
        told = printed.err[printed.err.index("error: ") :]
        assert str(path) in told
        assert re.search(entry.folder, told)
        assert re.search(entry.remedy, told)
    else:
        assert status == 0
        assert {child.name for child in tmp_path.iterdir()} == around | {"out"}
        (row,) = left_out(tmp_path / "out")
        assert row["image"] == damaged_file(root, dims, "image").relative_to(root).as_posix()
        assert re.search(entry.folder, row["reason"])
        assert re.search(entry.remedy, row["remedy"])
        assert "left out (1" in printed.out
        assert len(load_dataset(tmp_path / "out").cases) == 6
    assert bad.contents(root) == before
    path.unlink(missing_ok=True)
    path.write_bytes(whole)
    assert run("folder", root / "spec.yaml", "--output", tmp_path / "mended") == 0
    assert left_out(tmp_path / "mended") == []


@pytest.mark.parametrize(("dims", "entry"), ALL)
def test_check_names_file_fault_and_remedy_and_is_content_after_the_mend(
    dims: int, entry: Bad, copied: Copied, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, data = copied(dims)
    described = data / "dataset.json"
    whole = described.read_bytes()
    case = next(case for case in load_dataset(data).cases if case.domain == "home" and case.split == "train")
    path = case.image if entry.role == "image" else case.label
    good = path.read_bytes()
    entry.damage(path)
    if path.is_file():
        record(described, case.id, entry.role, sha256_file(path))
    before, around = bad.contents(data), {child.name for child in tmp_path.iterdir()}
    assert run("check", data, "--workers", 1, "--fix-report", tmp_path / "report.json") == 1
    assert "error" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    (problem,) = [problem for problem in report["problems"] if problem["severity"] == "error"]
    assert problem["case"] == case.id
    assert problem["file"] in {p.relative_to(data).as_posix() for p in (path, case.image)}
    assert re.search(entry.check, problem["fault"])
    assert re.search(entry.remedy, problem["remedy"])
    assert bad.contents(data) == before
    assert {child.name for child in tmp_path.iterdir()} == around | {"report.json"}
    path.unlink(missing_ok=True)
    path.write_bytes(good)
    described.write_bytes(whole)
    assert run("check", data, "--workers", 1, "--fix-report", tmp_path / "report.json") == 0
    assert json.loads((tmp_path / "report.json").read_text())["problems"] == []


def record(described: Path, case_id: str, role: str, digest: str) -> None:
    """Record the hash of a damaged file, so that the damage is the only problem."""
    content = json.loads(described.read_text())
    next(case for case in content["cases"] if case["id"] == case_id)["sha256"][role] = digest
    described.write_text(json.dumps(content))


@pytest.mark.parametrize(("dims", "entry"), [parameter for parameter in ALL if parameter.values[1].header])
def test_training_refuses_what_headers_tell(dims: int, entry: Bad, copied: Copied) -> None:
    description = load_dataset(copied(dims)[1])
    case = description.select("test", "away")[0]
    entry.damage(case.image if entry.role == "image" else case.label)
    told = rf"dataset\.json: 1 problem\n  case {case.id}, .*({entry.check}).*({entry.remedy})"
    with pytest.raises(ValueError, match=told):
        check_headers(description)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("role", ["image", "label"])
def test_a_file_without_permission_is_named(
    dims: int, role: str, copied: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, data = copied(dims)
    case = next(case for case in load_dataset(data).cases if case.domain == "home" and case.split == "train")
    kept = case.image if role == "image" else case.label
    refused = {str(kept), str(damaged_file(root, dims, role))}
    genuine = builtins.open

    def refuse(file: Any, *arguments: Any, **options: Any) -> Any:
        if not isinstance(file, int) and os.fspath(file) in refused:
            raise PermissionError(13, "Permission denied", os.fspath(file))
        return genuine(file, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", refuse)
        assert run("folder", root / "spec.yaml", "--output", tmp_path / "out") == 0
        assert run("check", data, "--workers", 1, "--fix-report", tmp_path / "report.json") == 1
    (row,) = left_out(tmp_path / "out")
    assert "cannot be read: permission denied" in row["reason"]
    assert "chmod u+r" in row["remedy"]
    (problem,) = json.loads((tmp_path / "report.json").read_text())["problems"]
    assert (problem["file"], problem["fault"]) == (
        kept.relative_to(data).as_posix(),
        "cannot be read: permission denied",
    )
    assert run("check", data, "--workers", 1) == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything, whatever the permissions")
def test_real_permissions_are_named(copied: Copied, tmp_path: Path) -> None:
    root, data = copied(3)
    case = load_dataset(data).cases[0]
    for path in (case.image, damaged_file(root, 3, "image")):
        path.chmod(0)
    assert run("folder", root / "spec.yaml", "--output", tmp_path / "out") == 0
    assert "permission denied" in left_out(tmp_path / "out")[0]["reason"]
    assert run("check", data, "--workers", 1) == 1
    case.image.chmod(0o600)
    assert run("check", data, "--workers", 1) == 0
