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

from mixstyleflow_monai.benchmark import benchmark
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir
from mixstyleflow_monai.cli import main
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
    assert table.loc[2, "to baseline"] == "+4.0 [+4.0, +4.0]"
    assert table.loc[1, "to best other"] == "-4.0 [-4.0, -4.0] (mixstyleflow)"
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
    message = (
        r"permuted_styles: .* style_batch_norm is 'batch' and that of the flows 'running'\. Give --style_batch_norm"
    )
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
    assert "division by zero" in (tmp_path / "out" / "site_a" / "seed0" / "broken" / "log.txt").read_text("utf-8")
