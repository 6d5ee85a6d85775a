"""Predictions of several networks on the same cases, for the report of a run."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from mixstyleflow_monai.evaluation.case_pictures import TILES, case_picture_path, read_case_picture
from mixstyleflow_monai.evaluation.summary import Record, record_name

DOMAINS = 12
"""Domains that are shown at most."""


@dataclass(frozen=True)
class Prediction:
    """A case and what each network made of it.

    Attributes:
        domain: of the case.
        case_id: of the case.
        why: it is shown.
        tiles: (heading, data URI) of the image, its label, and the prediction of each training, with its Dice in
            percent, the mean over regions.
    """

    domain: str
    case_id: str
    why: str
    tiles: list[tuple[str, str]]


def shown_cases(cases: pd.DataFrame, training: str, domains: Sequence[str]) -> list[tuple[str, str, str]]:
    """Choose of every domain the two cases with the lowest Dice and the one in the middle.

    Args:
        cases: columns domain, case_id, region, training and dice.
        training: by whose mean Dice over regions.
        domains: in order.

    Returns:
        (domain, case, why it was chosen).
    """
    means = cases[cases["training"] == training].groupby(["domain", "case_id"], sort=False)["dice"].mean()
    found = []
    for domain in domains[:DOMAINS]:
        if domain not in means.index.get_level_values("domain"):
            continue
        order = list(means.loc[domain].sort_values(kind="stable").index)
        # Of few cases the middle one may be one of the two.
        places = {(len(order) - 1) // 2: "median", 0: "lowest Dice", 1: "second lowest"}
        found += [(domain, str(order[place]), why) for place, why in sorted(places.items()) if place < len(order)]
    return found


def predictions(
    folders: Sequence[Path], records: Sequence[Record], cases: pd.DataFrame, domains: Sequence[str]
) -> list[Prediction]:
    """Return the predictions of `shown_cases` of the last record; none where no pictures were written.

    Args:
        folders: where evaluations may have written pictures.
        records: evaluations in the order of tables.
        cases: as for `shown_cases`.
        domains: in order.
    """
    names = [record_name(record) for record in records]
    dice = cases.groupby(["training", "domain", "case_id"])["dice"].mean()
    found = []
    for domain, case_id, why in shown_cases(cases, names[-1], domains):
        tiles: list[tuple[str, str]] = []
        for name, record in zip(names, records, strict=True):
            facts = {key: str(record.get(key)) for key in ("model_sha256", "dataset_sha256")}
            pictures = _tiles(folders, {"domain": domain, "case_id": case_id, **facts})
            if pictures is None:
                continue
            if not tiles:
                tiles += [(text, _uri(tile)) for text, tile in zip(TILES[:2], pictures[:2], strict=True)]
            value = float(dice.get((name, domain, case_id), math.nan))
            tiles.append((f"{name}: Dice {value:.1f}", _uri(pictures[2])))
        if tiles:
            found.append(Prediction(domain, case_id, why, tiles))
    return found


def _tiles(folders: Sequence[Path], facts: Mapping[str, str]) -> list[Image.Image] | None:
    for folder in folders:
        found = read_case_picture(case_picture_path(folder, facts["domain"], facts["case_id"]), facts)
        if found is not None:
            return found
    return None


def _uri(tile: Image.Image) -> str:
    buffer = io.BytesIO()
    tile.save(buffer, format="JPEG", quality=85, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
