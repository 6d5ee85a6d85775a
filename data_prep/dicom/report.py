"""What became of each DICOM series: a table, a csv, and the lines of YAML that come next."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from data_prep.dicom.files import Segmentation, without_identity
from data_prep.dicom.series import WITHHELD, Series, Tree

CSV_FILE = "series.csv"
SEGMENTS_FILE = "segments.json"
# All attributes of an entry but the last two.
_WRITTEN = -2


@dataclass
class Entry:
    """One line of the report; the attributes are the columns of the csv, save the last two.

    Attributes:
        images: files, or frames of a multi-frame object.
        size: columns x rows x slices.
        spacing: mm.
        status: "converted", "left out" or "not chosen".
        name: stem of the written files.
        label: "DICOM SEG", "NIfTI", "left out" or "".
        reason: why something was left out, and notes.
        failed: the series is a volume by its headers, but its voxels cannot be read.
        file: the file whose voxels cannot be read; shown on the screen and never written, because file names may hold
            patients' names.
    """

    uid: str
    number: int
    description: str
    modality: str
    images: int
    size: str
    spacing: str
    status: str
    name: str = ""
    label: str = ""
    reason: str = ""
    failed: bool = False
    file: str = ""

    @property
    def shown_reason(self) -> str:
        """The reason with the damaged file, for the screen."""
        return f"{self.reason} ({self.file})" if self.file else self.reason

    @classmethod
    def of_series(cls, series: Series) -> Entry:
        """Make the line of a series that is not converted yet."""
        columns, rows, slices = series.size
        return cls(
            uid=series.uid,
            number=series.number,
            description=series.description,
            modality=series.tags["Modality"],
            images=slices,
            size=f"{columns} x {rows} x {slices}" if series.affine is not None else f"{columns} x {rows}",
            spacing=" x ".join(f"{size:.4g}" for size in series.spacing),
            status="left out" if series.problem else "not chosen",
            reason="; ".join([part for part in (series.problem, *series.notes) if part]),
        )

    @classmethod
    def of_segmentation(cls, seg: Segmentation, reason: str) -> Entry:
        """Make the line of a SEG object that belongs to no converted series."""
        tags = seg.instance.tags
        return cls(
            uid=tags["SeriesInstanceUID"],
            number=int((tags["SeriesNumber"] or (0,))[0]),
            description=without_identity(tags["SeriesDescription"], tags, WITHHELD),
            modality="SEG",
            images=seg.instance.frames,
            size="",
            spacing="",
            status="left out",
            reason=reason,
        )


def write_csv(folder: Path, entries: Sequence[Entry], tree: Tree) -> None:
    """Write ``series.csv``; unreadable files are counted there, because file names may hold patients' names."""
    with open(folder / CSV_FILE, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([field.name for field in fields(Entry)][:_WRITTEN])
        writer.writerows(astuple(entry)[:_WRITTEN] for entry in entries)
        if tree.unreadable:
            count = len(tree.unreadable)
            empty = ["", "", "", "", count, "", "", "left out", "", ""]
            writer.writerow([*empty, f"{count} files or folders cannot be read"])


def print_entries(console: Console, entries: Sequence[Entry], tree: Tree, root: Path) -> None:
    """Print all series, and the files that cannot be read."""
    table = Table(
        Column("series", overflow="fold", min_width=20),
        *("no.", "description", "modality", "images", "size", "spacing, mm", "status", "label"),
        Column("why, notes", min_width=24),
        title=f"{len(entries)} series below {root}, {tree.ignored} files that are not DICOM images",
    )
    for entry in entries:
        cells = (entry.uid, entry.number, entry.description, entry.modality, entry.images, entry.size, entry.spacing)
        shown = (*cells, entry.name or entry.status, entry.label or "none", entry.shown_reason)
        # As Text, because descriptions and file names may hold brackets, which Rich takes for styles.
        table.add_row(*(Text(str(cell)) for cell in shown))
    console.print(table)
    if tree.unreadable:
        table = Table(Column("file", overflow="fold"), "why", title=f"unreadable ({len(tree.unreadable)})")
        for path, reason in tree.unreadable[:40]:
            table.add_row(Text(str(path.relative_to(root))), reason)
        if len(tree.unreadable) > 40:
            table.add_row("...", f"{len(tree.unreadable) - 40} more")
        console.print(table)


def print_next_steps(console: Console, output: Path, segments: dict[str, Any]) -> None:
    """Print the spec for ``python -m data_prep folder``, and what to mend before."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if not segments:
        say(f"\nNo labels were found. Draw each on {output}/images/NAME.nii.gz and save it as labels/NAME.nii.gz.")
    if any(entry["overlap"] for entry in segments.values()):
        say("\nWhere segments overlap, labels/NAME_segmentN.nii.gz holds segment N; name that file under `labels`.")
    regions, problems = _regions(segments)
    for problem in problems:
        say(f"\n{problem}")
    lines = [
        "name: my_data",
        "spatial_dims: 3",
        "regions:",
        *(f"  {name}: [{value}]" for name, value in regions.items()),
        "source_domain: my_site",
        "domains:",
        "  my_site:",
        "    images: images/*.nii.gz",
        "    labels: labels/{stem}.nii.gz",
        "    group: '^(p\\d+)_'",
    ]
    say(f"\nNext: save these lines as {output / 'spec.yaml'}, and run")
    say(f"python -m data_prep folder --spec {shlex.quote(str(output / 'spec.yaml'))} --output DATASET\n")
    say("\n".join(lines) + "\n")


def _regions(segments: dict[str, Any]) -> tuple[dict[str, int], list[str]]:
    """Return a region for each value, and where the cases do not agree about the values."""
    names: dict[int, dict[str, int]] = {}
    for entry in segments.values():
        for value, facts in entry["values"].items():
            counts = names.setdefault(int(value), {})
            counts[facts["name"]] = counts.get(facts["name"], 0) + 1
    problems = []
    regions: dict[str, int] = {}
    for value, counts in sorted(names.items()):
        known = {name: count for name, count in counts.items() if name}
        if len(known) > 1:
            shown = ", ".join(f"{name!r} in {count} cases" for name, count in known.items())
            problems.append(
                f"Attention: value {value} is {shown}; see {SEGMENTS_FILE}. Put those cases into domains of their own, "
                "each with its `label_values`."
            )
        text = re.sub(r"[^A-Za-z0-9_-]+", "_", next(iter(known), "")).strip("_").lower()
        name = text if len(known) == 1 and re.match("[a-z]", text) else f"region_{value}"
        regions[name if name not in regions else f"{name}_{value}"] = value
    return regions or {"region_1": 1}, problems
