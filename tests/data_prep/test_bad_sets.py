"""Mistakes that no single file shows, through the real commands `folder` and `check`."""

from __future__ import annotations

import builtins
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from PIL import Image

from data_prep.check import check_dataset
from mixstyleflow_monai.data import check_headers, load_dataset
from tests.data_prep import bad_files as bad
from tests.data_prep.bad_files import left_out, run

Change = Callable[[Path], object]


def problems(data: Path, status: int, folder: Path) -> list[dict[str, str]]:
    """Run `check` and return what it reports."""
    report = folder / "report.json"
    assert run("check", data, "--workers", 1, "--fix-report", report) == status
    found: list[dict[str, str]] = json.loads(report.read_text())["problems"]
    return found


def pixels(path: Path, mode: str | None = None) -> Any:
    with Image.open(path) as image:
        return np.array(image if mode is None else image.convert(mode))


def edit_spec(change: Callable[[dict[str, Any]], object]) -> Change:
    def edit(root: Path) -> None:
        content = yaml.safe_load((root / "spec.yaml").read_text())
        change(content)
        (root / "spec.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    return edit


def write_twice(key: str) -> Change:
    """Give the key of the first domain to the second one as well."""
    return lambda root: (root / "spec.yaml").write_text(
        (root / "spec.yaml").read_text().replace("  away:", f"  {key}:")
    )


def blacken(*domains: str) -> Change:
    def change(root: Path) -> None:
        for domain in domains:
            for path in (root / domain / "masks").iterdir():
                Image.new("L", (20, 24)).save(path)

    return change


def same_ids(root: Path) -> None:
    """Make the domains `home` and `home_p`, and the cases `p_1` and `1`."""
    for kind in ("images", "masks"):
        (root / "home" / kind / "p0.png").rename(root / "home" / kind / "p_0.png")
        (root / "away" / kind / "p0.png").rename(root / "away" / kind / "0.png")
    edit_spec(lambda content: content["domains"].update({"home_p": content["domains"].pop("away")}))(root)


def empty(root: Path) -> None:
    for path in (root / "away" / "images").iterdir():
        path.unlink()


def numbers_and_text(root: Path) -> None:
    spec = root / "spec.yaml"
    spec.write_text(spec.read_text().replace("  home:", "  1:").replace("  away:", "  '1':").replace("home", "'1'", 1))


SETS: dict[str, tuple[Change, str]] = {
    "domain named twice": (
        write_twice("home"),
        r"spec\.yaml: not valid YAML: line 11: key 'home' is given twice; remove",
    ),
    "number and text": (numbers_and_text, r"spec\.yaml: not valid YAML: line 11: key '1' is given twice; remove one"),
    "list as key": (
        lambda root: (root / "spec.yaml").write_text("[a, b]: 1\n"),
        r"spec\.yaml: not valid YAML: line 1: a list or mapping cannot be a key; put the text in quotes",
    ),
    "empty folder": (
        empty,
        r"spec\.yaml: domains\.away\.images: 'away/images/\*' matches no file under .*root; correct the pattern",
    ),
    "duplicate ids": (
        same_ids,
        r"home/images/p_0\.png \(domain home\) and .*away/images/0\.png \(domain home_p\) both get the case id "
        r"'home_p_0'; rename one of the domains or files",
    ),
    "background only": (
        blacken("home", "away"),
        r"regions\.organ: no label of the source domain home has one of its values \[1\].*first label is "
        r".*home/masks/p0\.png\. Correct `label_values`",
    ),
    "background in an unseen domain": (
        blacken("away"),
        r"domains\.away: all of its 2 labels are background only.*away/masks/p0\.png\. Correct `label_values`",
    ),
    "one domain twice under two names": (
        edit_spec(lambda content: content["domains"].update(away=content["domains"]["home"])),
        r"domains\.away: none of its 5 images can be used: .*identical to 'p0' of the domain home.*remove the domain",
    ),
    "pattern": (
        edit_spec(lambda content: content["domains"]["home"].update(images="home**/p.png")),
        r"domains\.home\.images: 'home\*\*/p\.png' .*; correct",
    ),
    "name that is not UTF-8": (
        lambda root: os.rename(root / "home/images/p0.png", os.fsencode(root) + b"/home/images/p\xff.png"),
        r"domains\.home\.images: '.*p\\udcff\.png' has a name that is not UTF-8; rename the file",
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_folder_stops_with_one_message_and_leaves_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = SETS[name]
    bad.make_pictures(tmp_path / "root")
    change(tmp_path / "root")
    before = bad.contents(tmp_path)
    assert run("folder", tmp_path / "root" / "spec.yaml", "--output", tmp_path / "out") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert re.search(message, line)
    assert bad.contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_a_spec_without_permission_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = bad.make_pictures(tmp_path / "root")
    genuine = Path.read_text

    def refuse(path: Path, *arguments: Any, **options: Any) -> str:
        if path == spec:
            raise PermissionError(13, "Permission denied", str(path))
        return genuine(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert run("folder", spec, "--output", tmp_path / "out") == 1
    assert f"error: {spec}: cannot be read (Permission denied); check its permissions" in capsys.readouterr().err


@pytest.mark.parametrize(("make", "folder"), [(bad.make_pictures, "home/images"), (bad.make_volumes, "home/p1")])
def test_a_folder_without_permission_is_not_skipped(
    make: Callable[[Path], Path],
    folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec, genuine = make(tmp_path / "root"), os.access
    forbidden = tmp_path / "root" / folder
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != forbidden and genuine(path, mode))
    assert run("folder", spec, "--output", tmp_path / "out") == 1
    assert f"{forbidden}: permission denied, chmod u+rx gives it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [bad.make_pictures, bad.make_volumes])
def test_names_with_spaces_letters_of_all_kinds_and_brackets_work(make: Callable[[Path], Path], tmp_path: Path) -> None:
    root, data = tmp_path / "Prüfung [1] – 前立腺 (neu)", tmp_path / "Daten [b] 1"
    spec = make(root)
    for path in sorted(root.rglob("p[0-9]*")):
        path.rename(path.with_name(path.name.replace("p", "Fall [ü] ", 1)))
    assert run("folder", spec, "--output", data) == 0
    description = load_dataset(data)
    assert len(description.cases) == 7
    assert all("Fall [ü]" in case.id for case in description.cases)
    check_headers(description)
    assert problems(data, 0, tmp_path) == []
    bad.cut_off(description.cases[0].image)
    (problem,) = problems(data, 1, tmp_path)
    assert problem["case"] == description.cases[0].id


def test_names_in_brackets_are_printed_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = bad.make_pictures(tmp_path)
    (tmp_path / "home" / "images" / "p1.png").rename(tmp_path / "home" / "images" / "[red]1.png")
    assert run("folder", spec, "--output", tmp_path / "out") == 0
    assert "[red]1.png" in capsys.readouterr().out


def test_indexed_labels_are_read_by_index(tmp_path: Path) -> None:
    spec = bad.make_pictures(tmp_path / "root")
    path = tmp_path / "root" / "home" / "masks" / "p1.png"
    values = pixels(path)
    bad.save_as("PNG", bad.to_palette)(path)
    assert pixels(path, "RGB").max() == 200
    assert run("folder", spec, "--output", tmp_path / "out") == 0
    data = load_dataset(tmp_path / "out")
    case = next(case for case in data.cases if case.id == "home_p1")
    np.testing.assert_array_equal(pixels(case.label), values)
    case.label.write_bytes(path.read_bytes())
    (problem,) = problems(tmp_path / "out", 1, tmp_path)
    assert "sha256 differs" in problem["fault"]


def test_indexed_images_are_colours_for_folder_and_an_error_for_training(tmp_path: Path) -> None:
    spec = bad.make_pictures(tmp_path / "root")
    path = tmp_path / "root" / "home" / "images" / "p1.png"
    bad.save_as("PNG", lambda image: image.convert("P"), transparency=bytes(10))(path)
    assert run("folder", spec, "--output", tmp_path / "out") == 0
    case = load_dataset(tmp_path / "out").cases[1]
    np.testing.assert_array_equal(pixels(case.image), pixels(path, "RGBA")[..., :3])
    case.image.write_bytes(path.read_bytes())
    faults = [problem["fault"] for problem in problems(tmp_path / "out", 1, tmp_path)]
    assert any("has indexed colours" in fault for fault in faults)


def test_a_volume_of_one_slice_is_taken_and_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = bad.make_volumes(tmp_path / "root")
    for name in ("t2.nii.gz", "seg.nii.gz"):
        bad.change_voxels(lambda values: values[:, :, 1:2])(tmp_path / "root" / "home" / "p1" / name)
    assert run("folder", spec, "--output", tmp_path / "out") == 0
    assert left_out(tmp_path / "out") == []
    capsys.readouterr()
    found = problems(tmp_path / "out", 0, tmp_path)
    assert {problem["file"] for problem in found} == {"images/home/p1_t2.nii.gz", "labels/home/p1_t2.nii.gz"}
    assert {problem["severity"] for problem in found} == {"warning"}
    assert {problem["fault"] for problem in found} == {"has a single slice along axis 2 (shape (8, 7, 1))"}
    assert "0 errors, 2 warnings" in capsys.readouterr().out
    check_headers(load_dataset(tmp_path / "out"))


@pytest.mark.parametrize("suffix", [".nii.bz2", ".txt", ".mgz"])
def test_volumes_of_another_suffix_are_reported(suffix: str, tmp_path: Path) -> None:
    spec = bad.make_volumes(tmp_path / "root")
    folder = tmp_path / "root" / "home" / "p1"
    (folder / "t2.nii.gz").rename(folder / f"t2{suffix}")
    spec.write_text(spec.read_text().replace("t2.nii.gz", "t2.*"))
    assert run("folder", spec, "--output", tmp_path / "out") == 0
    (row,) = left_out(tmp_path / "out")
    assert row["reason"] == f"t2{suffix} is not named .nii or .nii.gz"
    assert row["remedy"] == "convert it to NIfTI, or correct `images`"


@pytest.mark.parametrize("kind", ["NIfTI", "uncompressed huge claim"])
def test_uncompressed_volumes_are_compared_with_their_size(kind: str, tmp_path: Path) -> None:
    spec = bad.make_volumes(tmp_path / "root")
    folder = tmp_path / "root" / "home" / "p1"
    if kind != "NIfTI":
        bad.HUGE(folder / "t2.nii.gz")
    bad.unpack(folder / "t2.nii.gz")
    (folder / "t2.nii.gz").rename(folder / "t2.nii")
    spec.write_text(spec.read_text().replace("t2.nii.gz", "t2.nii*"))
    assert run("folder", spec, "--output", tmp_path / "out") == 0
    reasons = [row["reason"] for row in left_out(tmp_path / "out")]
    if kind == "NIfTI":
        assert reasons == []
        assert problems(tmp_path / "out", 0, tmp_path) == []
    else:
        claim = "claims shape (30000, 30000, 30000), 54,000,000,000,352 bytes"
        assert reasons == [f"t2.nii {claim}, and the file of 912 bytes cannot hold them"]


def test_labels_of_4_dimensions_and_a_flat_volume_are_reported(tmp_path: Path) -> None:
    spec = bad.make_volumes(tmp_path / "root")
    home = tmp_path / "root" / "home"
    bad.change_voxels(lambda values: values[..., None])(home / "p0" / "seg.nii.gz")
    flat = nib.Nifti1Image(np.ones((8, 7), np.int16), bad.AFFINE)
    nib.save(flat, home / "p1" / "t2.nii.gz")
    assert run("folder", spec, "--output", tmp_path / "out") == 0
    assert [row["reason"] for row in left_out(tmp_path / "out")] == [
        "seg.nii.gz has 4 dimensions (8, 7, 5, 1), expected 3; split it",
        "t2.nii.gz has 2 dimensions (8, 7), expected 3; split it",
    ]


def test_an_earlier_report_is_kept_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = bad.make_pictures(tmp_path / "root")
    assert run("folder", spec, "--output", tmp_path / "out") == 0
    bad.cut_off(load_dataset(tmp_path / "out").cases[0].image)
    assert run("check", tmp_path / "out", "--workers", 1, "--fix-report", tmp_path / "report.json") == 1
    genuine = builtins.open

    def fail(file: Any, *arguments: Any, **options: Any) -> Any:
        if ".partial-" in str(file):
            raise OSError(28, "No space left on device", str(file))
        return genuine(file, *arguments, **options)

    monkeypatch.setattr(builtins, "open", fail)
    before = bad.contents(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        check_dataset(tmp_path / "out", workers=1, fix_report=tmp_path / "report.json")
    assert bad.contents(tmp_path) == before


def test_a_label_whose_name_only_looks_the_same_is_pointed_out(tmp_path: Path) -> None:
    spec = bad.make_pictures(tmp_path / "root")
    masks = tmp_path / "root" / "home" / "masks"
    (masks / "p1.png").rename(masks / "P1.PNG")
    assert run("folder", spec, "--output", tmp_path / "out") == 0
    (row,) = left_out(tmp_path / "out")
    assert (
        row["reason"]
        == "no label home/masks/p1.png, but P1.PNG (other upper and lower case, or accents written otherwise)"
    )


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("home\\images\\*", r"Write / between folders\.$"),
        ("root/home/images/*", r"It matches files under \S+: is that the root\?$"),
        ("home/photos/*", r"correct the pattern, or --root\.$"),
    ],
)
def test_a_pattern_that_matches_nothing_has_a_hint(
    pattern: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = bad.make_pictures(tmp_path / "root")
    edit_spec(lambda content: content["domains"]["home"].update(images=pattern))(tmp_path / "root")
    assert run("folder", spec, "--output", tmp_path / "out") == 1
    assert re.search(hint, capsys.readouterr().err.strip())


def test_a_label_in_the_transparency_stops_the_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = bad.make_pictures(tmp_path / "root")
    path = tmp_path / "root" / "home" / "masks" / "p1.png"
    label = pixels(path)
    Image.fromarray(np.dstack([0 * label, 0 * label, 0 * label, 255 * label])).save(path)
    assert run("folder", spec, "--output", tmp_path / "out") == 1
    assert f"{path}: label of mode RGBA is transparent in places, expected one value" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
