"""The command line: paths stay what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixstyleflow_monai.cli import PATHS, check_words, main, quote_paths


@pytest.mark.parametrize("value", ["a#1", "2026", "a,b", "run ä", "it's", "[1]", "true"])
@pytest.mark.parametrize("form", ["apart", "joined"])
def test_path_is_quoted_and_other_options_are_not(value: str, form: str) -> None:
    words = ["--output_dir", value] if form == "apart" else [f"--output-dir={value}"]
    quoted = quote_paths(["run", *words, "--max_epochs", "3", "--image_size=[32,32]"])
    assert eval(quoted[2] if form == "apart" else quoted[1].partition("=")[2]) == value
    assert quoted[-3:] == ["--max_epochs", "3", "--image_size=[32,32]"]


def test_option_without_a_value_is_left_for_fire_to_refuse() -> None:
    assert quote_paths(["run", "--output_dir", "--baseline"]) == ["run", "--output_dir", "--baseline"]
    assert quote_paths(["run", "--output_dir"]) == ["run", "--output_dir"]
    assert "output_dir" in PATHS


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run --dataset_dir D --baseline false", "run --dataset_dir D --baseline False"),
        ("run --dataset_dir D --baseline=TRUE", "run --dataset_dir D --baseline=True"),
        ("run --baseline --seed 3", "run --baseline --seed 3"),
        ("pack B --weights W --overwrite false", "pack B --weights W --overwrite False"),
        ("benchmark D OUT --seeds 0,1 --resume false", "benchmark D OUT --seeds 0,1 --resume false"),
        ("run --help", "run --help"),
        ("nothing 1 2", "nothing 1 2"),
        ("run D OUT --learning_rate -1", "run D OUT --learning_rate -1"),
    ],
)
def test_switches_are_what_they_say(line: str, expected: str) -> None:
    assert check_words(line.split()) == expected.split()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pack --bundle B --weights W --version 2", "--version: no such option, allowed: bundle, weights"),
        ("pack --bundle B --weights W --overwrit", "--overwrit: no such option, .*did you mean 'overwrite'"),
        ("pack --bundle B --weights W --overwrite maybe", "--overwrite: found 'maybe'; it stands alone"),
        ("benchmark --dataset_dir D --output_dir O --seeds 0 1 2", "'1' '2': to which option.* as in 0,1,2"),
        ("run D --output_dir O more", "'more': to which option"),
    ],
)
def test_words_without_a_place_are_told_before_anything_is_done(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        check_words(line.split())
    assert main(line.split()) == 1
    assert "error: " in capsys.readouterr().err
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
