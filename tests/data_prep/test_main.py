"""The command line of data_prep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.__main__ import COMMANDS, main
from mixstyleflow_monai.data.dataset_description import load_dataset

SPEC = """
name: tiny
spatial_dims: 2
regions: {thing: [1]}
source_domain: "1"
domains:
  "1": {images: one/*.png, labels: "one/labels/{stem}.png"}
  "2": {images: two/*.png, labels: "two/labels/{stem}.png"}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """Spec beside two domains of four images each, whose names are numbers as users may choose them."""
    for number, domain in enumerate(("one", "two")):
        (tmp_path / domain / "labels").mkdir(parents=True)
        for case in range(4):
            values = np.random.default_rng([number, case]).integers(0, 255, (6, 6), dtype=np.uint8)
            Image.fromarray(values).save(tmp_path / domain / f"{case}.png")
            Image.fromarray((values > 128).astype(np.uint8)).save(tmp_path / domain / "labels" / f"{case}.png")
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return path


def test_without_a_command_all_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in COMMANDS)


def test_folder_then_resplit(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = spec.parent / "first", spec.parent / "second"
    assert main(["folder", str(spec), "--output", str(first)]) == 0
    printed = capsys.readouterr().out
    assert "written:" in printed
    assert "validation" in printed
    assert load_dataset(first).domains == ["1", "2"]
    assert main(["resplit", str(first), "--source", "2", "--output", str(second), "--seed", "1"]) == 0
    assert load_dataset(second).domains == ["2", "1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["folder", "{spec}", "--output", "{out}", "--rot", "."],
            "folder has no option '--rot', .* did you mean 'root'",
        ),
        (["flder"], "no command 'flder', allowed: folder, prostate, .*, download-links; did you mean 'folder'"),
        (["folder", "none.yaml", "--output", "{out}"], "none.yaml: no such spec"),
        (["folder", "{spec}", "--root", "none", "--output", "{out}"], "--root none: no such folder"),
        (["resplit", "{out}", "--source", "2", "--output", "x"], r"dataset\.json: no such file"),
        (["resplit", "{out}", "--source", "2", "--output", "x", "--seed", "a"], "--seed: found 'a', allowed: a whole"),
        (["folder", "{spec}", "--output"], "--output has no value; give one, as in --output NAME"),
        (["folder", "{spec}", "--output="], "--output has no value"),
        (["folder", "--output", "--spec", "{spec}"], "--output has no value"),
        (["folder", "{spec}", "{out}", "--root"], "--root has no value"),
        (["phantom", "fundus", "{out}", "--seed"], "--seed has no value; give one, as in --seed 1"),
        (["folder", "{spec}", "{out}", ".", "more", "words"], "'more' 'words' is too much: .* only spec, output, root"),
        (["folder", "{spec}", "{out}", "x", "--root", "."], "'x' is too much: .* takes only spec, output here"),
        (["download-links", "all"], "'all' is too much: without a flag it takes nothing here"),
        (["folder", "{spec}", "-output", "{out}"], "folder has no option '-output', allowed: --spec.*"),
        (["folder", "{spec}", "-o", "{out}"], "folder has no option '-o', allowed"),
        (["folder", "{spec}", "{out}", "-v"], "folder has no option '-v', allowed"),
        (["folder", "{spec}", "{out}", "-"], "folder has no option '-', allowed"),
        (["folder", "{spec}", "{out}", "--", "--trace"], "folder has no option '--', allowed"),
        (["folder", "{spec}", "--output", "{out}", "--output", "x"], "--output is given twice; remove one"),
        (["prostate", "{out}", "--noresample"], "prostate has no option '--noresample', .* did you mean 'resample'"),
        (["prostate", "--resample", "{out}"], "--resample: found .*out'; it stands alone, or with true or false"),
    ],
)
def test_a_mistake_is_one_message_and_exit_status_1(
    words: list[str], message: str, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = spec.parent / "out"
    assert main([word.format(spec=spec, out=out) for word in words]) == 1
    assert not out.exists()
    printed = capsys.readouterr().err
    with pytest.raises(ValueError, match=rf"^error: .*{message}"):
        raise ValueError(printed[printed.index("error: ") :])


@pytest.mark.parametrize("name", ["2024_05_01", "1e3", "a,b", "True", "None", "007", "0x10", "[1]", "'x'", "-1", "x#y"])
def test_a_folder_gets_the_name_that_was_given(name: str, spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(spec.parent)
    before = {path.name for path in spec.parent.iterdir()}
    assert main(["folder", "spec.yaml", "--output", name]) == 0
    assert {path.name for path in spec.parent.iterdir()} - before == {name}
    assert main(["resplit", name, "2", f"--output={name}/again"]) == 0
    assert load_dataset(f"{name}/again").source_domain == "2"


def test_numbers_switches_and_tuples_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}
    monkeypatch.setattr(
        "data_prep.prostate.dataset.make_prostate_dataset",
        lambda output, **options: seen.update(options, output=output),
    )
    words = ["prostate", "1.0", "--decathlon", "5", "--train-fraction", "0.3", "--spacing", "1,1,3.5"]
    assert main([*words, "--resample"]) == 0
    assert seen == {
        "output": "1.0",
        "decathlon": "5",
        "sites": None,
        "download": None,
        "train_fraction": 0.3,
        "resample": True,
        "spacing": (1, 1, 3.5),
    }
    assert main([*words, "--resample=false"]) == 0
    assert seen["resample"] is False


@pytest.mark.parametrize("words", [["--help"], ["x", "--output", "y", "-h"], ["--", "--help"], ["--rot", "--help"]])
def test_help_is_given_wherever_it_is_asked_for(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["folder", *words])
    assert end.value.code == 0
    printed = capsys.readouterr()
    assert "folder to make; must be absent or empty" in printed.out + printed.err
    assert "FIRE" not in printed.out + printed.err


def test_the_module_runs_as_a_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "data_prep", "folder", "none.yaml", "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=Path(__file__).resolve().parents[2])
    assert done.returncode == 1
    assert done.stderr.startswith("error: none.yaml: no such spec")
    assert "Traceback" not in done.stderr
