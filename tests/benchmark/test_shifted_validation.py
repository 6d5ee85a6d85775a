"""Networks of a benchmark are scored on shifted validation images of their source as well."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from mixstyleflow_monai.artifacts import sha256_file, write_json
from mixstyleflow_monai.benchmark import benchmark
from mixstyleflow_monai.benchmark.cells import _is_evaluated
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir
from tests.benchmark.test_command import SMALL


def test_an_evaluation_without_it_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pt").write_text("weights")
    (tmp_path / "evaluation.csv").touch()
    facts = {"model_sha256": sha256_file(tmp_path / "models" / "model.pt")}
    assert not _is_evaluated(tmp_path, shifted=False)
    write_json(tmp_path / "evaluation.json", {**facts, "split": "test"})
    assert [_is_evaluated(tmp_path, shifted=shifted) for shifted in (False, True)] == [True, False]
    write_json(tmp_path / "shifted_validation.json", facts)
    assert _is_evaluated(tmp_path, shifted=True)
    write_json(tmp_path / "shifted_validation.json", {"model_sha256": "of another network"})
    assert not _is_evaluated(tmp_path, shifted=True)
    (tmp_path / "shifted_validation.json").write_text("{")
    assert not _is_evaluated(tmp_path, shifted=True)
    write_json(tmp_path / "shifted_validation.json", facts)
    write_json(tmp_path / "evaluation.json", {**facts, "split": "validation"})
    assert not _is_evaluated(tmp_path, shifted=True)


def test_it_is_asked_for_unless_it_is_switched_off_or_the_bundles_do_not_know_it(
    dataset: Path, tmp_path: Path, commands: list[list[str]]
) -> None:
    earlier = tmp_path / "bundles"
    shutil.copytree(bundles_dir(), earlier, ignore=shutil.ignore_patterns("models", "checkpoints", "panels"))
    for phase in (1, 3):
        path = earlier / PHASE_BUNDLES[phase] / "configs" / "evaluate.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        del content["shifted_validation"], content["replace"]
        write_json(path, content)
    options = {**SMALL, "methods": "no_stylizer", "seeds": 0}
    asked = []
    for number, more in enumerate(({}, {"shifted_validation": False}, {"bundles_dir": str(earlier)})):
        del commands[:]
        assert benchmark(str(dataset), str(tmp_path / f"out{number}"), **options, **more) == 0
        evaluations = [command for command in commands if "evaluate.json" in str(command)]
        asked.append(["--shifted_validation" in command for command in evaluations])
        # Another split that was evaluated in a cell's folder, and a damaged evaluation, are replaced.
        assert ["--replace" in command for command in evaluations] == [number < 2] * 2
    assert asked == [[True, True], [False, False], [False, False]]
