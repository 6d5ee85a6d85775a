"""Tests of the comparison of all methods; its trainings are those of the benchmark command."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import methods
from benchmarks.methods import CELLS, FLOWS, METHODS, SETTINGS, SLOW, finished, main, report
from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.benchmark import benchmark, command, known_methods
from mixstyleflow_monai.benchmark.plan import Plan
from mixstyleflow_monai.bundle_paths import bundles_dir
from tests.benchmark.squares import tiny_dataset


def record(method: str, seed: int, unseen: float) -> dict[str, Any]:
    """Return a finished cell with one case a domain."""
    return {
        "request": {"source": "home", "method": method, "seed": seed, "train_fraction": 1.0},
        "dataset": "discs",
        "roles": {"home": "source", "far": "unseen"},
        "seconds": 1800.0,
        "dice": {"home": {"disc": {"a": 90.0}}, "far": {"disc": {"b": unseen, "c": unseen + 2}}},
    }


def stand_in_phantom(task: str, folder: str, seed: int) -> None:
    """Write what the comparison reads of a data set."""
    Path(folder).mkdir(parents=True)
    (Path(folder) / "dataset.json").write_text(json.dumps({"name": "discs"}))


def write(folder: Path, *records: dict[str, Any]) -> Path:
    """Write records as a folder of finished cells."""
    folder.mkdir(exist_ok=True)
    for number, content in enumerate(records):
        (folder / f"{number}.json").write_text(json.dumps(content))
    return folder


def test_every_method_is_an_overlay() -> None:
    assert set(METHODS + SLOW) <= set(known_methods(bundles_dir(None)))


def test_committed_cells_are_what_their_names_and_hashes_say() -> None:
    paths = sorted(CELLS.glob("*.json"))
    assert len(paths) > 300
    files: dict[object, set[str]] = {}
    starts: dict[object, set[str]] = {}
    for path in paths:
        content = json.loads(path.read_text())
        request = content["request"]
        one = (methods.data_name(content), request["train_fraction"], request["source"], request["seed"])
        files.setdefault(one, set()).add(request["dataset_sha256"])
        starts.setdefault(one, set()).add(content["phase1_sha256"])
        digest = hashlib.sha256(json.dumps(content["request"], sort_keys=True).encode()).hexdigest()
        assert content["hash"] == digest, path.name
        assert path.stem.endswith(digest[:12]), path.name
        overrides = content["request"]["overrides"]
        assert overrides["1"]["amp"] is True, path.name
        assert overrides.get("2", {}).get("levels", FLOWS["levels"]) == FLOWS["levels"], path.name
        assert overrides.get("2", {}).get("temperatures", FLOWS["phase2:temperatures"]) == FLOWS["phase2:temperatures"]
    # Methods of one seed are compared on the same files, from the same training of Phase I.
    assert {len(found) for found in (*files.values(), *starts.values())} == {1}


def test_tables_need_finished_cells_alone(tmp_path: Path) -> None:
    cells = write(tmp_path / "cells", *(record(m, s, 60 + s) for s in (0, 1) for m in ("no_stylizer", "phase1")))
    write(cells / "more", record("mixstyleflow", 0, 80.0))
    (cells / "more" / "0.json").rename(cells / "flow.json")
    text = report(cells)
    table = text.partition("Image by image")[0]
    rows = {line.split(" | ")[0].strip("| "): line for line in table.splitlines() if line.startswith("|")}
    assert "61.5 ± 0.7" in rows["baseline (no styles)"]
    assert "28.5" in rows["baseline (no styles)"]  # the gap
    assert "+20.0" in rows["mixstyleflow"]
    assert "2.5 hours of the methods' own trainings" in text
    assert list(finished(cells)) == [("discs", 1.0)]


def test_the_recipe_stands_beside_its_control_and_the_best_rival(tmp_path: Path) -> None:
    unseen = {
        "phase1": 50.0,
        "no_stylizer": 60.0,
        methods.RECIPE: 80.0,
        methods.CONTROL: 75.0,
        "dsu": 70.0,
        "tri_d": 65,
    }
    of_seed = [record(method, seed, value + seed) for method, value in unseen.items() for seed in (0, 1)]
    (row,) = methods.side_by_side(write(tmp_path / "cells", *of_seed)).to_dict("records")
    assert (row["data"], row["source"]) == ("discs", "home")
    assert [row[key] for key in ("(a) paper", "(c) permuted", "(d) none")] == ["-", "76.5 ± 0.7", "61.5 ± 0.7"]
    assert row["(b) - (c)"] == "+5.0 [+5.0, +5.0], t [+5.0, +5.0]"
    assert row["(b) - rival"] == "+10.0 [+10.0, +10.0], t [+10.0, +10.0] (dsu)"
    assert row["(b) - (a)"] == "-"
    # Where the paper's setting has one of the seeds, all of the row is over that one.
    paper = record(methods.PAPER, 1, 78.0)
    (row,) = methods.side_by_side(write(tmp_path / "paper", *of_seed, paper)).to_dict("records")
    assert [row[key] for key in ("seeds", "(a) paper", "(b) recipe", "(d) none")] == ["1", "79.0", "82.0", "62.0"]
    assert methods.side_by_side(write(tmp_path / "few", record("no_stylizer", 0, 60.0))).empty


def test_only_methods_with_all_cells_of_the_recipe_stand_beside_it(tmp_path: Path) -> None:
    def at(source: str, method: str, seed: int, unseen: float) -> dict[str, Any]:
        found, other = record(method, seed, unseen), {"home": "far", "far": "home"}[source]
        found["request"]["source"] = source
        found["roles"] = {source: "source", other: "unseen"}
        found["dice"] = {source: {"disc": {"a": 90.0}}, other: {"disc": {"b": unseen}}}
        return found

    easy = {"no_stylizer": 80.0, methods.RECIPE: 90.0, "dsu": 88.0}
    hard = {"no_stylizer": 40.0, methods.RECIPE: 50.0, "dsu": 48.0}
    cells = [at("home", method, 0, value) for method, value in easy.items()]
    cells += [at("far", method, 0, value) for method, value in hard.items()]
    # Only of the easy source, or of another seed: neither may be compared with means over both.
    cells += [at("home", "tri_d", 0, 82.0), at("home", methods.CONTROL, 0, 85.0), at("home", "big_aug", 1, 99.0)]
    table = methods.side_by_side(write(tmp_path / "cells", *cells)).set_index("source")
    assert table.loc["mean of all", "(c) permuted"] == "-"
    assert str(table.loc["mean of all", "(b) - rival"]).endswith("(dsu)")
    assert str(table.loc["home", "(b) - rival"]).endswith("(dsu)")
    assert table.loc["home", "(b) - (c)"] != "-"
    assert set(table["seeds"]) == {"0"}


def test_the_best_rival_need_not_have_the_seeds_of_the_row(tmp_path: Path) -> None:
    def of(method: str, unseen: float, seeds: range) -> list[dict[str, Any]]:
        return [record(method, seed, unseen + seed) for seed in seeds]

    names = ("no_stylizer", methods.PAPER, methods.CONTROL)
    cells = [cell for name in names for cell in of(name, 60.0, range(3))] + of(methods.RECIPE, 80.0, range(6))
    cells += of("dsu", 75.0, range(3)) + of("tri_d", 82.0, range(3, 6)) + of("mix_style", 90.0, range(4, 6))
    (row,) = methods.side_by_side(write(tmp_path / "cells", *cells)).to_dict("records")
    # MixStyle is better still, with two seeds, which are too few to be the best.
    assert row["seeds"] == "0-2"
    assert row["(b) - rival"] == "-2.0 [-2.0, -2.0], t [-2.0, -2.0] (tri_d, seeds 3-5)"
    assert row["(b) recipe"] == "82.0 ± 1.0", "the row itself stays with its own seeds"


def test_few_unseen_images_are_shown_one_by_one(tmp_path: Path) -> None:
    cells = write(tmp_path / "cells", *(record("dsu", seed, 60.0 + seed) for seed in (0, 1, 3)))
    text = report(cells)
    assert "Image by image, disc, over the seeds:" in text
    assert "| method | seeds | b | c |" in text
    assert "| dsu | 0-1, 3 | 61.3 ± 1.5 | 63.3 ± 1.5 |" in text
    many = record("dsu", 0, 60.0)
    many["dice"]["far"]["disc"] = {str(image): 50.0 for image in range(methods.FEW_IMAGES + 1)}
    assert "Image by image" not in report(write(tmp_path / "many", many))


def test_two_records_of_one_cell_are_not_pooled(tmp_path: Path) -> None:
    cells = write(tmp_path / "cells", record("phase1", 0, 60.0), record("dsu", 0, 60.0), record("dsu", 0, 70.0))
    with pytest.raises(ValueError, match=r"2\.json: a second record of home, dsu, seed 0, of other settings"):
        report(cells)


def test_finished_cells_are_gathered_and_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def stand_in(dataset: str, folder: str, **settings: Any) -> int:
        calls.append({"dataset": dataset, **settings})
        write(Path(folder), record("phase1", 0, 50.0))
        write(Path(folder) / "cells", record("phase1", 0, 50.0), record("no_stylizer", 0, 61.0))
        return 0

    monkeypatch.setattr(methods, "benchmark", stand_in)
    monkeypatch.setattr(methods, "CELLS", tmp_path / "cells")
    monkeypatch.setattr(methods, "make_phantom", stand_in_phantom)
    write(tmp_path / "cells", record("phase1", 0, 77.0))
    out = tmp_path / "runs"
    assert methods.run("prostate_phantom_10", None, out, ["no_stylizer"], [0]) == 0
    assert calls[0]["dataset"] == str(out / "data" / "prostate_phantom")
    assert (calls[0]["train_fraction"], calls[0]["image_size"], calls[0]["amp"]) == (0.1, [96, 96], True)
    assert json.loads((tmp_path / "cells" / "0.json").read_text()) == record("phase1", 0, 77.0)
    assert (tmp_path / "cells" / "1.json").is_file()


def test_seeds_finished_on_other_files_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another processor writes the phantom with other rounding; its cells are not trained again beside the old ones."""
    trained: list[list[int]] = []
    monkeypatch.setattr(methods, "benchmark", lambda *_, seeds, **__: trained.append(seeds) or 0)
    monkeypatch.setattr(methods, "make_phantom", stand_in_phantom)
    out = tmp_path / "runs"
    here = sha256_file(methods.dataset_of("prostate_phantom", None, out) / "dataset.json")
    cells = [record("phase1", seed, 50.0) for seed in (0, 1, 2)]
    for cell, sha256 in zip(cells, (here, "of another", "of another"), strict=True):
        cell["request"]["dataset_sha256"] = sha256
    monkeypatch.setattr(methods, "CELLS", write(tmp_path / "cells", *cells))
    assert methods.run("prostate_phantom", None, out, ["no_stylizer"], [0, 1, 2, 3]) == 0
    assert "seeds 1-2 are left out" in capsys.readouterr().out
    assert methods.run("prostate_phantom", None, out, ["no_stylizer"], [1]) == 0
    assert trained == [[0, 3]]
    assert methods.run("prostate_phantom_10", None, out, ["no_stylizer"], [1]) == 0
    assert trained == [[0, 3], [1]], "another share of the cases is another comparison"


