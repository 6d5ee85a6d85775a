"""Finished cells as files: one JSON a cell, found again by the hash of what its result depends on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mixstyleflow_monai.artifacts import git_commit, software_versions, write_json
from mixstyleflow_monai.benchmark.plan import Cell, Plan
from mixstyleflow_monai.data.schema_checks import schema_problems
from mixstyleflow_monai.engines.shifted_validation import FILE as SHIFTED_FILE
from mixstyleflow_monai.engines.shifted_validation import MEAN, MEAN_OF_PAIRS, PLAIN
from mixstyleflow_monai.evaluation import read_cases

START = "phase1_sha256"
"""Of the weights that the training started from, Phase I's."""
CONFIGS = "train_configs"
"""Hash of each phase's train.json, see `Plan.train_configs`; a record's own hash does not cover them."""

CASE_COLUMNS = ["source", "method", "seed", "domain", "role", "case_id", "region", "dice", "group"]


def _mapping(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "minProperties": 1, "additionalProperties": values}


# What the tables need of a record: its hash, the role of each domain, domain -> region -> case -> Dice, domain -> case
# -> group of the cases that are not alone in theirs, and Dice on shifted source validation images (earlier records do
# not tell the last two).
RECORD_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["hash", "roles", "dice"],
    "properties": {
        "hash": {"type": "string"},
        "shifted_validation": _mapping({"type": "number"}),
        "roles": _mapping({"type": "string"}),
        "dice": _mapping(_mapping(_mapping({"type": "number"}))),
        "groups": {"type": "object", "additionalProperties": _mapping({"type": "string"})},
    },
}


def record_path(folder: Path, plan: Plan, cell: Cell) -> Path:
    """Return where a cell's record is or will be."""
    words = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{plan.dataset_name}-{cell.source}-{plan.train_fraction:g}-{cell.method}")
    return folder / f"{words}-seed{cell.seed}-{plan.cell_hash(cell)[:12]}.json"


def write_record(folder: Path, plan: Plan, cell: Cell, evaluated: Path, facts: Mapping[str, Any]) -> Path:
    """Write the record of a cell from its evaluation.json and evaluation.csv.

    Args:
        folder: for records.
        plan: of the benchmark.
        cell: the finished one.
        evaluated: folder with the evaluation.
        facts: what else is known of its training: ``seconds`` of its own, None where that was resumed; the ``device``;
            `START` and `CONFIGS`.
    """
    evaluation = json.loads((evaluated / "evaluation.json").read_text(encoding="utf-8"))
    cases = read_cases(evaluated / "evaluation.csv")
    dice: dict[str, dict[str, dict[str, float]]] = {}
    for row in cases.to_dict("records"):
        regions = dice.setdefault(str(row["domain"]), {})
        regions.setdefault(str(row["region"]), {})[str(row["case_id"])] = round(float(row["dice"]), 3)
    path = record_path(folder, plan, cell)
    groups = shared_groups(cases)
    write_json(
        path,
        {
            "hash": plan.cell_hash(cell),
            "request": plan.request(cell),
            "dataset": plan.dataset_name,
            "roles": {name: entry["role"] for name, entry in evaluation["domains"].items()},
            "source_mean_dice": evaluation["source_mean_dice"],
            "unseen_mean_dice": evaluation["unseen_mean_dice"],
            **facts,
            "commit": git_commit(),
            "software": software_versions(),
            "dice": dice,
            **({"groups": groups} if groups else {}),
            **_shifted_validation(evaluated, evaluation.get("model_sha256")),
        },
    )
    return path


def _shifted_validation(evaluated: Path, model_sha256: str | None) -> dict[str, dict[str, float]]:
    path = evaluated / SHIFTED_FILE
    found = read_object(path, "a validation under shifts", "Remove it.") if path.is_file() else {}
    names = (PLAIN, MEAN, MEAN_OF_PAIRS)
    # It may be of another network, or not there: bundles of an earlier version do not write it.
    if model_sha256 is None or found.get("model_sha256") != model_sha256 or not all(name in found for name in names):
        return {}
    return {"shifted_validation": {name: round(found[name], 3) for name in names}}


