"""The command line: paths stay what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mixstyleflow_monai.cli import main


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "rnu --dataset_dir D",
            "no command 'rnu', allowed: run, evaluate, report, benchmark, pack; did you mean 'run'",
        ),
        ("run --dataset_dir D --output_dir", "--output_dir has no value"),
        ("pack --bundle B --weights W --version 2", "pack has no option '--version', allowed: --bundle, --weights"),
        ("pack --bundle B --weights W --overwrit", "pack has no option '--overwrit', .*did you mean 'overwrite'"),
        ("pack --bundle B --weights W --overwrite maybe", "--overwrite: found 'maybe'; it stands alone"),
        ("run D --output_dir O more", "'more' is too much"),
        ("benchmark --dataset_dir D --output_dir O --seeds 0 1 2", "'1' '2' is too much: .* as in 0,1,2"),
        ("pack --bundle B --weights W --exports ts pt2", "'pt2' is too much"),
    ],
)
def test_words_without_a_place_are_told_before_anything_is_done(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 1
    assert re.match(rf"error: .*{message}", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["run", "benchmark"])
def test_hash_in_a_path_is_refused(
    command: str, shared_squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([command, "--dataset_dir", str(shared_squares), "--output_dir", str(tmp_path / "a#1")])
    assert code == 1
    assert "MONAI's configurations read # as ::" in capsys.readouterr().err
    assert not list(tmp_path.glob("a*"))


@pytest.fixture(scope="module")
def shared_squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny data set."""
    from tests.benchmark.squares import tiny_dataset

    return tiny_dataset(tmp_path_factory.mktemp("cli") / "squares")


@pytest.mark.parametrize("words", [[], ["help"], ["--help"]])
def test_without_a_command_they_are_listed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    printed = capsys.readouterr().out
    for name in ("run", "evaluate", "report", "benchmark", "pack"):
        assert f"  {name} " in printed


@pytest.mark.parametrize("command", ["run", "benchmark", "evaluate"])
def test_help_of_a_command_is_no_mistake(command: str) -> None:
    assert main([command, "--help"]) == 0
