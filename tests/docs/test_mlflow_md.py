"""docs/mlflow.md: its commands run, and what it says of the runs is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mixstyleflow_monai.tracking import Store, embedded_store
from tests.test_readme import run_line, workplace

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "mlflow.md").read_text(encoding="utf-8")
__all__ = ["workplace"]


@pytest.mark.slow
def test_every_command_runs_and_leaves_the_runs_described(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    # Exporting four models takes longest; tests/tracking/test_model.py and test_server.py look at them.
    monkeypatch.setattr("mixstyleflow_monai.tracking.handlers.log_network", lambda *_: None)
    lines = [line for block in re.findall(r"^```bash\n(.*?)^```", TEXT, re.M | re.S) for line in block.splitlines()]
    assert len(lines) == 3
    for line in lines:
        run_line(line, workplace, monkeypatch)

    def runs(folder: str) -> dict[str, set[str]]:
        store = Store(embedded_store(workplace / folder))
        found = store.client.search_runs([store.experiment_id("discs")])
        assert {run.info.status for run in found} == {"FINISHED"}
        return {run.info.run_name: set(run.data.metrics) for run in found}

    alone = runs("runs/a/phase1")
    assert set(alone) == {"phase 1, seed 0"}
    assert {"train_loss", "dice/far/disc"} <= alone["phase 1, seed 0"]
    family = runs("runs/mine")
    names = ("phase1", "phase2", "phase3", "baseline")
    assert set(family) == {"mine, seed 0", *(f"mine, seed 0, {name}" for name in names)}
    assert "phase3/unseen_mean_dice" in family["mine, seed 0"]
    assert "stylised_dice" in family["mine, seed 0, phase2"]
    assert "dice/far/disc" in family["mine, seed 0, baseline"]


def test_board_has_a_make_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([\w-]+)", TEXT, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
