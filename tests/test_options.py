"""Options that are sorted by phase; how a command refuses wrong ones is tested with the commands."""

from __future__ import annotations

from mixstyleflow_monai.bundle_paths import bundles_dir
from mixstyleflow_monai.options import overrides_by_phase
from mixstyleflow_monai.pipeline import run


def test_overrides_go_to_the_phases_that_know_them() -> None:
    found = overrides_by_phase(
        bundles_dir(), {"max_epochs": 2, "phase2:max_epochs": 7, "levels": [2], "probability": 1.0}, run
    )
    assert found == {
        1: {"max_epochs": 2},
        2: {"max_epochs": 7, "levels": [2]},
        3: {"max_epochs": 2, "probability": 1.0},
    }
