"""A tiny data set, and trainings that only pretend."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import pandas as pd
import pytest

from mixstyleflow_monai.stopping import Programs
from tests.benchmark.squares import tiny_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("benchmark") / "squares")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replace trainings and evaluations by files of the right shape; return the commands that would have run."""
    seen: list[list[str]] = []

    def pretend(_: Programs, command: list[str], log: TextIO, environment: Mapping[str, str]) -> int:
        seen.append(command)
        options = dict(zip(command[4::2], command[5::2], strict=True))
        folder = Path(ast.literal_eval(options["--output_dir"]))
        method = folder.name
        if "evaluate.json" in options["--config_file"]:
            seed = int(folder.parent.name.removeprefix("seed"))
            gain = {"phase1": -5.0, "no_stylizer": 0.0, "mixstyleflow": 4.0}.get(method, 2.0) + seed
            rows = [
                (f"{domain}_{k}", domain, "square", 60.0 + k + gain, 1.0, "px")
                for domain in ("site_a", "site_b", "site_c")
                for k in range(3)
            ]
            names = ["case_id", "domain", "region", "dice", "asd", "asd_unit"]
            pd.DataFrame(rows, columns=names).to_csv(folder / "evaluation.csv", index=False)
            source = folder.parent.parent.name.split("_0.")[0]
            roles = {d: {"role": "source" if d == source else "unseen"} for d in ("site_a", "site_b", "site_c")}
            record = {"domains": roles, "source_mean_dice": 61.0, "unseen_mean_dice": 61.0 + gain}
            (folder / "evaluation.json").write_text(json.dumps(record), encoding="utf-8")
        elif method == "phase1":
            (folder / "models").mkdir(exist_ok=True)
            (folder / "models" / "model.pt").write_text(f"weights of {folder}", encoding="utf-8")
        elif method == "dsu":
            print("ValueError: temperatures: too hot", file=log)
            return 1
        return 0

    monkeypatch.setattr(Programs, "run", pretend)
    return seen
