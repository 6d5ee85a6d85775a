"""The csv lists that the fundus releases of Zenodo come with: reading them, and refusing what cannot be right."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from data_prep.fundus.layouts import PARTS, ListedCase
from data_prep.image_files import similar_name
from mixstyleflow_monai.data.schema_checks import did_you_mean, raise_problems

RATERS = 6
"""Ophthalmologists who outlined each RIGA image (Almazroa et al., SPIE Medical Imaging 2018)."""
COLUMNS = ("image", "mask")


def csv_cases(root: Path, domains: Sequence[str], rater: int) -> list[ListedCase]:
    """List the cases of ``{domain}_train.csv`` and ``{domain}_test.csv`` (columns image, mask; paths from the root).

    A ``.tif`` mask is listed without its rater: ``image1.tif`` stands for ``image1-1.tif`` to ``image1-6.tif``. Masks
    of other formats have one annotation.

    Args:
        root: folder of the csv files.
        domains: the domains that the release has; those without lists are passed over.
        rater: whose ``.tif`` masks to take.

    Raises:
        FileNotFoundError: one of a domain's two lists is missing.
        ValueError: a list of another domain, or a mistake in a list; names all mistakes of the list.
    """
    _refuse_other_lists(root, domains)
    cases: list[ListedCase] = []
    seen: dict[Path, str] = {}
    for domain in domains:
        lists = [root / f"{domain}_{part}.csv" for part in PARTS]
        missing = [path.name for path in lists if not path.is_file()]
        if len(missing) == len(lists):
            continue
        if missing:
            raise FileNotFoundError(
                f"{root / missing[0]}: no such file, but the other list of the domain {domain} is there; unpack the "
                "release again, or move both lists away to leave the domain out."
            )
        for path in lists:
            cases += _cases_of_list(path, domain, rater, seen)
    return cases


def _refuse_other_lists(root: Path, domains: Sequence[str]) -> None:
    """Stop at lists of domains that the release does not have: they would tell of another release."""
    known = {f"{domain}_{part}.csv" for domain in domains for part in PARTS}
    # macOS adds ._NAME to every file on disks that are not its own.
    lists = {path.name for part in PARTS for path in root.glob(f"*_{part}.csv") if not path.name.startswith(".")}
    others = sorted(lists - known)
    if others:
        raise ValueError(
            f"{root}: holds lists of domains that this release does not have: {', '.join(others)}; known: "
            f"{', '.join(domains)}{did_you_mean(others[0].rsplit('_', 1)[0], domains)}. Move them away if they are "
            "yours, or describe the files with `python -m data_prep folder` if it is another release."
        )


def _cases_of_list(path: Path, domain: str, rater: int, seen: dict[Path, str]) -> list[ListedCase]:
    """Read one list; ``seen`` holds the files listed so far and where, and is added to."""
    cases, problems = [], []
    for line, row in _rows(path):
        where = f"line {line}"
        faults = [f"{where}: {column} {fault}" for column in COLUMNS if (fault := _path_fault(row[column]))]
        if faults:
            problems += faults
            continue
        image = _listed_file(path.parent, row["image"])
        mask, mask_rater, fault = _mask_of(_listed_file(path.parent, row["mask"]), rater)
        files = dict(zip(COLUMNS, (image, mask), strict=True))
        problems += [
            f"{where}: {column} {row[column]!r}: no file {file.relative_to(path.parent).as_posix()} in {path.parent}"
            f"{similar_name(file)}; unpack the release again"
            for column, file in files.items()
            if not (file.is_file() or (column == "mask" and fault))
        ]
        for column, file in files.items():
            if file in seen:
                problems.append(f"{where}: {column} {row[column]!r} is already listed in {seen[file]}; remove one row")
            seen.setdefault(file, f"{path.name} {where}")
        cases.append(ListedCase(domain, image, (mask,), mask_rater, fault, "give another --rater" if fault else ""))
    if not cases and not problems:
        problems.append("the list has no rows; unpack the release again")
    raise_problems(path, problems)
    return cases


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield line number and row of a csv file that has the columns image and mask."""
    try:
        # utf-8-sig: spreadsheet programs put a byte order mark in front of the first column's name.
        with open(path, newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            stream.seek(0)
            # Spreadsheet programs of some languages write semicolons.
            delimiter = next((sign for sign in ",;\t" if len(first.split(sign)) > 1), ",")
            reader = csv.DictReader(stream, strict=True, restval="", delimiter=delimiter)
            header = reader.fieldnames or []
            missing = [column for column in COLUMNS if column not in header]
            if missing:
                raise_problems(
                    path,
                    [
                        f"no column {column!r}{did_you_mean(column, header)}; the columns are "
                        f"{', '.join(header) or 'none'}, expected {', '.join(COLUMNS)}"
                        for column in missing
                    ],
                )
            for row in reader:
                yield reader.line_num, {column: row[column].strip() for column in COLUMNS}
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        remedy = "save it as UTF-8, or unpack the release again"
        raise ValueError(f"{path}: cannot be read as csv ({error}); {remedy}.") from error


def _listed_file(folder: Path, text: str) -> Path:
    """Return the file of a list's path, whose folders Windows divides by backslashes."""
    plain = folder / text
    return plain if "\\" not in text or plain.is_file() else folder / PureWindowsPath(text).as_posix()


def _path_fault(text: str) -> str:
    """Say why a path of a list is refused, or return an empty text."""
    if not text:
        return "is empty; give a path relative to the list"
    if PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute() or PureWindowsPath(text).drive:
        return f"{text!r} is absolute; write it relative to the list"
    if ".." in PureWindowsPath(text).parts:
        return f"{text!r} leads out of the folder of the list; write it without '..'"
    return ""


def _mask_of(listed: Path, rater: int) -> tuple[Path, int | None, str]:
    """Return the mask file, its rater (None for the only one), and why the case cannot be used, if so."""
    if listed.suffix.lower() not in (".tif", ".tiff"):
        return listed, None, ""
    by_rater = {n: listed.with_name(f"{listed.stem}-{n}{listed.suffix}") for n in range(1, RATERS + 1)}
    found = [n for n, path in by_rater.items() if path.is_file()]
    fault = ""
    if found and rater not in found:
        fault = f"no mask {by_rater[rater].name}; there are those of raters {', '.join(map(str, found))}"
    return by_rater[rater], rater, fault