def shifted_scores(records: Sequence[tuple[Cell, Mapping[str, Any]]]) -> pd.DataFrame:
    """Return a row a cell that tells it: source, method, seed and ``dice``, of source validation under two shifts."""
    rows = [
        (cell.source, cell.method, cell.seed, record["shifted_validation"][MEAN_OF_PAIRS])
        for cell, record in records
        if MEAN_OF_PAIRS in record.get("shifted_validation", {})
    ]
    return pd.DataFrame(rows, columns=["source", "method", "seed", "dice"])


def shared_groups(cases: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return domain -> case -> group of the cases that share their group, a patient or a field, with another one.

    Args:
        cases: columns domain, case_id and, where it is known, group.
    """
    if "group" not in cases:
        return {}
    once = cases[cases["group"] != ""].drop_duplicates(["domain", "case_id"])
    several = once[once.duplicated(["domain", "group"], keep=False)]
    return {
        str(domain): dict(zip(rows["case_id"], rows["group"], strict=True))
        for domain, rows in several.groupby("domain", sort=False)
    }


def find_record(folders: Iterable[Path], plan: Plan, cell: Cell) -> dict[str, Any] | None:
    """Return a finished cell's record from the first folder that has it, or None.

    Raises:
        ValueError: a file of that name is damaged, is not a record, or not of this cell.
    """
    remedy = "Remove it to have the cell run again."
    for folder in folders:
        path = record_path(folder, plan, cell)
        if not path.is_file():
            continue
        record = read_object(path, "a record of a cell", remedy)
        problems = schema_problems(RECORD_SCHEMA, record)
        problems = problems or [f"dice: no role of {name!r}" for name in record["dice"] if name not in record["roles"]]
        if problems:
            raise ValueError(f"{path}: not a record of a cell ({'; '.join(problems[:3])}). {remedy}")
        if record["hash"] != plan.cell_hash(cell):
            raise ValueError(f"{path}: its hash is not that of its name. {remedy}")
        return record
    return None


def doubts(records: Sequence[tuple[Cell, Mapping[str, Any]]], plan: Plan) -> list[str]:
    """Return what makes finished cells less comparable than their hashes say; older records tell neither.

    Methods of one source and seed may have started from different trainings of Phase I, in another folder or on another
    machine; and a cell may have been trained with another train.json, of another version or edited.
    """
    found = []
    starts: dict[tuple[str, int], dict[str, list[str]]] = {}
    for cell, record in records:
        if START in record:
            of_start = starts.setdefault((cell.source, cell.seed), {})
            of_start.setdefault(record[START], []).append(cell.method)
    for (source, seed), methods in starts.items():
        if len(methods) > 1:
            groups = " against ".join(", ".join(names) for names in methods.values())
            found.append(f"{source}, seed {seed}: not from the same training of Phase I ({groups})")
    other = [cell.name for cell, record in records if record.get(CONFIGS, (c := plan.train_configs(cell))) != c]
    if other:
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        found.append(f"trained with another train.json than today's: {'; '.join(other[:3])}{more}")
    return found


def read_object(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Args:
        path: the file.
        what: it is to be, for the message.
        remedy: for the message.

    Raises:
        ValueError: damaged, or something else than an object.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # no JSON, no text, or nested without end
        size = path.stat().st_size
        raise ValueError(f"{path}: damaged, not {what} ({size} bytes; {error}). {remedy}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: found {repr(content)[:80]}, expected {what}, a JSON object. {remedy}")
    return content


def case_table(records: Sequence[tuple[Cell, Mapping[str, Any]]]) -> pd.DataFrame:
    """Return a row a cell, domain, case and region; the group is empty for a case that stands for itself."""
    rows = [
        (cell.source, cell.method, cell.seed, domain, record["roles"][domain], case, region, dice, groups.get(case, ""))
        for cell, record in records
        for domain, regions in record["dice"].items()
        for groups in [record.get("groups", {}).get(domain, {})]
        for region, values in regions.items()
        for case, dice in values.items()
    ]
    return pd.DataFrame(rows, columns=CASE_COLUMNS)
