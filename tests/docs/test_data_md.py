"""docs/data.md: its commands run on small releases, and what it says of the format is so."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import data_prep.phantom as phantom
import data_prep.prostate.dataset as prostate
from data_prep.__main__ import COMMANDS
from data_prep.__main__ import main as data_prep_main
from data_prep.folder_spec import load_spec
from data_prep.fundus.releases import RELEASES
from mixstyleflow_monai.data.dataset_description import load_dataset
from tests.data_prep.dicom import dicom_files
from tests.data_prep.fundus import fundus_builders
from tests.data_prep.prostate import prostate_releases

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
SITES = {"RUNMC": (0, 1), "BMC": (0,), "UCL": (26,)}


def blocks(language: str) -> list[str]:
    """Fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


LINES = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]


def lines_of(*commands: str) -> list[str]:
    return [line for line in LINES if line.split()[3] in commands]


def write_lesions(folder: Path) -> None:
    """Write what ``spec.yaml`` of the document describes."""
    (folder / "spec.yaml").write_text(blocks("yaml")[0])
    for number, site in enumerate(("hospital_a", "hospital_b")):
        (folder / "raw" / site / "masks").mkdir(parents=True)
        for case in range(5):
            values = np.random.default_rng([number, case]).integers(0, 256, (24, 20), dtype=np.uint8)
            Image.fromarray(values).save(folder / "raw" / site / f"{case}.png")
            mask = np.where(values > 120, 255, 0).astype(np.uint8)
            Image.fromarray(mask).save(folder / "raw" / site / "masks" / f"{case}.png")


def write_prostate(downloads: Path) -> None:
    release = prostate_releases.write_decathlon(downloads / "unpacked")
    prostate_releases.write_tar(release, downloads / "Task05_Prostate.tar")
    prostate_releases.write_sites(downloads / "six_sites", SITES)


def write_scans(folder: Path) -> None:
    """Write a series with two segments for each of four patients."""
    for number in range(4):
        place = folder / f"study{number}"
        series = dicom_files.write_series(place, patient=f"P{number}", seed=number)
        mask = np.zeros(dicom_files.SHAPE, dtype=np.uint8)
        mask[1:4, 2:9, 2:7], mask[2:3, 4:6, 3:5] = 1, 2
        dicom_files.write_seg(place / "seg.dcm", dicom_files.in_order(series), mask)


def run(line: str, *more: str) -> None:
    """Run one command of the document in process."""
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "data_prep"], line
    if words[3] == "check":
        more = ("--workers", "1")
    assert data_prep_main([*words[3:], *more]) == 0, line


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_is_in_the_table_and_has_a_line() -> None:
    listed = re.findall(r"^\| `([\w-]+)` \|", TEXT.split("##")[0], flags=re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)
    assert {line.split()[3] for line in LINES} == set(COMMANDS)


