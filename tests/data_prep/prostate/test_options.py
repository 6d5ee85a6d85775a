"""Options of the prostate import, its mistakes and its command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data_prep.__main__ import main
from mixstyleflow_monai.data.dataset_description import load_dataset
from tests.data_prep.prostate.prostate_releases import import_releases, write_tar


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decathlon": None}, r"--decathlon, --download: neither given; give the release with --decathlon"),
        ({"download": "folder"}, r"--decathlon, --download: both given"),
        ({"decathlon": True}, r"--decathlon: a path must follow it, such as `--decathlon data/prostate`"),
        ({"decathlon": None, "download": True}, r"--download: a path must follow it"),
        ({"sites": True}, r"--sites: a path must follow it"),
        ({"resample": "yes"}, r"--resample: found 'yes', allowed: --resample alone, with no value\.$"),
        ({"spacing": 0.625}, r"--spacing: found 0\.625, allowed: three sizes from 0\.05 to 20 mm, left-right"),
        ({"spacing": (0.6, 0.6)}, r"--spacing: found \(0\.6, 0\.6\), allowed"),
        ({"spacing": (0.6, -0.6, 3)}, r"--spacing: found .*, allowed"),
        ({"spacing": "0.6,0.6,3.6mm"}, r"--spacing: found '0\.6,0\.6,3\.6mm', allowed"),
        ({"spacing": (0.6, float("nan"), 3)}, r"--spacing: found .*nan.*, allowed"),
        ({"spacing": (0.6, 0.6, 1e-6), "resample": True}, r"--spacing: found .*, allowed: three sizes from 0\.05"),
        (
            {"spacing": (0.6, 0.6, 21), "resample": True},
            r"--spacing: found .*, allowed: three sizes from 0\.05 to 20 mm",
        ),
        (
            {"spacing": (0.5, 0.5, 3)},
            r"--spacing 0\.5,0\.5,3: it has no effect without --resample.* Add --resample, or .*--pixel_spacing",
        ),
        ({"train_fraction": 0}, r"--train_fraction: found 0, allowed: a share above 0"),
        ({"train_fraction": 9}, r"--train_fraction 9: that is 9 of 4 training patients; .* from 2 to 4"),
        ({"sites": "nowhere"}, r"--sites nowhere: no such folder"),
        ({"decathlon": "nowhere"}, r"--decathlon nowhere: no such file or folder"),
    ],
)
def test_each_mistake_is_named_before_any_work(
    options: dict[str, Any], message: str, root: Path, tmp_path: Path
) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        import_releases(root, tmp_path / "out", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_output_with_content_is_refused(root: Path, tmp_path: Path) -> None:
    import_releases(root, tmp_path / "out")
    with pytest.raises(ValueError, match=r"--output .*out: exists and is not an empty folder"):
        import_releases(root, tmp_path / "out")


def test_a_download_takes_the_place_of_the_release(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def download(folder: Path) -> Path:
        asked.append(folder)
        folder.mkdir()
        return write_tar(root / "Task05_Prostate", folder / "Task05_Prostate.tar")

    monkeypatch.setattr("data_prep.prostate.dataset.download_decathlon", download)
    fetched, _ = import_releases(root, tmp_path / "out", decathlon=None, download=tmp_path / "cache")
    assert asked == [tmp_path / "cache"]
    assert json.loads(fetched.path.read_text()) == json.loads(
        import_releases(root, tmp_path / "other")[0].path.read_text()
    )


@pytest.mark.parametrize(
    ("flags", "cases"),
    [(("--resample",), 18), (("--train_fraction", "2"), 16), (("--resample", "--spacing", "0.5,0.5,3"), 18)],
)
def test_the_command_line(
    flags: Sequence[str], cases: int, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prostate", "--decathlon", str(root / "Task05_Prostate"), "--sites", str(root / "sites")]
    assert main([*words, "--output", str(tmp_path / "out"), *flags]) == 0
    assert len(load_dataset(tmp_path / "out").cases) == cases
    assert "written: " in capsys.readouterr().out
    assert main([*words, "--output", str(tmp_path / "out")]) == 1
    assert "error: --output" in capsys.readouterr().err
