"""The commands `evaluate` and `report` on a finished run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mixstyleflow_monai import bundle_runs, pipeline
from mixstyleflow_monai.cli import main
from mixstyleflow_monai.data import load_dataset
from mixstyleflow_monai.evaluate_run import evaluate, report
from mixstyleflow_monai.report.run_report import GENERATOR
from tests.small_dataset import SMALL, make_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, a run of phase 1 on it, and the data set of another site, which has a source domain of its own."""
    folder = tmp_path_factory.mktemp("evaluate")
    make_dataset(folder / "data")
    other = make_dataset(folder / "other")
    content = json.loads((other / "dataset.json").read_text())
    content["source_domain"] = "elsewhere"
    for number, case in enumerate(content["cases"]):
        case["domain"] = "elsewhere"
        image = other / case["image"]
        image.write_bytes(image.read_bytes() + bytes([number]))  # another file, of the same pixels
    (other / "dataset.json").write_text(json.dumps(rehashed(content, other)))
    pipeline.run(str(folder / "data"), str(folder / "run"), phases=1, **SMALL)
    return folder


def rehashed(content: dict[str, Any], place: Path) -> dict[str, Any]:
    for case in content["cases"]:
        case["sha256"]["image"] = bundle_runs.sha256_file(place / case["image"])
    return content


@pytest.mark.slow
def test_every_case_of_another_site_is_unseen(folder: Path, tmp_path: Path) -> None:
    before = (folder / "run" / "evaluation.json").read_bytes()
    out = tmp_path / "out"
    words = ["--run_dir", str(folder / "run"), "--dataset_dir", str(folder / "other"), "--output_dir", str(out)]
    assert main(["evaluate", *words, "--split", "all", "--device", "cpu"]) == 0
    (record,) = json.loads((out / "evaluation.json").read_text())
    count = len(load_dataset(folder / "other").cases)
    assert {name: (d["role"], d["n"]) for name, d in record["domains"].items()} == {"elsewhere": ("unseen", count)}
    assert record["source_mean_dice"] is None
    assert (record["split"], record["phase"]) == ("all", 1)
    assert GENERATOR in (out / "report.html").read_text()
    assert (folder / "run" / "evaluation.json").read_bytes() == before


@pytest.mark.slow
def test_a_finished_evaluation_is_not_made_again_and_another_one_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"run_dir": str(folder / "run"), "dataset_dir": str(folder / "data"), "output_dir": str(tmp_path / "out")}
    evaluate(**options)
    own = json.loads((folder / "run" / "evaluation.json").read_text())
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == own
    monkeypatch.setattr(bundle_runs, "run_bundle", lambda files, settings: pytest.fail(f"ran {files} again"))
    evaluate(**options)
    with pytest.raises(ValueError, match=r"holds another evaluation \(split: was test, now validation\)"):
        evaluate(**options, split="validation")
    # One training's folder is as good as the run's.
    with pytest.raises(pytest.fail.Exception, match=r"ran .*evaluate"):
        evaluate(str(folder / "run" / "phase1"), str(folder / "data"), str(tmp_path / "one"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "tset"}, r"--split tset: allowed: train, validation, test, all; did you mean 'test'\?"),
        ({"run_dir": "other"}, r"--run_dir .*other: no trained network in phase1, phase3, baseline, nor in models"),
        ({"output_dir": "run"}, r"--output_dir .*run: holds the run's own evaluation"),
        ({"output_dir": "run/phase1"}, r"--output_dir .*phase1: holds the run's own evaluation"),
        ({"dataset_dir": "data", "split": "all"}, r"cases, among them .*, were trained on or validated with by"),
        ({"split": "test"}, r"trained on source domain .*give --split all"),
        ({"output_dir": "mine"}, r"mine/evaluation.csv: is there, and not of this command"),
        ({"output_dir": "page"}, r"report.html: is there, and is no report of a run"),
    ],
)
def test_mistakes_are_told_before_the_work(
    changes: dict[str, str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, file in (("mine", "evaluation.csv"), ("page", "report.html")):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / file).write_text("mine")
    monkeypatch.setattr(bundle_runs, "run_bundle", lambda files, settings: pytest.fail(f"ran {files}"))
    places = {"run_dir": "run", "dataset_dir": "other", "output_dir": "out", "split": "all", **changes}
    split = places.pop("split")
    with pytest.raises(ValueError, match=message):
        evaluate(**{name: str(folder / place) for name, place in places.items()}, split=split)


@pytest.mark.slow
def test_a_report_is_made_anew_and_elsewhere_but_not_over_a_file_of_the_user(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    assert main(["report", "--run_dir", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "report.html").read_text() == (folder / "run" / "report.html").read_text()
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(ValueError, match=r"page\.html: is there, and is no report of a run"):
        report(str(tmp_path / "run"), str(tmp_path / "page.html"))
    assert (tmp_path / "page.html").read_text() == "mine"
    # A run does not begin where it would end so.
    (tmp_path / "run" / "report.html").write_text("mine")
    with pytest.raises(ValueError, match=r"report\.html: is there, and is no report"):
        pipeline.run(str(folder / "data"), str(tmp_path / "run"), phases=1, **SMALL)