def test_other_grey_values_are_another_table(tmp_path: Path) -> None:
    clipped = record("no_stylizer", 0, 70.0)
    clipped["request"]["overrides"] = {"1": {"percentiles": [1.0, 99.8]}}
    cells = write(tmp_path / "cells", record("no_stylizer", 0, 60.0), clipped)
    assert list(finished(cells)) == [("discs", 1.0), ("discs, between the 1 and 99.8 percentiles", 1.0)]
    assert "### discs, between the 1 and 99.8 percentiles\n" in report(cells)


def test_settings_of_a_comparison_reach_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []
    make = command.make_plan
    monkeypatch.setattr(command, "make_plan", lambda *a, **k: plans.append(make(*a, **k)) or plans[-1])
    dataset, settings = str(tiny_dataset(tmp_path / "squares")), methods.common_settings(SETTINGS["nuclei_percentiles"])
    assert benchmark(dataset, str(tmp_path / "out"), methods=["no_stylizer"], seeds=[0], dry_run=True, **settings) == 0
    request = plans[0].request(plans[0].cells[-1])
    assert request["overrides"]["1"]["percentiles"] == [1.0, 99.8]
    assert request["overrides"]["3"]["amp"] is True


def test_real_images_are_asked_for_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nuclei: --data is missing"):
        main(output=str(tmp_path), tasks="nuclei")
    with pytest.raises(ValueError, match="no comparison 'nucleus', allowed: white_cells"):
        main(output=str(tmp_path), tasks="nucleus")
    assert not list(tmp_path.iterdir())


def test_low_data_and_whole_share_one_phantom() -> None:
    assert {SETTINGS[f"prostate_phantom_{share}"].data for share in (10, 30)} == {"prostate_phantom"}
