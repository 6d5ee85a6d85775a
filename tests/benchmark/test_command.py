"""The command as a user runs it: cells, resumption, failures, tables."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
import pytest

from mixstyleflow_monai.benchmark import benchmark, make_plan
from mixstyleflow_monai.benchmark.cells import Workshop
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir
from mixstyleflow_monai.cli import main
from mixstyleflow_monai.data import load_dataset
from mixstyleflow_monai.stopping import Programs, only_one

SMALL: dict[str, Any] = {
    "image_size": [32, 32],
    "max_epochs": 1,
    "epoch_length": 2,
    "batch_size": 4,
    "tracking": "none",
}


def test_table_has_a_row_a_method_and_finished_cells_are_not_run_again(
    dataset: Path, tmp_path: Path, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    options = {**SMALL, "methods": "no_stylizer,mixstyleflow", "seeds": (0, 1)}
    assert benchmark(str(dataset), str(tmp_path / "out"), **options) == 0
    # For each seed: Phase I and II, two methods, three evaluations.
    assert len(commands) == 2 * 7
    assert "4 cells to train: 2 methods x 2 seeds x 1 sources" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "benchmark.csv")
    assert list(table["method"]) == ["Phase I", "baseline (no styles)", "mixstyleflow"]
    assert table.loc[2, "to baseline"] == "+4.0 [+4.0, +4.0], t [+4.0, +4.0]"
    assert table.loc[1, "to best other"] == "-4.0 [-4.0, -4.0], t [-4.0, -4.0] (mixstyleflow)"
    assert list(table.columns)[:5] == ["source", "method", "IID", "site_b", "site_c"]
    assert table.loc[2, "Avg"] == "65.5 ± 0.7"
    for name in ("benchmark.md", "benchmark.tex", "benchmark.png", "cases.csv"):
        assert (tmp_path / "out" / name).stat().st_size > 100
    del commands[:]
    assert benchmark(str(dataset), str(tmp_path / "out"), **options) == 0
    assert commands == []


def test_other_settings_in_the_same_folder_are_refused_and_reused_nowhere(
    dataset: Path, tmp_path: Path, commands: list[list[str]]
) -> None:
    options = {**SMALL, "methods": "no_stylizer", "seeds": 0}
    assert benchmark(str(dataset), str(tmp_path / "out"), **options) == 0
    del commands[:]
    records = sorted((tmp_path / "out" / "cells").iterdir())
    with pytest.raises(
        ValueError, match=r"holds a training with other settings \(overrides: was .*, now .*--output_dir"
    ):
        benchmark(str(dataset), str(tmp_path / "out"), **{**options, "max_epochs": 4})
    with pytest.raises(ValueError, match=r"phase1: holds a training with other settings \(overrides"):
        benchmark(str(dataset), str(tmp_path / "out"), **options, **{"phase1:learning_rate": 0.5})
    assert commands == []
    assert sorted((tmp_path / "out" / "cells").iterdir()) == records
    # What phase 2 alone is told does not touch a method without flows.
    assert benchmark(str(dataset), str(tmp_path / "out"), **options, **{"phase2:max_epochs": 3}) == 0


def test_failing_cell_is_told_and_the_rest_goes_on(
    dataset: Path, tmp_path: Path, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    options = {**SMALL, "methods": "dsu,no_stylizer", "seeds": 0}
    words = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    # Through the command line: its exit code is what a script sees.
    assert main(["benchmark", "--dataset_dir", str(dataset), "--output_dir", str(tmp_path / "out"), *words]) == 1
    shown = capsys.readouterr().out
    assert "failed: site_a, dsu, seed 0: exit code 1: ValueError: temperatures: too hot" in shown.replace("\n", " ")
    assert list(pd.read_csv(tmp_path / "out" / "benchmark.csv")["method"]) == ["Phase I", "baseline (no styles)"]
    assert len(list((tmp_path / "out" / "cells").glob("*.json"))) == 2


def test_failed_flows_stop_only_the_methods_that_need_them(
    dataset: Path,
    tmp_path: Path,
    commands: list[list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretended = Programs.run

    def without_flows(programs: Programs, command: list[str], log: TextIO, environment: dict[str, str]) -> int:
        if "phase2_style_flows" in str(command):
            print("ValueError: no flows today", file=log)
            return 1
        return pretended(programs, command, log, environment)

    monkeypatch.setattr(Programs, "run", without_flows)
    options = {**SMALL, "methods": "no_stylizer,mixstyleflow,big_aug", "seeds": 0}
    assert benchmark(str(dataset), str(tmp_path / "out"), **options) == 1
    table = pd.read_csv(tmp_path / "out" / "benchmark.csv")
    assert list(table["method"]) == ["Phase I", "baseline (no styles)", "big_aug"]
    shown = capsys.readouterr().out.replace("\n", "")
    assert "no flows today" in shown
    assert str(Path("seed0", "phase2", "log.txt")) in shown
    assert (tmp_path / "out" / "site_a" / "seed0" / "phase2" / "log.txt").is_file()


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, ["0", "1"]), ("2,3", ["2", "3"]), ("GPU-aa, GPU-bb", ["GPU-aa", "GPU-bb"])]
)
def test_each_job_has_a_gpu_of_its_own(
    visible: str | None, expected: list[str], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    plan = make_plan(bundles_dir(), load_dataset(str(dataset)), methods=["no_stylizer"], seeds=[0])
    workshop = Workshop(plan, {}, tmp_path, tmp_path / "cells", jobs=2)
    assert [workshop._environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in (0, 1)] == expected


def test_tracker_that_is_asked_for_is_used(
    dataset: Path, tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    options = {**SMALL, "tracking": "mlflow", "methods": "no_stylizer", "seeds": 0}
    asked = {"tracking_uri": "http://127.0.0.1:1", "experiment_name": "mine"}
    assert benchmark(str(dataset), str(tmp_path / "out"), **options, **asked) == 0
    given = [dict(zip(command[4::2], command[5::2], strict=True)) for command in commands]
    assert given
    assert all(of["--tracking_uri"] == "'http://127.0.0.1:1'" for of in given)
    assert all(of["--experiment_name"] == "'mine'" for of in given)
    del commands[:]
    assert benchmark(str(dataset), str(tmp_path / "out"), **options) == 0
    assert commands == []


def test_cells_from_another_phase_one_or_train_json_are_told(
    dataset: Path, tmp_path: Path, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    options = {**SMALL, "seeds": 0}
    first, second = tmp_path / "first", tmp_path / "second"
    assert benchmark(str(dataset), str(first), **options, methods="no_stylizer") == 0
    assert "note:" not in capsys.readouterr().out
    for path in (first / "cells").glob("*phase1*"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "train_configs": {"1": "0" * 64}}))
    options["reuse"] = str(first / "cells")
    assert benchmark(str(dataset), str(second), **options, methods="no_stylizer,mix_style") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "note: site_a, seed 0: not from the same training of Phase I (phase1, no_stylizer against mix_style)" in shown
    )
    assert "note: trained with another train.json than today's: site_a, phase1, seed 0" in shown
    assert "not from the same training" in (second / "benchmark.md").read_text()


def test_cells_of_another_folder_are_reused(dataset: Path, tmp_path: Path, commands: list[list[str]]) -> None:
    options = {**SMALL, "methods": "no_stylizer", "seeds": 0}
    benchmark(str(dataset), str(tmp_path / "first"), **options)
    del commands[:]
    benchmark(str(dataset), str(tmp_path / "second"), reuse=str(tmp_path / "first" / "cells"), **options)
    assert commands == []
    first, second = (pd.read_csv(tmp_path / name / "benchmark.csv") for name in ("first", "second"))
    pd.testing.assert_frame_equal(first, second)


DAMAGED = [
    (b"", r"damaged, not {what} \(0 bytes; Expecting value"),
    (b'{"hash": "ab', r"damaged, not {what} \(12 bytes; Unterminated string"),
    (b"\xff\xfe\x00", r"damaged, not {what} \(3 bytes; "),
    (b"[1, 2]", r"found \[1, 2\], expected {what}, a JSON object"),
]


@pytest.mark.parametrize("place", ["cells", "reuse"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        *DAMAGED,
        (b'{"hash": "x", "roles": {"site_a": "source"}}', r"not {what} \(top level: key 'dice' is missing"),
        (b'{"hash": "x", "roles": {"a": "source"}, "dice": {"a": {"r": {"c": null}}}}', r"\(dice\.a\.r\.c: found None"),
        (b'{"hash": "x", "roles": {"a": "source"}, "dice": {"b": {"r": {"c": 1}}}}', r"\(dice: no role of 'b'\)"),
        (b'{"hash": "x", "roles": {"a": "source"}, "dice": {"a": {"r": {"c": 1}}}}', r"its hash is not that of"),
    ],
)
def test_damaged_record_of_a_cell_is_told_with_its_remedy(
    place: str, content: bytes, message: str, dataset: Path, tmp_path: Path, commands: list[list[str]]
) -> None:
    options: dict[str, Any] = {**SMALL, "methods": "no_stylizer", "seeds": 0}
    assert benchmark(str(dataset), str(tmp_path / "out"), **options) == 0
    (record,) = (tmp_path / "out" / "cells").glob("*no_stylizer*.json")
    record.write_bytes(content)
    output = tmp_path / "out"
    if place == "reuse":
        output = tmp_path / "new"
        options["reuse"] = str(record.parent)
    del commands[:]
    message = message.replace("{what}", "a record of a cell")
    with pytest.raises(ValueError, match=rf"{record.name}: .*{message}.*Remove it to have the cell run again"):
        benchmark(str(dataset), str(output), **options)
    assert commands == []


@pytest.mark.parametrize(("content", "message"), DAMAGED)
def test_damaged_request_is_told_with_its_remedy(
    content: bytes, message: str, dataset: Path, tmp_path: Path, commands: list[list[str]]
) -> None:
    options: dict[str, Any] = {**SMALL, "methods": "no_stylizer", "seeds": 0}
    assert benchmark(str(dataset), str(tmp_path / "out"), **options) == 0
    for record in (tmp_path / "out" / "cells").glob("*.json"):
        record.unlink()
    path = tmp_path / "out" / "site_a" / "seed0" / "no_stylizer" / "request.json"
    path.write_bytes(content)
    del commands[:]
    message = message.replace("{what}", "the settings of a training")
    with pytest.raises(ValueError, match=rf"no_stylizer.request\.json: .*{message}.*remove that folder to train it"):
        benchmark(str(dataset), str(tmp_path / "out"), **options)
    assert commands == []


def test_damaged_evaluation_is_made_again(dataset: Path, tmp_path: Path, commands: list[list[str]]) -> None:
    options: dict[str, Any] = {**SMALL, "methods": "no_stylizer", "seeds": 0}
    assert benchmark(str(dataset), str(tmp_path / "out"), **options) == 0
    (record,) = (tmp_path / "out" / "cells").glob("*no_stylizer*.json")
    record.unlink()
    (tmp_path / "out" / "site_a" / "seed0" / "no_stylizer" / "evaluation.json").write_bytes(b"{")
    assert benchmark(str(dataset), str(tmp_path / "out"), **options) == 0
    assert record.is_file()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_asked_to_end_it_ends_its_trainings(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, codes = Programs.run, []

    def sleeper(programs: Programs, _: list[str], log: TextIO, environment: dict[str, str]) -> int:
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        codes.append(real(programs, [sys.executable, "-c", "import time; time.sleep(60)"], log, environment))
        return codes[-1]

    monkeypatch.setattr(Programs, "run", sleeper)
    with pytest.raises(SystemExit) as caught:
        benchmark(str(dataset), str(tmp_path / "out"), seeds=[0, 1], tracking="none")
    assert caught.value.code == 128 + signal.SIGTERM
    assert codes == [-signal.SIGINT]
    assert not list((tmp_path / "out").glob("cells/*"))


def test_two_at_once_in_a_folder_are_refused(dataset: Path, tmp_path: Path) -> None:
    with only_one(tmp_path), pytest.raises(ValueError, match="another command is at work in this folder"):
        benchmark(str(dataset), str(tmp_path), tracking="none")
    assert not list(tmp_path.glob("*/seed*"))


def test_other_sources_and_shares_get_data_sets_of_their_own(
    dataset: Path, tmp_path: Path, commands: list[list[str]]
) -> None:
    options = {**SMALL, "methods": "no_stylizer", "seeds": 0, "sources": "all", "train_fraction": 0.5}
    assert benchmark(str(dataset), str(tmp_path / "out"), **options) == 0
    assert {path.name for path in (tmp_path / "out" / "data").iterdir()} == {
        "site_a_0.5",
        "site_b",
        "site_b_0.5",
        "site_c",
        "site_c_0.5",
    }
    assert (tmp_path / "out" / "site_b_0.5" / "seed0" / "no_stylizer").is_dir()


def test_dry_run_trains_nothing_and_counts_steps(
    dataset: Path, tmp_path: Path, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    options = {
        **SMALL,
        "epoch_length": None,
        "max_epochs": 7,
        "methods": "no_stylizer,mixstyleflow",
        "seeds": (0, 1, 2),
    }
    assert benchmark(str(dataset), str(tmp_path / "out"), dry_run=True, seconds_per_step=36.0, **options) == 0
    shown = capsys.readouterr().out
    # Four training images, two a step: 2 steps an epoch, 14 a training.
    assert "source site_a: 14 steps of Phase I, 14 of each method" in shown
    assert "in all 42 steps of Phase I and 84 of methods" in shown
    assert "about 1.1 hours" in shown
    assert commands == []
    assert benchmark(str(dataset), str(tmp_path / "out"), **{**options, "methods": "no_stylizer", "seeds": 0}) == 0
    capsys.readouterr()
    assert benchmark(str(dataset), str(tmp_path / "out"), dry_run=True, **options) == 0
    shown = capsys.readouterr().out
    assert "5 cells to train" in shown
    assert "from 3 trainings of Phase I; 1 more are finished." in shown
    assert "in all 42 steps of Phase I and 70 of methods" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "paper"}, r"--preset 'paper': expected one of paper-prostate, paper-fundus"),
        ({"jobs": 0}, r"--jobs 0"),
        ({"tracking": "wandb"}, r"--tracking 'wandb'"),
        ({"seed": 5}, r"--seed: is decided by the benchmark and cannot be given; did you mean 'seeds'"),
        ({"phase3:resume": False}, r"--resume: is decided by the benchmark"),
        ({"reuse": "nowhere/cells"}, r"--reuse nowhere/cells: no such folder\. Give the cells/ folder"),
        ({"image_size": [40, 40]}, r"image_size=\[40, 40\]: expected two multiples of 16 .* Use \[48, 48\]"),
        ({"phase3:style_per": "volume"}, r"style_per='volume'"),
        ({"phase3:alpha": -1.0, "methods": "no_stylizer,mix_style"}, r"alpha=-1\.0"),
        ({"phase3:probability": 2.0, "methods": "dsu"}, r"probability=2\.0"),
        ({"phase3:style_levels": [9], "methods": "permuted_styles"}, r"levels=\[9\]: expected some of"),
        ({"phase3:style_levels": 5, "methods": "permuted_styles"}, r"style_levels=5: expected a list"),
        ({"phase3:temperatures": {"9": 1.0}}, r"temperatures=\{9: 1\.0\}: expected positive numbers for levels"),
        ({"phase3:temperatures": 3.5}, r"temperatures=3\.5: expected a number a level"),
        ({"phase3:style_levels": [2, 2]}, r"style_levels=\[2, 2\]: .* each once"),
        ({"phase2:levels": [2, 3, 4, 6]}, r"levels=\[2, 3, 4, 6\]: expected some of 0"),
        ({"phase2:clip_to_envelope": "nope"}, r"clip_to_envelope='nope': expected true or false"),
        ({"phase2:log_scale_bound": "x"}, r"log_scale_bound is 'x', allowed are finite numbers above 0, or null"),
        ({"intensity": "z_score", "methods": "no_stylizer,big_aug"}, r"BigAug with intensity='z_score'"),
        (
            {"intensity": "z_score", "methods": "permuted_flow_and_image_styles"},
            r"style_levels=\[2, 3, 4, 5\] with intensity='z_score'",
        ),
        ({"stylizer#probability": 0.3}, r"--stylizer#probability: is decided by the benchmark"),
        ({"train#trainer#max_epochs": 2}, r"--train#trainer#max_epochs: is decided by the benchmark"),
        ({"run_name": "mine"}, r"--run_name: is decided by the benchmark"),
        (
            {"phase3:selection": "best_stylized", "methods": "mixstyleflow,dsu"},
            r"selection_stylizer, which is null.*overlay best_stylized\.json",
        ),
        (
            {"overlay": "image_styles", "intensity": "z_score", "methods": "mixstyleflow"},
            r"levels=\[2, 3, 4, 5\] with intensity='z_score'",
        ),
        ({"job": 1}, r"--job: no such option; did you mean 'jobs'"),
        ({"no_such_option": 1}, r"--no_such_option: no such option\. Options are those of `benchmark --help`"),
        ({"seconds_per_step": -1.0, "dry_run": True}, r"--seconds_per_step -1.0"),
        ({"seconds_per_step": "x"}, r"--seconds_per_step 'x': expected a number above 0"),
        ({"seeds": 0.5}, r"--seeds: found 0\.5, expected whole numbers"),
        ({"sources": 1}, r"has no domain '1', allowed: all"),
        ({"reuse": 5}, r"--reuse 5: no such folder"),
        ({"train_fraction": "half"}, r"--train_fraction 'half': expected a share"),
        ({"batch_size": 1}, r"batch_size=1 \(phase 1\): expected an even number of at least 2"),
        ({"epoch_length": 2.5}, r"epoch_length=2\.5 \(phase 1\): expected a whole number of at least 1 or null"),
        ({"dry_run": "maybe"}, r"dry_run='maybe': expected true or false"),
        ({"shifted_validation": "on"}, r"shifted_validation='on': expected true or false"),
        (
            {"overlay": "image_styles", "methods": "mixstyleflow,flow_and_image_styles"},
            r"mixstyleflow and flow_and_image_styles are one and the same training",
        ),
        ({"phase3:loss": "cross_entropy", "methods": "no_stylizer"}, r"cross_entropy.*softmax|softmax.*cross_entropy"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(
    dataset: Path, tmp_path: Path, commands: list[list[str]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        benchmark(str(dataset), str(tmp_path / "out"), **{**SMALL, **options})
    assert commands == []


def test_control_of_another_batch_norm_than_the_flows_is_refused(dataset: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "dry_run": True, "phase2:style_batch_norm": "running"}
    message = r"permuted_styles: .* style_batch_norm is 'batch' and that of the flows 'running'\. Give --style_batch"
    with pytest.raises(ValueError, match=message):
        benchmark(str(dataset), str(tmp_path / "out"), **settings, methods="mixstyleflow,permuted_styles")
    assert benchmark(str(dataset), str(tmp_path / "out"), **settings, methods="permuted_styles") == 0


def test_levels_without_flows_are_refused_before_anything_is_trained(dataset: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "dry_run": True, "style_levels": [2, 5]}
    with pytest.raises(ValueError, match=r"style_levels=\[2, 5\]: phase 2 is to fit flows of the levels \[2, 3, 4\]"):
        benchmark(str(dataset), str(tmp_path / "out"), **settings, methods="permuted_styles,mixstyleflow")
    assert benchmark(str(dataset), str(tmp_path / "out"), **settings, methods="permuted_styles") == 0


def test_control_follows_the_settings_that_are_given_for_all_phases(dataset: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "dry_run": True, "overlay": "image_styles", "style_batch_norm": "running"}
    assert benchmark(str(dataset), str(tmp_path / "out"), **settings, methods="mixstyleflow,permuted_styles") == 0


@pytest.mark.slow
def test_real_cells_are_trained_evaluated_and_compared(dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    shutil.copytree(bundles_dir(), root, ignore=shutil.ignore_patterns("models", "checkpoints", "panels"))
    broken = {"method": "broken", "stylizer": "$1 / 0", "made_from": {"initial_network": "@phase1_model"}}
    path = root / PHASE_BUNDLES[3] / "configs" / "methods" / "broken.json"
    path.write_text(json.dumps(broken), encoding="utf-8")
    options = {**SMALL, "methods": "no_stylizer,broken", "seeds": 0, "bundles_dir": str(root)}
    assert benchmark(str(dataset), str(tmp_path / "out"), **options) == 1
    record = json.loads(next((tmp_path / "out" / "cells").glob("*no_stylizer*.json")).read_text(encoding="utf-8"))
    assert record["roles"] == {"site_a": "source", "site_b": "unseen", "site_c": "unseen"}
    assert set(record["dice"]["site_b"]["square"]) == {f"site_b_{k}" for k in range(6)}
    assert record["seconds"] > 0
    assert set(record["shifted_validation"]) == {"plain", "mean of shifts", "mean of pairs"}
    assert "division by zero" in (tmp_path / "out" / "site_a" / "seed0" / "broken" / "log.txt").read_text("utf-8")
