"""Tests of the one command; trainings themselves are tested in tests/bundles."""

from __future__ import annotations

import csv
import errno
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from mixstyleflow_monai import bundle_runs, pipeline
from mixstyleflow_monai.artifacts import write_json
from mixstyleflow_monai.bundle_paths import bundles_dir
from mixstyleflow_monai.cli import main
from mixstyleflow_monai.options import overrides_by_phase
from tests.small_dataset import SMALL


@pytest.mark.slow
def test_run_leaves_every_artifact_and_one_table(finished_run: Path) -> None:
    for name in (
        "phase1/models/model.pt",
        "phase2/models/style_flows.pt",
        "phase2/style_report.json",
        "phase3/models/model.pt",
        "baseline/models/model.pt",
        "phase3/panels/epoch_0001.png",
    ):
        assert (finished_run / name).is_file(), name
    records = json.loads((finished_run / "evaluation.json").read_text())
    assert [(record["phase"], record.get("method")) for record in records] == [
        (1, None),
        (3, "mixstyleflow"),
        (3, "no_stylizer"),
    ]
    for record in records:
        assert record["seed"] == 3
        assert set(record["domains"]) == {"home", "far"}
        assert record["domains"]["home"]["role"] == "source"
        assert record["domains"]["far"]["n"] == 3
        assert 0 <= record["domains"]["far"]["regions"]["disc"]["dice"]["mean"] <= 100
    with (finished_run / "evaluation.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    # Four test cases, one region, three trainings.
    assert len(rows) == 12
    assert {row["case_id"] for row in rows} == {"c4", "c5", "c6", "c7"}


@pytest.mark.slow
def test_second_run_does_nothing_again(
    finished_run: Path, discs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_runs, "run_bundle", lambda files, settings: pytest.fail(f"ran {files} again"))
    pipeline.run(str(discs), str(finished_run), seed=3, baseline=True, **SMALL)
    assert "far" in capsys.readouterr().out


@pytest.mark.slow
def test_lost_artifact_is_made_again_and_the_rest_kept(
    finished_run: Path, discs: Path, tmp_path: Path, watched: list[tuple[str, dict[str, Any]]]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    (copy / "baseline" / "models" / "model.manifest.json").unlink()
    pipeline.run(str(discs), str(copy), seed=3, baseline=True, **SMALL)
    assert [name for name, _ in watched] == ["baseline/train"]


@pytest.mark.slow
def test_other_settings_in_the_same_folder_are_refused(finished_run: Path, discs: Path) -> None:
    with pytest.raises(ValueError, match=r"holds a run with other settings \(seed: was 3, now 4\)"):
        pipeline.run(str(discs), str(finished_run), seed=4, baseline=True, **SMALL)
    with pytest.raises(ValueError, match=r"\(phase 1, max_epochs: was 1, now 2; phase 2, max.*another --output_dir"):
        pipeline.run(str(discs), str(finished_run), seed=3, **{**SMALL, "max_epochs": 2})


def test_dataset_mistake_is_one_message_and_exit_code_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["run", "--dataset_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert code == 1
    assert error.startswith("error: ")
    assert "dataset.json: no such file" in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phases": "1,4"}, r"phases='1,4': expected some of 1, 2 and 3"),
        ({"phases": "all"}, r"phases='all'"),
        ({"overlay": "demoo"}, r"overlay='demoo': no bundle has configs/demoo.json.*'demo'"),
        ({"max_epoch": 3}, r"--max_epoch: no such option; did you mean 'max_epochs'\?"),
        ({"basline": True}, r"--basline: no such option; did you mean 'baseline'\?"),
        ({"zzz": 1}, r"--zzz: no such option\. Options are those of `run --help`"),
        ({"tracking": "mlfow"}, r"tracking='mlfow': expected mlflow, or a file"),
        ({"phase4:max_epochs": 3}, r"--phase4:max_epochs: expected phase1:"),
        ({"phase1:temperatures": 3}, r"--phase1:temperatures: no such option; it is one of phase 2 and 3"),
        ({"bundles_dir": "/nowhere"}, r"bundles_dir: no folder with"),
        ({"overlay": "demo,nothing"}, r"overlay='nothing': no bundle"),
        ({"temperatures": {"2": 3.5, "3": 2.5, "4": 1.5, "5": 2.5}}, r"expected positive numbers for levels among"),
        ({"phase3:style_levels": "[]"}, r"style_levels"),
        ({"overlay": "train"}, r"overlay='train'"),
        ({"overlay": "methods/no_stylizer"}, r"overlay='methods/no_stylizer'"),
        ({"probability": 2, "baseline": True}, r"probability=2"),
        ({"levels": [2, 3]}, r"style_levels=\[2, 3, 4\]: phase 2 is to fit flows of the levels \[2, 3\] alone"),
        ({"levels": 5}, r"levels=5: expected a list of levels, such as \[2,3,4\]"),
        ({"style_levels": "4,5"}, r"style_levels='4,5': expected a list of levels"),
        (
            {"overlay": "image_styles", "intensity": "z_score"},
            r"levels=\[2, 3, 4, 5\] with intensity='z_score': z-scored images all have the same statistics",
        ),
        ({"phase3:selection": "bets"}, r"selection='bets': expected 'best'"),
        ({"phase1:selection": "best", "selection": "best_stylized"}, r"'best_stylized': nothing is validated on"),
        ({"phase1:selection": "best_stylized"}, r"selection_stylizer, which is null.*such as BigAug in an overlay"),
        (
            {"phase3:selection": "best_stylized", "baseline": True},
            r"selection_stylizer, which is null.*overlay best_stylized\.json",
        ),
        ({"phase3:weight_average": 1}, r"weight_average=1: expected a decay in \[0, 1\)"),
        ({"blur_sigma": "x"}, r"blur_sigma='x': expected a finite number above 0"),
        ({"alpha": "a"}, r"alpha='a': expected a finite number above 0"),
        ({"probability": None}, r"probability=None: expected a number in \[0, 1\]"),
        ({"stylizer#foo": 3}, r"stylizer, .*StyleMix has no setting 'foo'"),
        ({"phase2:std_floor": "x"}, r"std_floor is 'x', allowed are finite numbers above 0"),
        ({"phase2:levels": [9]}, r"^(?!style_levels).*9"),
        ({"cache_rate": 2}, r"cache_rate=2 \(phase 1\): expected a number of at least 0 and at most 1"),
        ({"log_scale_bound": "x"}, r"log_scale_bound is 'x', .* or null to switch it off"),
        ({"blur_sigma": 0}, r"blur_sigma=0: expected a finite number above 0"),
        ({"phase2:spread": "sd"}, r"spread is 'sd'"),
        ({"phase3:style_per": "volume"}, r"style_per='volume'"),
        ({"activation": "relu"}, r"activation='relu'"),
        ({"image_size": [40, 40]}, r"image_size=\[40, 40\]: expected two multiples of 16 .* Use \[48, 48\]"),
        ({"image_size": 96}, r"image_size=96: expected two numbers, \[width, height\], multiples of 16"),
        ({"phase1:image_size": [0, 32]}, r"image_size=\[0, 32\]: .* Use \[16, 32\]"),
        ({"method": "tri_d"}, r"--method: is only the name .* use `benchmark --methods`.*--baseline"),
        ({"stylizer": None}, r"--stylizer null: would name a training without styles after the method.*--baseline"),
        ({"initialize": "foo"}, r"--initialize: is what a bundle consists of"),
        ({"phase1:optimizer": "foo"}, r"optimizer='foo': expected an object, such as with _target_"),
        (
            {"seed": 10**20},
            r"seed=100000000000000000000 .*: expected a whole number of at least 0 and at most 4294967295",
        ),
        ({"image_size": [32, 32, 32]}, r"image_size=\[32, 32, 32\]: expected two .* Use \[224, 224\]"),
        ({"phase3:model_dir": "x"}, r"--model_dir: each phase has a folder of its own below --output_dir"),
        ({"phases": 1, "baseline": True}, r"--baseline with --phases 1: it is phase 3 without styles"),
        ({"baseline": "perhaps"}, r"baseline='perhaps': expected true or false"),
        ({"case_pictures": "no pictures"}, r"case_pictures='no pictures': expected true or false"),
        ({"phase3:loss": "cross_entropy"}, r"cross_entropy"),
        ({"seed": "abc"}, r"seed='abc' \(phase 1\): expected a whole number of at least 0"),
        ({"phases": 1.5}, r"phases=1\.5: expected some of 1, 2 and 3"),
        ({"phases": True}, r"phases=True: expected"),
        ({"overlay": 5}, r"overlay='5': no bundle"),
        ({"phase2_dir": "elsewhere"}, r"--phase2_dir elsewhere: phase 2 is among --phases 1,2,3"),
        ({"phases": "2,3", "phase1_dir": "nowhere"}, r"--phase1_dir nowhere: no models/model\.pt there"),
        ({"phases": "1,3", "phase2_dir": "nowhere"}, r"--phase2_dir nowhere: no models/style_flows\.pt there"),
        ({"phase3:slices": "foo"}, r"slices='foo': expected one of"),
        ({"phase2:augmentation": "foo"}, r"augmentation='foo': expected 'auto' or one of"),
        ({"phase3:device": "foo"}, r"device='foo': not a device of torch"),
        ({"device": None}, r"device='None': not a device of torch"),
        ({"phase3:amp": "maybe"}, r"amp='maybe'"),
        ({"phase3:compile": "maybe"}, r"compile='maybe'"),
        ({"phase3:sync_batch_norm": "maybe"}, r"sync_batch_norm='maybe': expected true or false"),
        ({"phase2:resume": "maybe"}, r"resume='maybe': expected true or false"),
        ({"phase3:stylizer": "foo"}, r"stylizer='foo': expected null, or an object with _target_"),
        ({"phase3:selection_stylizer": "foo"}, r"selection_stylizer='foo': expected null"),
        ({"phase3:style_batch_norm": "maybe"}, r"maybe"),
        ({"percentiles": [98, 2]}, r"percentiles=\[98\.0, 2\.0\]: expected 0 <= low < high <= 100"),
    ],
)
def test_mistaken_options_are_refused_before_anything_is_written(
    discs: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        pipeline.run(str(discs), str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()


def test_option_of_a_phase_that_is_not_trained_here_is_refused(discs: Path, tmp_path: Path) -> None:
    """It would do nothing, and run.json would tell of it as if it had."""
    (tmp_path / "before" / "models").mkdir(parents=True)
    (tmp_path / "before" / "models" / "model.pt").touch()
    options: dict[str, Any] = {"phases": "2", "phase1_dir": str(tmp_path / "before"), "image_size": [320, 320]}
    with pytest.raises(ValueError, match=r"--image_size: only phase 1 has that, and it comes from --phase1_dir"):
        pipeline.run(str(discs), str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["run.json", "evaluation.json", "evaluation.csv"])
def test_file_of_the_user_in_the_output_folder_is_kept(name: str, discs: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=rf"{name}: is there, and not of a run; it would be replaced.* move the file"):
        pipeline.run(str(discs), str(tmp_path))
    assert (tmp_path / name).read_text() == '{"mine": 1}'
    (tmp_path / name).write_text("{")
    with pytest.raises(ValueError, match=name):
        pipeline.run(str(discs), str(tmp_path))


def test_output_that_is_no_folder_is_one_message(
    discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(["run", "--dataset_dir", str(discs), "--output_dir", str(output)]) == 1
        assert re.match(r"error: --output_dir .*/file is a file\. Give a folder\.", capsys.readouterr().err)


def test_folder_that_may_not_be_written_is_one_message(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, *_: Any, **__: Any) -> None:  # as for anyone but root
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(["run", "--dataset_dir", str(discs), "--output_dir", str(tmp_path / "out")]) == 1
    assert re.match(r"error: .*out: Permission denied\. Check .* permissions", capsys.readouterr().err)


def test_refusal_of_an_option_is_short(discs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean") as error:
        pipeline.run(str(discs), str(tmp_path / "out"), learning_rte=0.1)
    assert len(str(error.value)) < 200


def test_path_that_monai_would_change_is_refused(discs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"output_dir='.*/run #2': MONAI's configurations read # as ::"):
        pipeline.run(str(discs), str(tmp_path / "run #2"))
    assert not (tmp_path / "run #2").exists()


def test_how_a_run_is_tracked_and_where_it_computes_is_no_part_of_what_was_asked_for() -> None:
    plain, tracked, moved, other = (
        pipeline._request(bundles_dir(), "abc", 0, (), overrides_by_phase(bundles_dir(), options, pipeline.run))
        for options in (
            {"seed": 3},
            {"seed": 3, "experiment_name": "mine", "tracking_uri": "sqlite:///x.db"},
            {"seed": 3, "device": "cuda:1", "phase3:cache_rate": 0.2, "preview_interval": 3},
            {"seed": 3, "batch_size": 4},
        )
    )
    assert plain == tracked == moved
    assert plain != other


def test_options_of_a_phase_that_has_not_begun_may_change(tmp_path: Path) -> None:
    def request(**options: Any) -> dict[str, Any]:
        by_phase = overrides_by_phase(bundles_dir(), options, pipeline.run)
        return pipeline._request(bundles_dir(), "abc", 0, (), by_phase)

    def go_on(request: dict[str, Any]) -> None:
        pipeline._check_same_request(tmp_path, request)
        write_json(tmp_path / pipeline.REQUEST_FILE, request)

    go_on(request(batch_size=8))
    (tmp_path / "phase1" / "checkpoints").mkdir(parents=True)
    (tmp_path / "phase1" / "checkpoints" / "a.pt").touch()
    smaller = request(batch_size=8, **{"phase3:batch_size": 4})
    go_on(smaller)
    with pytest.raises(ValueError, match="holds a run with other settings"):
        go_on(request(batch_size=6))
    (tmp_path / "baseline" / "models").mkdir(parents=True)
    (tmp_path / "baseline" / "models" / "model.pt").touch()
    with pytest.raises(ValueError, match=r"phase 3.*another --output_dir"):
        go_on(request(batch_size=8))
    go_on(smaller)


@pytest.mark.slow
def test_evaluation_of_another_split_is_made_anew_on_the_device_of_the_run(
    finished_run: Path, discs: Path, tmp_path: Path, watched: list[tuple[str, dict[str, Any]]]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    path = copy / "phase3" / "evaluation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "split": "validation"}))
    pipeline.run(str(discs), str(copy), seed=3, baseline=True, device="cpu", **SMALL)
    assert [(name, settings["device"]) for name, settings in watched] == [("phase3/evaluate", "cpu")]
    assert json.loads(path.read_text())["split"] == "test"


def test_error_inside_a_configuration_is_shown_without_its_wrapping(
    discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--dataset_dir", str(discs), "--output_dir", str(tmp_path / "out"), "--phases", "1"]
    code = main([*arguments, "--lr_schedule", "linear"])
    error = capsys.readouterr().err
    assert code == 1
    assert "lr_schedule='linear': expected one of" in error
    assert not (tmp_path / "out" / "phase1" / "models").exists()
    # The mistake does not lock the folder: with another schedule the run may start there.
    pipeline._check_same_request(tmp_path / "out", {"seed": 0})
