"""Tests of atomic writes, hashes and manifests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from mixstyleflow_monai.artifacts import (
    atomic_path,
    check_same_sources,
    check_writable,
    git_commit,
    manifest_path,
    read_manifest,
    save_tensors,
    sha256_file,
    software_versions,
    write_json,
    write_manifest,
)


def test_hash_is_that_of_hashlib(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"style" * 100_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"style" * 100_000).hexdigest()


def test_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "sub" / "a.nii.gz"
    write_json(target, {"old": 1})

    def interrupted() -> None:
        with atomic_path(target) as partial:
            assert partial.name.endswith(".nii.gz")
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert json.loads(target.read_text()) == {"old": 1}
    assert [path.name for path in target.parent.iterdir()] == ["a.nii.gz"]


def test_written_file_is_readable_by_others_as_the_umask_says(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {})
    (tmp_path / "b.json").write_text("{}")
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "b.json").stat().st_mode


def test_nan_is_refused_in_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_same_tensors_give_the_same_bytes_whatever_the_name(tmp_path: Path) -> None:
    content = {"weight": torch.arange(6.0).reshape(2, 3), "config": {"levels": [2, 3]}}
    save_tensors(tmp_path / "a.pt", content)
    save_tensors(tmp_path / "other.pt", content)
    assert sha256_file(tmp_path / "a.pt") == sha256_file(tmp_path / "other.pt")
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    torch.testing.assert_close(loaded["weight"], content["weight"])
    assert loaded["config"] == {"levels": [2, 3]}


def test_manifest_records_sources_and_all_their_ancestors(tmp_path: Path) -> None:
    parent, child, grandchild = (tmp_path / name for name in ("a.pt", "b.pt", "c.pt"))
    for number, path in enumerate((parent, child, grandchild)):
        path.write_bytes(bytes([number]))
    write_manifest(parent, "segmentation_network")
    write_manifest(child, "style_flows", made_from={"network": parent})
    write_manifest(grandchild, "segmentation_network", made_from={"style_flows": child}, facts={"seed": 1})
    manifest = read_manifest(grandchild, kind="segmentation_network")
    assert manifest["ancestors"] == [sha256_file(child), sha256_file(parent)]
    assert manifest["made_from"]["style_flows"] == {"file": "b.pt", "sha256": sha256_file(child)}
    assert manifest["seed"] == 1
    assert check_same_sources(manifest, {"style_flows": child})
    assert not check_same_sources(manifest, {"style_flows": parent})


def test_changed_artifact_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"one")
    write_manifest(path, "segmentation_network")
    path.write_bytes(b"two")
    with pytest.raises(ValueError, match=r"model.pt: SHA-256 .* differs from .* in model.manifest.json"):
        read_manifest(path)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_manifest_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"one")
    (tmp_path / "model.manifest.json").write_text(content)
    with pytest.raises(ValueError, match=r"model\.manifest\.json: is no .*run its phase again"):
        read_manifest(path)


def test_folders_that_cannot_be_written_are_refused_and_none_is_made(tmp_path: Path) -> None:
    check_writable(output_dir=tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"--output_dir .*file.x: .*file is a file\. Give a folder"):
        check_writable(output_dir=tmp_path / "file" / "x")


def test_a_folder_without_permission_is_told_by_its_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # whoever is root may write anywhere
    with pytest.raises(ValueError, match=r"--prediction_dir .*x: .* cannot be written\. Give another folder"):
        check_writable(prediction_dir=tmp_path / "x")


def test_missing_files_and_wrong_kind_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises(FileNotFoundError, match=r"model.pt: no such file"):
        read_manifest(path)
    path.write_bytes(b"one")
    with pytest.raises(FileNotFoundError, match=r"model.manifest.json: no such file. Copy the manifest"):
        read_manifest(path)
    write_manifest(path, "style_flows")
    with pytest.raises(ValueError, match="this is a 'style_flows', expected a 'segmentation_network'"):
        read_manifest(path, kind="segmentation_network")


def test_manifest_stands_beside_its_artifact() -> None:
    assert manifest_path("x/model.pt") == Path("x/model.manifest.json")


def test_versions_and_commit_are_known() -> None:
    assert {"python", "torch", "monai"} <= set(software_versions())
    commit = git_commit()
    assert commit is None or len(commit.rstrip("+")) == 40
