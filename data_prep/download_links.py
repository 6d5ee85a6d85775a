"""Where the public data sets are (``python -m data_prep download-links``); the entries are in ``public_data.yaml``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Column, Table

DATA_FILE = "public_data.yaml"


@dataclass(frozen=True)
class PublicData:
    """One public data set.

    Attributes:
        name: as its authors call it.
        holds: images, labels and domains.
        licence: as stated at the origin, or "not stated", or "not verified".
        size: of the download with its file name, or "not stated", or "not verified".
        addresses: the page of the release first.
        by_hand: what a person has to do or accept.
        command: the command of data_prep that reads it.
        cite: what to cite.
        checked: where the facts are from.
    """

    name: str
    holds: str
    licence: str
    size: str
    addresses: tuple[str, ...]
    by_hand: str
    command: str
    cite: str
    checked: str


def load_public_data(path: Path | None = None) -> tuple[PublicData, ...]:
    """Read the list of data sets.

    Args:
        path: YAML file; the one that is installed with the package by default.

    Raises:
        ValueError: an entry has other keys than :class:`PublicData`.
    """
    path = path or Path(__file__).with_name(DATA_FILE)
    entries: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    keys = {field.name for field in fields(PublicData)}
    for entry in entries:
        if set(entry) != keys:
            raise ValueError(f"{path}: {entry.get('name')!r} has the keys {sorted(entry)}, expected {sorted(keys)}.")
    return tuple(PublicData(**{**entry, "addresses": tuple(entry["addresses"])}) for entry in entries)


def print_links(console: Console | None = None) -> None:
    """Print an overview as a table, and then each data set with its addresses, each on a line of its own.

    Args:
        console: where to print; standard output by default.
    """
    # A pipe has no width of its own; Rich would fold everything at 80 columns.
    console = console or Console(width=None if sys.stdout.isatty() else 120)
    entries = load_public_data()
    table = Table(
        "data set",
        "licence",
        Column("size", no_wrap=True),
        Column("read by", no_wrap=True),
        title="public data sets",
    )
    for entry in entries:
        table.add_row(
            entry.name,
            entry.licence.split(";")[0],
            entry.size.split(",")[0],
            entry.command.split(",")[0].split(" data_prep")[0],
        )
    console.print(table)
    for entry in entries:
        console.print(f"\n{entry.name}", style="bold", highlight=False)
        for address in entry.addresses:
            # Never folded, so that it can be copied or clicked.
            console.print(f"  {address}", soft_wrap=True, highlight=False)
        lines = Table.grid(Column(width=9, no_wrap=True), Column(overflow="fold"), padding=(0, 1), pad_edge=False)
        for label, text in (
            ("holds", entry.holds),
            ("licence", entry.licence),
            ("size", entry.size),
            ("by hand", entry.by_hand),
            ("read by", f"python -m data_prep {entry.command}"),
            ("cite", entry.cite),
            ("checked", entry.checked),
        ):
            lines.add_row(f"  {label}", text)
        console.print(lines, highlight=False, markup=False)
    console.print(
        "\nNothing was downloaded. Terms change: read those at the address before you use or share data. "
        "docs/data.md of the repository tells the layout that each command expects.",
        highlight=False,
    )
