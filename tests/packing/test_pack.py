"""The zip file: its content, and what keeps it from being written."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from mixstyleflow_monai.artifacts import case_counts, sha256_file
from mixstyleflow_monai.bundle_paths import bundles_dir
from mixstyleflow_monai.packing import pack

NAME = "phase3_mixstyleflow_segmentation"
VERSION = json.loads((bundles_dir() / NAME / "configs" / "metadata.json").read_text())["version"]
ZIP = f"{NAME}_v{VERSION}.zip"


@pytest.fixture(scope="module")
def packed(outputs: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The third bundle, packed without exports."""
    folder = tmp_path_factory.mktemp("dist") / "new folder"
    pack(NAME, str(outputs[3]), str(folder), exports="")
    return folder / ZIP


def test_zip_has_one_top_folder_with_the_name_of_the_bundle(packed: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    assert {name.split("/")[0] for name in names} == {NAME}
    expected = {"LICENSE", "SHA256SUMS", "configs/metadata.json", "configs/train.json", "docs/data_license.txt"}
    expected |= {"docs/README.md", "models/model.pt", "models/model.manifest.json", "mixstyleflow_monai/LICENSE"}
    assert {f"{NAME}/{name}" for name in expected} <= set(names)
    assert [path.name for path in packed.parent.iterdir()] == [ZIP]


def test_checksums_are_of_all_other_files(packed: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        content = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    lines = content.pop("SHA256SUMS").decode().splitlines()
    assert {line[66:]: line[:64] for line in lines} == {
        name: hashlib.sha256(text).hexdigest() for name, text in content.items()
    }


def test_weights_are_the_very_file_of_the_training(packed: Path, outputs: dict[int, Path]) -> None:
    with zipfile.ZipFile(packed) as archive:
        found = hashlib.sha256(archive.read(f"{NAME}/models/model.pt")).hexdigest()
        manifest = json.loads(archive.read(f"{NAME}/models/model.manifest.json"))
    assert found == sha256_file(outputs[3] / "models" / "model.pt") == manifest["sha256"]


def test_no_case_is_named(packed: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        assert not [name for name in archive.namelist() if b"Muster" in archive.read(name)]
        manifest = json.loads(archive.read(f"{NAME}/models/model.manifest.json"))
    assert manifest["cases"] == case_counts(manifest) == {"train": 2, "validation": 1}


def test_same_input_gives_the_same_bytes(packed: Path, outputs: dict[int, Path], tmp_path: Path) -> None:
    pack(str(bundles_dir() / NAME), str(outputs[3] / "models" / "model.pt"), str(tmp_path), exports=())
    assert (tmp_path / ZIP).read_bytes() == packed.read_bytes()


def test_stated_licence_is_packed(outputs: dict[int, Path], tmp_path: Path) -> None:
    (tmp_path / "licence.txt").write_text("CC BY 4.0, Example Institute")
    pack(NAME, str(outputs[3]), str(tmp_path), exports="", data_license=str(tmp_path / "licence.txt"))
    with zipfile.ZipFile(tmp_path / ZIP) as archive:
        assert "CC BY 4.0, Example Institute" in archive.read(f"{NAME}/docs/data_license.txt").decode()


def test_zip_that_is_there_is_kept_unless_told_otherwise(outputs: dict[int, Path], tmp_path: Path) -> None:
    (tmp_path / ZIP).write_text("precious")
    with pytest.raises(FileExistsError, match=r"is there already\. Give --overwrite"):
        pack(NAME, str(outputs[3]), str(tmp_path), exports="")
    assert (tmp_path / ZIP).read_text() == "precious"
    pack(NAME, str(outputs[3]), str(tmp_path), exports="", overwrite=True)
    assert zipfile.is_zipfile(tmp_path / ZIP)


def test_failure_leaves_no_file(outputs: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(OSError, match="disk full"):
        pack(NAME, str(outputs[3]), str(tmp_path / "dist"), exports="")
    assert list((tmp_path / "dist").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bundle": "phase4"}, "bundle='phase4': no such bundle. Give one of phase1_base_segmentation"),
        ({"exports": "ts,h5"}, "exports=ts,h5: unknown h5; expected some of ts,pt2,onnx"),
        ({"data_license": "nowhere.txt"}, "data_license: nowhere.txt: no such file"),
        ({"data_license": "picture"}, "data_license: picture: not a text in UTF-8"),
        ({"output": "file"}, "output=file: file is a file. Give a folder"),
        ({"output": "file/dist"}, "output=file/dist: file is a file. Give a folder"),
        ({"weights": "nowhere"}, "weights: no file nowhere"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_mistake_is_told_and_nothing_is_written(
    options: dict[str, str], message: str, outputs: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("a file")
    Path("picture").write_bytes(b"\x89PNG")
    arguments = {"bundle": NAME, "weights": str(outputs[3]), "output": "dist", "exports": ""} | options
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        pack(**arguments)
    assert message in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "picture"]