def test_your_own_data_in_ten_lines(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = blocks("yaml")[0]
    assert len(spec.splitlines()) <= 10
    write_lesions(workplace)
    for line in lines_of("folder", "check", "preview", "resplit"):
        if "scans" not in line:
            run(line)
    assert load_dataset("data/lesions").domains == ["hospital_a", "hospital_b"]
    assert load_dataset("data/lesions_from_b").domains == ["hospital_b", "hospital_a"]
    assert json.loads(Path("report.json").read_text())["errors"] == 0
    pictures = ["cases_hospital_a.png", "cases_hospital_b.png", "intensities.png"]
    assert sorted(path.name for path in Path("pictures").iterdir()) == pictures
    assert Path("data/lesions/preview").is_dir()


def test_phantom_and_links(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(phantom.TASKS["fundus"], "source_cases", 3)
    monkeypatch.setitem(phantom.TASKS["fundus"], "unseen_cases", 1)
    for line in lines_of("phantom", "download-links"):
        run(line)
    assert len(load_dataset("data/phantom").unseen_domains) == 3


def test_prostate_releases(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_prostate(workplace / "downloads")

    def verified(folder: str) -> Path:
        return Path(folder) / "Task05_Prostate.tar"

    monkeypatch.setattr(prostate, "download_decathlon", verified)
    lines = lines_of("prostate")
    assert len(lines) == 4
    for line in lines:
        run(line)
    whole, tenth = load_dataset("data/prostate"), load_dataset("data/prostate_10")
    assert [len(whole.select(split, "decathlon")) for split in ("train", "validation", "test")] == [22, 3, 7]
    assert [len(tenth.select(split, "decathlon")) for split in ("train", "validation", "test")] == [2, 3, 7]
    assert whole.unseen_domains == sorted(SITES)
    resampled = load_dataset("data/prostate_resampled").cases[0]
    assert resampled.spacing == pytest.approx((0.625, 0.625, 3.6))
    run("python -m data_prep check data/prostate")


@pytest.mark.parametrize(
    ("folder", "build"),
    [
        ("five_domain", fundus_builders.five_domain),
        ("riga_plus", fundus_builders.riga_plus),
        ("dofe", fundus_builders.dofe),
        ("refuge", fundus_builders.refuge),
        ("drishti_gs", fundus_builders.drishti),
    ],
)
def test_fundus_releases(folder: str, build: Callable[[Path], None], workplace: Path) -> None:
    (line,) = [line for line in lines_of("fundus") if f"downloads/{folder} " in line]
    build(workplace / "downloads" / folder)
    run(line)
    made = load_dataset(shlex.split(line)[-1])
    assert made.regions == {"disc": [1, 2], "cup": [2]}
    assert set(made.processing["split"]) == {"train", "validation", "test", "seed"}


def test_dicom_then_folder(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scans(workplace / "downloads" / "scans")
    first, second = [line for line in lines_of("dicom", "folder") if "scans" in line]
    run(first)
    spec = blocks("yaml")[1]
    # The command prints the very lines that the document shows.
    assert spec in capsys.readouterr().out
    Path("data/scans/spec.yaml").write_text(spec)
    run(second)
    made = load_dataset("data/scans_set")
    assert len({case.group for case in made.cases}) == len(made.cases) == 4


def test_all_lines_are_run_by_one_of_the_tests() -> None:
    tested = [*lines_of("folder", "check", "preview", "resplit", "phantom", "download-links", "prostate", "dicom")]
    tested += [line for line in lines_of("fundus") if re.search(r"--root downloads/\w+ ", line)]
    assert sorted(tested) == sorted(LINES)


def test_the_example_of_the_format_is_valid_and_complete(tmp_path: Path) -> None:
    (text,) = blocks("json")
    content: dict[str, Any] = json.loads(text)
    (tmp_path / "dataset.json").write_text(text)
    for case in content["cases"]:
        for kind in ("image", "label"):
            path = tmp_path / case[kind]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    description = load_dataset(tmp_path)
    assert description.unseen_domains == ["hospital_b"]
    assert {case.split for case in description.select(domain="hospital_a")} == {"train", "validation", "test"}
    schema = json.loads((ROOT / "mixstyleflow_monai/data/dataset_schema.json").read_text())
    known = {*schema["properties"], *schema["$defs"]["case"]["properties"]}
    assert set(content) == set(schema["properties"])
    table = re.search(r"\| key \| meaning \|\n(?:\|.*\n)+", TEXT)
    assert table is not None
    cells = [row.split("|")[1] for row in table[0].splitlines()[2:]]
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == known


@pytest.mark.parametrize("number", range(2))
def test_the_descriptions_are_valid(number: int, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(blocks("yaml")[number])
    assert load_spec(path).source_domain in yaml.safe_load(path.read_text())["domains"]


def test_the_table_of_fundus_releases_has_all_of_them() -> None:
    listed = re.findall(
        r"^\| `(\w[\w-]+)` \| .* \| .* \| (.*) \|$", TEXT.split("### Optic disc and cup")[1], re.MULTILINE
    )
    codings = dict(listed)
    assert list(codings) == [release.name for release in RELEASES]
    for name in ("five-domain", "riga-plus", "refuge"):
        (release,) = [release for release in RELEASES if release.name == name]
        assert sorted(codings[name].split(", ")) == sorted(release.coding.meaning.split(", "))


def test_links_and_files_that_are_named_exist() -> None:
    named = re.findall(r"`(data_prep/\S+\.yaml)`", TEXT)
    assert named
    assert all((ROOT / path).is_file() for path in named)
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / "docs" / target).exists()
