"""What an import tells at its end: the cases that it left out, and those that it took."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from mixstyleflow_monai.data.dataset_description import SPLITS

LEFT_OUT_FILE = "left_out.csv"


@dataclass(frozen=True)
class LeftOut:
    """A case that was not taken over: its domain, image (relative to the root), the reason and what to do about it."""

    domain: str
    image: str
    reason: str
    remedy: str = ""


def write_left_out(folder: Path, left_out: Sequence[LeftOut]) -> None:
    """Write ``left_out.csv`` into the folder of a data set."""
    with open(folder / LEFT_OUT_FILE, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["domain", "image", "reason", "remedy"])
        writer.writerows([entry.domain, entry.image, entry.reason, entry.remedy] for entry in left_out)


def print_notes(notes: Sequence[str], console: Console) -> None:
    """Print what differs from what a user may take for granted, a note a line."""
    for note in notes:
        console.print(f"note: {note}", highlight=False, markup=False)


def print_summary(
    content: Mapping[str, Any],
    shares: Mapping[str, Mapping[str, float]],
    left_out: Sequence[LeftOut],
    console: Console,
) -> None:
    """Print what was left out, and cases by domain and split with the mean share of each region.

    Args:
        content: of ``dataset.json``.
        shares: case id -> region -> share of the pixels or voxels, in [0, 1].
        left_out: cases that were not taken over.
        console: where to print.
    """
    if left_out:
        table = Table(
            "domain",
            Column("image", overflow="fold"),
            "reason",
            "remedy",
            title=f"left out ({len(left_out)}, listed in {LEFT_OUT_FILE})",
        )
        for entry in left_out[:40]:
            # Brackets in names are no markup.
            table.add_row(*(Text(text) for text in (entry.domain, entry.image, entry.reason, entry.remedy)))
        if len(left_out) > 40:
            table.add_row("...", f"{len(left_out) - 40} more", "", "")
        console.print(table)
    table = Table(
        Column("domain", no_wrap=True),
        "role",
        *SPLITS,
        "groups",
        "left out",
        *(f"{region} %" for region in content["regions"]),
    )
    counts = Counter((entry["domain"], entry["split"]) for entry in content["cases"])
    source = content["source_domain"]
    for domain in sorted({entry["domain"] for entry in content["cases"]}, key=lambda name: (name != source, name)):
        members = [entry for entry in content["cases"] if entry["domain"] == domain]
        table.add_row(
            domain,
            "source" if domain == source else "unseen",
            *(str(counts[domain, split]) for split in SPLITS),
            str(len({entry["group"] for entry in members})),
            str(sum(entry.domain == domain for entry in left_out)),
            *(
                f"{100 * np.mean([shares[entry['id']][region] for entry in members]):.1f}"
                for region in content["regions"]
            ),
        )
    console.print(table)
