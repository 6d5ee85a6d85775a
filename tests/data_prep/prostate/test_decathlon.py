"""Reading Task05_Prostate of the Medical Decathlon: its folder, its tar file, its dataset.json."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import data_prep.prostate.decathlon as decathlon
from data_prep.prostate.decathlon import DecathlonRelease, extract_release, open_release
from tests.data_prep.prostate.prostate_releases import write_decathlon, write_tar

NUMBERS = (0, 1, 2, 4)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_decathlon(tmp_path / "data", NUMBERS)


def names(release: DecathlonRelease) -> list[str]:
    return [case.name for case in release.cases]


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("form", ["folder", "parent", "tar", "tar.gz", "tar without top folder"])
def test_folder_and_tar_give_the_same_cases(form: str, root: Path, tmp_path: Path) -> None:
    path = {"folder": root, "parent": root.parent}.get(form, tmp_path / "Task05_Prostate.tar")
    if form == "tar":
        write_tar(root, path)
    elif form == "tar.gz":
        with tarfile.open(path, "w:gz") as tar:
            tar.add(root, "./Task05_Prostate")
    elif form == "tar without top folder":
        with tarfile.open(path, "w") as tar:
            tar.add(root, ".")
    release = open_release(path, tmp_path / "scratch")
    assert names(release) == [f"prostate_{number:02d}" for number in NUMBERS]
    assert {(case.channels, case.channel, case.domain) for case in release.cases} == {(("T2", "ADC"), 0, "decathlon")}
    for case in release.cases:
        assert case.image.read_bytes() == (root / "imagesTr" / f"{case.name}.nii.gz").read_bytes()
        assert case.label.read_bytes() == (root / "labelsTr" / f"{case.name}.nii.gz").read_bytes()
        assert case.shown == f"imagesTr/{case.name}.nii.gz"
    assert release.left_out == ()
    assert release.facts == {
        "name": "PROSTATE",
        "licence": "CC-BY-SA 4.0",
        "relase": "1.0 04/05/2018",
        "listed_cases": 4,
    }
    assert (tmp_path / "scratch").exists() == form.startswith("tar")


def test_only_what_is_read_is_extracted(root: Path, tmp_path: Path) -> None:
    extract_release(write_tar(root, tmp_path / "release.tar"), tmp_path / "scratch")
    read = ["dataset.json", *files_in(root)]
    expected = {f"Task05_Prostate/{name}" for name in read if not name.startswith("imagesTs")}
    assert set(files_in(tmp_path / "scratch")) == expected


def test_t2_is_found_by_its_name(root: Path) -> None:
    path = root / "dataset.json"
    path.write_text(path.read_text().replace('{"0": "T2", "1": "ADC"}', '{"1": "T2", "0": "ADC"}'))
    assert {(case.channels, case.channel) for case in open_release(root, root).cases} == {(("ADC", "T2"), 1)}


def test_images_that_are_not_listed_are_reported_and_hidden_ones_are_not(root: Path) -> None:
    shutil.copy(root / "imagesTr" / "prostate_00.nii.gz", root / "imagesTr" / "prostate_05.nii.gz")
    (root / "imagesTr" / "._prostate_00.nii.gz").write_bytes(b"macOS")
    release = open_release(root, root)
    assert [(entry.image, entry.reason) for entry in release.left_out] == [
        ("imagesTr/prostate_05.nii.gz", "not listed in dataset.json")
    ]


def regular(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = 4
    return member


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


UNSAFE = {
    "parent": (regular("Task05_Prostate/../../evil.txt"), r"'Task05_Prostate/\.\./\.\./evil\.txt' .* '\.\.' in its"),
    "windows parent": (regular("Task05_Prostate\\..\\..\\evil.txt"), r"'\.\.' in its path"),
    "absolute": (regular("/evil.txt"), r"'/evil\.txt' is refused: an absolute path"),
    "windows drive": (regular("C:\\evil.txt"), r"an absolute path"),
    "symbolic link outside": (
        special("a", tarfile.SYMTYPE, "../../evil"),
        r"'a' is refused: a link to '\.\./\.\./evil'",
    ),
    "absolute link": (special("a", tarfile.SYMTYPE, "/etc/passwd"), r"a link to '/etc/passwd'"),
    "hard link": (special("a", tarfile.LNKTYPE, "/etc/passwd"), r"a link to '/etc/passwd'"),
    "device": (special("a", tarfile.CHRTYPE), r"'a' is a special file"),
    "pipe": (special("a", tarfile.FIFOTYPE), r"'a' is a special file"),
}


@pytest.mark.parametrize("fault", UNSAFE)
def test_an_unsafe_member_is_named_before_anything_is_extracted(fault: str, root: Path, tmp_path: Path) -> None:
    member, message = UNSAFE[fault]
    archive = write_tar(root, tmp_path / "release.tar")
    with tarfile.open(archive, "a") as tar:
        tar.addfile(member, io.BytesIO(b"evil") if member.isreg() else None)
    before = set(files_in(tmp_path))
    with pytest.raises(ValueError, match=rf"release\.tar: member .*{message}.*Nothing was extracted"):
        open_release(archive, tmp_path / "scratch" / "deep")
    assert set(files_in(tmp_path)) == before


def test_a_file_that_is_there_twice_is_refused(root: Path, tmp_path: Path) -> None:
    archive = write_tar(root, tmp_path / "release.tar")
    with tarfile.open(archive, "a") as tar:
        tar.addfile(regular("Task05_Prostate/./dataset.json"), io.BytesIO(b"{}{}"))
    with pytest.raises(ValueError, match=r"release\.tar: holds Task05_Prostate/dataset\.json twice; .*Nothing was ext"):
        open_release(archive, tmp_path / "scratch")
    assert files_in(tmp_path / "scratch") == []


class Zeros(io.RawIOBase):
    """A stream of zeros without end."""

    def read(self, size: int = -1) -> bytes:
        return bytes(size)


@pytest.mark.parametrize(
    ("free", "message"), [(2**40, r"at most 1,000,000 are taken"), (5, r"5 are free where --output")]
)
def test_more_than_a_release_can_have_is_refused(
    free: int, message: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small compressed file may hold any number of zeros."""
    archive = tmp_path / "release.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root, "Task05_Prostate")
        bomb = regular("Task05_Prostate/imagesTr/prostate_99.nii.gz")
        bomb.size = 2_000_000
        tar.addfile(bomb, Zeros())
    assert archive.stat().st_size < 100_000
    monkeypatch.setattr(decathlon, "_MAX_BYTES", 1_000_000)
    monkeypatch.setattr(decathlon.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(
        ValueError, match=rf"release\.tar\.gz: claims 2,0..,... bytes .*{message}.*Nothing was extracted"
    ):
        open_release(archive, tmp_path / "scratch")
    assert files_in(tmp_path / "scratch") == []


def test_a_fault_in_a_tar_is_told_of_the_tar(root: Path, tmp_path: Path) -> None:
    (root / "dataset.json").write_text("{}")
    archive = write_tar(root, tmp_path / "release.tar")
    with pytest.raises(ValueError, match=r"^\S*/release\.tar/Task05_Prostate/dataset\.json: 3 problems") as caught:
        open_release(archive, tmp_path / "scratch")
    assert "scratch" not in str(caught.value)


def test_a_python_without_safe_extraction_is_told(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_tar(root, tmp_path / "release.tar")
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(ValueError, match=r"came with 3\.11\.4\). Update Python, or extract the file yourself"):
        open_release(archive, tmp_path / "scratch")


@pytest.mark.parametrize("fault", ["empty", "text", "cut in a member", "cut between members", "cut gzip"])
def test_a_damaged_tar_is_told(fault: str, root: Path, tmp_path: Path) -> None:
    archive = write_tar(root, tmp_path / "release.tar")
    if fault == "cut gzip":
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(root, "Task05_Prostate")
    whole = archive.read_bytes()
    with tarfile.open(archive) as tar:
        last = tar.getmembers()[-1].offset
    content = {
        "empty": b"",
        "text": b"<html>not found</html>" * 100,
        "cut in a member": whole[: last + 600],
        "cut between members": whole[:last],
        "cut gzip": whole[: len(whole) // 2],
    }
    archive.write_bytes(content[fault])
    with pytest.raises(ValueError, match=r"release\.tar: cannot be extracted \([^\n]+\)\. .* fetch Task05_Prost"):
        open_release(archive, tmp_path / "scratch")


def test_what_is_not_there_is_told_with_what_is(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"--decathlon .*none: no such file or folder; give Task05_Prostate"):
        open_release(tmp_path / "none", tmp_path)
    (root / "dataset.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither dataset\.json nor .*; found imagesTr.* Give the folder Task"):
        open_release(root, tmp_path)
    (tmp_path / "downloads").mkdir()
    with pytest.raises(FileNotFoundError, match=r"found nothing\. Give the folder"):
        open_release(tmp_path / "downloads", tmp_path)
    (tmp_path / "downloads" / "Task05_Prostate.tar").touch()
    with pytest.raises(FileNotFoundError, match=r"Give the file Task05_Prostate\.tar in it"):
        open_release(tmp_path / "downloads", tmp_path)


def set_to(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.update({key: value})


def first(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["training"][0].update({key: value})


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another task": (
        set_to("modality", {"0": "MRI"}),
        r"modality: found \{'0': 'MRI'\}, expected .*'T2'.* Give that task",
    ),
    "modality numbers": (set_to("modality", {"T2": "T2"}), r"modality: found \{'T2': 'T2'\}"),
    "modality list": (set_to("modality", ["T2", "ADC"]), r"modality: found .* \(list\), expected object"),
    "labels": (set_to("labels", {"0": "background", "1": "prostate"}), r"labels: found .*, expected .*'2': 'TZ'"),
    "no training": (lambda content: content.pop("training"), r"key 'training' is missing"),
    "empty training": (set_to("training", []), r"training: found \[\], needs at least 1"),
    "no label": (lambda content: content["training"][0].pop("label"), r"training\[0\]: key 'label' is missing"),
    "leaves": (first("image", "../imagesTr/a.nii.gz"), r"training\[0\]\.image: '\.\./imagesTr/a\.nii\.gz' leaves the"),
    "absolute": (first("label", "/data/a.nii.gz"), r"training\[0\]\.label: '/data/a\.nii\.gz' leaves the release"),
    "twice": (first("image", "imagesTr/prostate_02.nii.gz"), r"'prostate_02' is listed twice"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_dataset_json_of_something_else_is_refused(fault: str, root: Path) -> None:
    change, message = FAULTS[fault]
    path = root / "dataset.json"
    content = json.loads(path.read_text())
    content["training"].sort(key=lambda entry: entry["image"])
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"dataset\.json: 1 problem\n  .*{message}"):
        open_release(root, root)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe\x00"])
def test_a_damaged_dataset_json_is_told(raw: bytes, root: Path) -> None:
    (root / "dataset.json").write_bytes(raw)
    with pytest.raises(ValueError, match=r"dataset\.json: not valid JSON .* Restore it from Task05_Prostate\.tar"):
        open_release(root, root)
