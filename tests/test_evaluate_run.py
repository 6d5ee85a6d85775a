"""The commands `evaluate` and `report` on a finished run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixstyleflow_monai import bundle_runs, pipeline
from mixstyleflow_monai.artifacts import sha256_file
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
    for image in other.glob("*.png"):
        if not image.stem.endswith("_label"):
            with Image.open(image) as stored:
                Image.fromarray(255 - np.asarray(stored)).save(image)
    renamed(other, {name: "elsewhere" for name in ("home", "far")})
    pipeline.run(str(folder / "data"), str(folder / "run"), phases=1, **SMALL)
    return folder


def renamed(dataset: Path, names: dict[str, str]) -> None:
    """Rename domains in a dataset.json, and enter the files as they are now."""
    content = json.loads((dataset / "dataset.json").read_text())
    content["source_domain"] = names.get(content["source_domain"], content["source_domain"])
    for case in content["cases"]:
        case["domain"] = names.get(case["domain"], case["domain"])
        case["sha256"]["image"] = sha256_file(dataset / case["image"])
    (dataset / "dataset.json").write_text(json.dumps(content))


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
    page = (out / "report.html").read_text()
    assert "evaluated on every case of a data set of other sites" in page
    assert "Phase I: images and their reconstructions" in page
    # The run and this evaluation have pictures of their cases, each of its own.
    assert len(list((out / "phase1" / "case_pictures").glob("elsewhere/*.jpg"))) == count
    assert list((folder / "run" / "phase1" / "case_pictures").glob("home/*.jpg"))
    assert "elsewhere" in page.split("<h2>Predictions")[1]


@pytest.mark.slow
def test_a_single_case_of_a_site_that_has_no_source_is_evaluated_and_not_trained_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((folder / "other" / "dataset.json").read_text())
    content["source_domain"], case = None, {**content["cases"][0], "split": "test"}
    content["cases"] = [{**case, **{kind: str(Path("../other") / case[kind]) for kind in ("image", "label")}}]
    alone = folder / "alone" / "dataset.json"
    alone.parent.mkdir()
    alone.write_text(json.dumps(content))
    words = ["--dataset_dir", str(alone.parent), "--output_dir", str(tmp_path / "out")]
    assert main(["evaluate", "--run_dir", str(folder / "run"), *words]) == 0
    (record,) = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert {name: (d["role"], d["n"]) for name, d in record["domains"].items()} == {"elsewhere": ("unseen", 1)}
    assert (record["source_mean_dice"], record["split"]) == (None, "all")
    assert (tmp_path / "out" / "report.html").is_file()
    monkeypatch.setattr(bundle_runs, "run_bundle", lambda files, settings: pytest.fail(f"ran {files}"))
    assert main(["evaluate", "--run_dir", str(folder / "run"), *words]) == 0  # what is finished is not done again
    assert main(["evaluate", "--run_dir", str(folder / "run"), *words, "--split", "validation"]) == 1
    assert "source_domain is null: no case to train on or choose by" in capsys.readouterr().err
    words[-1] = str(tmp_path / "trained")
    for command, told in (
        ("run", "source_domain is null: no case to train on"),
        ("benchmark", "--sources: source_dom"),
    ):
        assert main([command, *words]) == 1
        assert told in capsys.readouterr().err
        assert not (tmp_path / "trained").exists()
    # A site with the name of the training's may have its patients.
    alone.write_text(json.dumps(content).replace("elsewhere", "home"))
    words[-1] = str(tmp_path / "same")
    assert main(["evaluate", "--run_dir", str(folder / "run"), *words]) == 1
    assert "has the domain 'home', on which the network was trained" in capsys.readouterr().err


@pytest.mark.slow
def test_without_case_pictures_there_are_none(folder: Path, tmp_path: Path) -> None:
    words = ["--run_dir", str(folder / "run"), "--dataset_dir", str(folder / "data"), "--output_dir", str(tmp_path)]
    assert main(["evaluate", *words, "--case_pictures", "false"]) == 0
    assert not (tmp_path / "phase1" / "case_pictures").exists()
    assert "<h2>Predictions" not in (tmp_path / "report.html").read_text()


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
    shutil.copytree(folder / "run", tmp_path / "moved")
    evaluate(**{**options, "run_dir": str(tmp_path / "moved")})
    # One training's folder is as good as the run's; and what is trained later comes in addition.
    request = json.loads((tmp_path / "out" / "evaluate.json").read_text())
    assert list(request["networks"]) == ["phase1"]
    (tmp_path / "out" / "evaluate.json").write_text(json.dumps({**request, "networks": {}}))
    evaluate(**options)
    with pytest.raises(pytest.fail.Exception, match=r"ran .*evaluate"):
        evaluate(str(folder / "run" / "phase1"), str(folder / "data"), str(tmp_path / "one"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"case_pictures": "none"}, r"case_pictures='.*none': expected true or false"),
        ({"split": "tset"}, r"no split 'tset', allowed: train, validation, test, all; did you mean 'test'\?"),
        ({"run_dir": "other"}, r"--run_dir .*other: no trained network in phase1, phase3, baseline, nor in models"),
        ({"output_dir": "run"}, r"--output_dir .*run: holds a training, whose own evaluation would be there"),
        ({"output_dir": "run/phase1"}, r"--output_dir .*phase1: holds a training"),
        ({"run_dir": "a#b"}, r"run_dir=.*a#b': MONAI's configurations read # as ::"),
        (
            {"dataset_dir": "data", "split": "all"},
            r"has the domain 'home', on which the network was trained\. --split all",
        ),
        ({"dataset_dir": "same"}, r"cases, among them .*, were trained on or validated with by"),
        ({"split": "test"}, r"trained on source domain .*give --split all"),
        ({"output_dir": "mine"}, r"mine/evaluation.csv: is there, and not of this command"),
        ({"output_dir": "page"}, r"report.html: is there, and is no report of a run"),
    ],
)
def test_mistakes_are_told_before_the_work(
    changes: dict[str, str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (folder / "same").exists():
        shutil.copytree(folder / "data", folder / "same")
        renamed(folder / "same", {"home": "elsewhere"})
        shutil.copytree(folder / "run", folder / "a#b")
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


@pytest.mark.slow
def test_a_run_does_not_join_the_evaluation_of_other_cases(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    run = tmp_path / "run"
    other = json.loads((run / "phase1" / "evaluation.json").read_text()) | {"split": "validation"}
    (run / "baseline").mkdir()
    for name in ("models", "evaluation.csv"):
        copy = shutil.copytree if name == "models" else shutil.copyfile
        copy(run / "phase1" / name, run / "baseline" / name)
    (run / "baseline" / "evaluation.json").write_text(json.dumps({**other, "method": "no_stylizer"}))
    pipeline.run(str(folder / "data"), str(run), phases=1, **SMALL)
    assert len(json.loads((run / "evaluation.json").read_text())) == 1
