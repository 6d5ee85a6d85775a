"""Tests of the tables of the style study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import style_tables
from benchmarks.style_tables import STUDIES, main, painted, report


def level(own: float) -> dict[str, Any]:
    """Return what is measured of a level, with one unseen domain."""
    measured = {"mmd": 0.1, "channel_coverage": own, "inside_envelope": 0.5}
    return {
        "mean_abs_score": {"home": 0.8, "far": own},
        "mean_abs_score_of_samples": {"temperature 1": 1.0, "1 x": 2.0},
        "unseen": {"far": {"mmd_to_source": 0.3, "temperature 1": measured, "1 x": measured}},
    }


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Write a study of two levels."""
    study = {
        "data": "two_stains",
        "source": "home",
        "slices": {"home": 5, "far": 6},
        "levels": {"2": level(0.9), "5": level(0.4)},
        "mean_abs_score_by_running_statistics": {name: {"home": 0.8, "far": 3.0} for name in ("2", "5")},
        "anatomy": {
            f"{output}, {factor} x": {"dice": 90.0 - factor, "gradient_correlation": 0.5}
            for output in ("detail", "decoded")
            for factor in (0, 1)
        }
        | {"plain": {"dice": 95.0, "gradient_correlation": 1.0}},
        "images": {"far": {"plain": 0.1, "1 x": 0.05}},
    }
    (tmp_path / "two_stains-home.json").write_text(json.dumps(study))
    return tmp_path


def test_tables_show_what_was_measured(studies: Path) -> None:
    text = report(studies)
    assert "| two stains, home | far | 0.9 / 3.0 | 0.4 / 3.0 |" in text
    assert "| two stains, home | samples, own temperature | 2.0 | 2.0 |" in text
    # The image's own level stands apart from the decoder's; coverage, envelope, MMD.
    assert "| two stains, home | far | 2 to 4 | 0.30 | 0.90, 0.50, 0.10 | 0.90, 0.50, 0.10 |" in text
    assert "| two stains, home | far | 5 | 0.30 | 0.40, 0.50, 0.10 | 0.40, 0.50, 0.10 |" in text
    text = painted(studies)
    assert "| two stains, home | detail | 90.0, 0.50 | 89.0, 0.50 | 95.0 |" in text
    assert "| two stains, home | far | 0.100 | 0.050 |" in text


def test_committed_studies_have_every_comparison_and_their_projections() -> None:
    named = {path.stem for path in STUDIES.glob("*.json")}
    assert {name.partition("-")[0] for name in named} == set(style_tables.TASKS)
    for path in STUDIES.glob("*.json"):
        assert set(json.loads(path.read_text())["levels"]) == {"2", "3", "4", "5"}
        assert (style_tables.FIGURES / f"study_levels_{path.stem}.png").is_file()


def test_trainings_that_are_not_there_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no comparison 'nucleus', allowed: white_cells"):
        main(output=str(tmp_path), tasks="nucleus")
    (tmp_path / "dataset.json").write_text('{"source_domain": "home"}')
    monkeypatch.setattr(style_tables, "dataset_of", lambda name, images, output: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nuclei: no training of seed 3; benchmarks\.methods trains one"):
        main(output=str(tmp_path), tasks="nuclei")
