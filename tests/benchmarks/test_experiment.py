"""Tests of the experiments' bookkeeping; the trainings they start are tested elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import experiment, real
from benchmarks.experiment import Experiment, read_results, report, run_experiments
from benchmarks.reconstruction import main as reconstruction

DICE = {"phase1": (90.0, 60.0), "baseline": (91.0, 62.0), "phase3": (90.5, 70.0)}


def write_run(folder: Path, seed: int) -> None:
    """Write the evaluations of a finished run; a seed adds as many points to the unseen Dice of Phase III."""
    for training, (source, unseen) in DICE.items():
        values = {"home": source, "far": unseen + (seed if training == "phase3" else 0)}
        record = {
            "seed": seed,
            "source_mean_dice": values["home"],
            "unseen_mean_dice": values["far"],
            "domains": {
                name: {"role": role, "n": 5, "regions": {"disc": {"dice": {"mean": values[name], "sd": 2.0}}}}
                for name, role in (("home", "source"), ("far", "unseen"))
            },
        }
        path = folder / f"seed{seed}" / training / "evaluation.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(record))


def test_tables_show_seeds_means_and_gains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = Experiment("discs", tmp_path / "data", seeds=(0, 2))
    for seed in one.seeds:
        write_run(tmp_path / "discs", seed)
    assert len(read_results([one], tmp_path)) == 12
    report([one], tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "| 2 | 90.0 / 60.0 | 91.0 / 62.0 | 90.5 / 72.0 | +10.0 |" in text
    assert "90.5 ± 0.0 / 71.0 ± 1.4 | +9.0 ± 1.4 |" in text
    assert "| far | unseen | disc | 5 | 60.0 ± 2.0 | 62.0 ± 2.0 | 71.0 ± 2.0 |" in text
    assert "discs" in capsys.readouterr().out


def test_unfinished_seed_has_no_row_of_its_own(tmp_path: Path) -> None:
    one = Experiment("discs", tmp_path / "data", seeds=(0, 1))
    write_run(tmp_path / "discs", 0)
    write_run(tmp_path / "discs", 1)
    (tmp_path / "discs" / "seed1" / "phase3" / "evaluation.json").unlink()
    report([one], tmp_path)
    assert "| 1 |" not in (tmp_path / "results.md").read_text()


def test_report_without_runs_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no finished run"):
        report([Experiment("discs", tmp_path / "data")], tmp_path)


def test_seeds_go_round_and_a_second_call_leaves_the_rest_to_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def record(command: list[str], **_: Any) -> None:
        ran.append(" ".join(command[command.index("--dataset_dir") + 1 :]))

    monkeypatch.setattr(experiment.subprocess, "run", record)
    monkeypatch.setattr(experiment, "git_commit", lambda: None)
    experiments = [
        Experiment("a", tmp_path / "a_data", seeds=(0, 1), settings={"image_size": [32, 32]}),
        Experiment("b", tmp_path / "b_data", seeds=(0,)),
    ]
    run_experiments(experiments, tmp_path)
    assert [line.split()[0].rsplit("/", 1)[-1] + line.split("--seed ")[1][0] for line in ran] == [
        "a_data0",
        "b_data0",
        "a_data1",
    ]
    assert "--image_size [32, 32]" in ran[0]
    note = tmp_path / "a" / "seed0" / "time.json"
    first = note.read_text()
    run_experiments(experiments, tmp_path)
    assert ran[3:] == ran[:3]
    assert note.read_text() == first


def test_reconstruction_explains_its_arguments() -> None:
    with pytest.raises(SystemExit, match=r"RUN DATASET"):
        reconstruction(["only_one"])


def test_styles_of_the_image_are_an_overlay_in_both_directions_with_all_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Experiment] = []
    monkeypatch.setattr(real, "run_experiments", lambda experiments, output: ran.extend(experiments))
    for name in ("report", "make_folder_dataset", "resplit_dataset"):
        monkeypatch.setattr(real, name, lambda *given, **named: None)
    real.main(str(tmp_path), str(tmp_path), tasks=("white_cells_image_styles", "white_cells_slice_range"))
    assert [(one.name, one.overlay, len(one.seeds)) for one in ran] == [
        ("white_cells_yellow_to_white_image_styles", "demo,image_styles", 3),
        ("white_cells_white_to_yellow_image_styles", "demo,image_styles", 3),
        ("white_cells_yellow_to_white_slice_range", "demo", 1),
        ("white_cells_white_to_yellow_slice_range", "demo", 1),
    ]
    assert [one.dataset_dir.name for one in ran] == ["white_cells", "white_cells_reverse"] * 2
