"""The file ``dataset.json``: what a data set holds, and the checks that keep its splits honest.

One source domain is divided into train, validation and test; every other domain is unseen, and so is test only. A file
that breaks this is refused at load, because a leak between splits shows up as good numbers and as nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PureWindowsPath
from typing import Any

from tqdm import tqdm

from mixstyleflow_monai.artifacts import sha256_file, write_json
from mixstyleflow_monai.data.schema_checks import did_you_mean, raise_problems, schema_problems

DATASET_FILE = "dataset.json"
SPLITS = ("train", "validation", "test")
EVERY_SPLIT = "all"
_MAX_DEPTH = 100
_REWRITE = "Write it again with `python -m data_prep`."


@dataclass(frozen=True)
class Case:
    """One image (2-D image or 3-D volume) with its label.

    Attributes:
        id: unique in the data set.
        domain: site, scanner or camera.
        group: cases of one group (a patient, near-duplicate fields) are always in one split.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        image: absolute path of the image.
        label: absolute path of the label, an integer map of 0 and the values that the regions use.
        sha256: hashes of both files, keys ``"image"`` and ``"label"``.
        spacing: millimetres along each array axis, or None where it is not known.
    """

    id: str
    domain: str
    group: str
    split: str
    image: Path
    label: Path
    sha256: dict[str, str] = field(hash=False)
    spacing: tuple[float, ...] | None


@dataclass(frozen=True)
class DatasetDescription:
    """A checked ``dataset.json``; make one with :func:`load_dataset`.

    Attributes:
        path: absolute path of the JSON file.
        name: name of the data set.
        spatial_dims: 2 or 3.
        channels: image channels, the same in all cases.
        regions: label values of each region; regions may overlap.
        source_domain: the one domain that is trained on; empty if none is, and all cases are to be tested on.
        cases: all cases, in the order of the file.
        processing: free facts on how the data set was made.
        sha256: hash of the JSON file as it was read.
    """

    path: Path
    name: str
    spatial_dims: int
    channels: int
    regions: dict[str, list[int]] = field(hash=False)
    source_domain: str
    cases: tuple[Case, ...]
    processing: dict[str, Any] = field(hash=False)
    sha256: str

    @property
    def domains(self) -> list[str]:
        """All domains: the source, if there is one, then the others in alphabetical order."""
        return [*filter(None, [self.source_domain]), *self.unseen_domains]

    @property
    def unseen_domains(self) -> list[str]:
        """The domains that are never trained on, in alphabetical order."""
        return sorted({case.domain for case in self.cases} - {self.source_domain})

    def select(self, split: str | None = None, domain: str | None = None) -> tuple[Case, ...]:
        """Return the cases of one split and one domain; None means all, and so does the split "all".

        Raises:
            ValueError: no such split or domain, or cases to train on or choose by where there is no source.
        """
        split = None if split == EVERY_SPLIT else split
        if split is not None and split not in SPLITS:
            known = (*SPLITS, EVERY_SPLIT)
            raise ValueError(
                f"{self.path}: no split {split!r}, allowed: {', '.join(known)}{did_you_mean(split, known)}"
            )
        if split in SPLITS[:-1] and not self.source_domain:
            raise ValueError(f"{self.path}: source_domain is null: no case to train on or choose by. It is for tests.")
        if domain is not None and domain not in self.domains:
            hint = did_you_mean(domain, self.domains)
            raise ValueError(f"{self.path}: no domain {domain!r}, allowed: {', '.join(self.domains)}{hint}")
        return tuple(case for case in self.cases if split in (None, case.split) and domain in (None, case.domain))

    def datalist(self, split: str | None = None, domain: str | None = None) -> list[dict[str, str]]:
        """Return :meth:`select` as a MONAI datalist with the keys image, label, case_id, domain and group."""
        return [
            {"image": str(c.image), "label": str(c.label), "case_id": c.id, "domain": c.domain, "group": c.group}
            for c in self.select(split, domain)
        ]


@dataclass(frozen=True)
class HashMismatch:
    """A file that is not the one that the data set was made with; ``found`` is None where it is missing."""

    case_id: str
    kind: str
    path: Path
    recorded: str
    found: str | None


def load_dataset(dataset_dir: str | os.PathLike[str], *, check_files: bool = True) -> DatasetDescription:
    """Read and check a data set.

    Args:
        dataset_dir: folder that holds ``dataset.json``, or the path of such a file.
        check_files: also check that every image and label exists. Contents are compared by :func:`verify_hashes`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file breaks the schema or the rules of the splits; lists all problems.
    """
    path = dataset_file(dataset_dir)
    content, sha256 = read_dataset_file(path)
    raise_problems(path, description_problems(content, path.parent.resolve(), check_files=check_files))
    return DatasetDescription(
        path=path,
        name=content["name"],
        spatial_dims=content["spatial_dims"],
        channels=content["channels"],
        regions=content["regions"],
        source_domain=content["source_domain"] or "",
        cases=tuple(case_from_entry(entry, path.parent.resolve()) for entry in content["cases"]),
        processing=content.get("processing", {}),
        sha256=sha256,
    )


def save_dataset(dataset_dir: str | os.PathLike[str], content: Mapping[str, Any], *, check_files: bool = True) -> Path:
    """Check ``content`` as :func:`load_dataset` would and write it as ``dataset.json``, atomically.

    Images and labels must be in place before, because their existence is checked.

    Returns:
        The absolute path of the written file.

    Raises:
        ValueError: the content breaks the schema or the rules of the splits; nothing is written.
    """
    path = dataset_file(dataset_dir)
    raise_problems(path, description_problems(content, path.parent.resolve(), check_files=check_files))
    write_json(path, content)
    return path


def verify_hashes(description: DatasetDescription, *, progress: bool = False) -> Iterator[HashMismatch]:
    """Yield every image and label whose content differs from what ``dataset.json`` records (reads all files).

    Args:
        description: the data set.
        progress: show a progress bar, if it takes longer than a few seconds.
    """
    for case in tqdm(description.cases, desc="checksums", unit="case", delay=3, disable=not progress):
        for kind, path in (("image", case.image), ("label", case.label)):
            found = sha256_file(path) if path.is_file() else None
            if found != case.sha256[kind]:
                yield HashMismatch(case.id, kind, path, case.sha256[kind], found)


def check_files(description: DatasetDescription) -> DatasetDescription:
    """Return the data set if its files are those that it was made with (reads all of them).

    A label that was corrected after the import would give results that no ``dataset.json`` describes, beside earlier
    ones of the same name.

    Raises:
        ValueError: names the first files that are missing or have changed.
    """
    changed = [mismatch.path for mismatch in verify_hashes(description, progress=True)]
    if changed:
        shown = ", ".join(str(path) for path in changed[:3]) + (", ..." if changed[3:] else "")
        raise ValueError(
            f"{description.path}: {len(changed)} files are missing, or not those that it records: {shown}. Import "
            "again into a new folder, or restore them; `python -m data_prep check` lists all of them."
        )
    return description


def read_json(path: str | os.PathLike[str], *, remedy: str = _REWRITE) -> Any:
    """Return the content of a JSON file that someone else wrote.

    Python's own reader keeps the last of two equal keys, takes NaN for a number, and gives up on deep nesting with an
    error that names no file.

    Args:
        path: the file, in UTF-8 (with or without a byte order mark), UTF-16 or UTF-32.
        remedy: last sentence of the message.

    Raises:
        OSError: the file cannot be read.
        ValueError: not valid JSON, a key that is given twice in one object, NaN or an infinity, or values nested more
            than 100 deep.
    """
    return _parse_json(path, Path(path).read_bytes(), remedy)


def _parse_json(path: object, raw: bytes, remedy: str = _REWRITE) -> Any:
    try:
        content = json.loads(raw, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
        level = [content]
        for _ in range(_MAX_DEPTH):
            level = [
                value
                for node in level
                if isinstance(node, dict | list)
                for value in (node.values() if isinstance(node, dict) else node)
            ]
        if level:
            raise RecursionError
    except RecursionError as error:
        raise ValueError(
            f"{path}: not valid JSON (objects or lists nested more than {_MAX_DEPTH} deep). {remedy}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error}). {remedy}") from error
    return content


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"key {key!r} is given twice; remove one")
    return result


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def read_dataset_file(path: Path) -> tuple[Any, str]:
    """Return the content of a ``dataset.json``, still unchecked, and the SHA-256 of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or :func:`read_json` would refuse it.
    """
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise FileNotFoundError(f"{path}: no such file. Make a data set with `python -m data_prep`.") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from error
    return _parse_json(path, raw), hashlib.sha256(raw).hexdigest()


def dataset_file(dataset_dir: str | os.PathLike[str]) -> Path:
    """Return the absolute path of the JSON file of a folder; a path that ends in ``.json`` is one itself."""
    path = Path(os.path.abspath(dataset_dir))
    return path if path.suffix == ".json" else path / DATASET_FILE


def case_from_entry(entry: Mapping[str, Any], folder: Path) -> Case:
    """Return the case of one entry of ``cases``, whose paths start from ``folder``."""
    spacing = entry["spacing"]
    return Case(
        id=entry["id"],
        domain=entry["domain"],
        group=entry["group"],
        split=entry["split"],
        image=Path(os.path.normpath(folder / entry["image"])),
        label=Path(os.path.normpath(folder / entry["label"])),
        sha256=dict(entry["sha256"]),
        spacing=None if spacing is None else tuple(float(value) for value in spacing),
    )


@cache
def dataset_schema() -> dict[str, Any]:
    """Return the JSON schema of the file."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("dataset_schema.json").read_text(encoding="utf-8"))
    return schema


def description_problems(content: Any, folder: Path, *, check_files: bool) -> list[str]:
    """Return all problems of the content of a ``dataset.json``, each with its remedy.

    The rules of the splits are looked at only where the schema holds.

    Args:
        content: the parsed file.
        folder: that the paths start from.
        check_files: also that every image and label exists.
    """
    problems = schema_problems(dataset_schema(), content)
    if problems:
        return problems
    cases: list[dict[str, Any]] = content["cases"]
    problems += _id_problems(cases)
    problems += _source_problems(cases, content["source_domain"])
    problems += _leak_problems(cases)
    problems += _spacing_problems(cases, content["spatial_dims"])
    problems += _path_problems(cases, folder, check_files=check_files)
    return problems


def _id_problems(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    counts = Counter(case["id"] for case in cases)
    return [
        f"cases: id {name!r} is used {count} times; ids must be unique, so put the domain in front"
        for name, count in counts.items()
        if count > 1
    ]


def _source_problems(cases: Sequence[Mapping[str, Any]], source: str | None) -> list[str]:
    domains = sorted({case["domain"] for case in cases})
    if source is not None and source not in domains:
        hint = did_you_mean(source, domains)
        return [f"source_domain: no case is of the domain {source!r}; the cases have {', '.join(domains)}{hint}"]
    problems = [
        f"case {case['id']!r}: split {case['split']!r}, but its domain {case['domain']!r} is not the source "
        f"({source!r}); an unseen domain may only be in 'test'"
        for case in cases
        if case["domain"] != source and case["split"] != "test"
    ]
    if source is None:
        return problems
    present = {case["split"] for case in cases if case["domain"] == source}
    problems += [
        f"cases: the source domain {source!r} has no {split!r} case; "
        f"it needs at least one in each of {', '.join(SPLITS)}"
        for split in SPLITS
        if split not in present
    ]
    return problems


def _leak_problems(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """Find groups, images and files that are in two splits."""
    splits_of: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for case in cases:
        splits_of[f"group {case['group']!r} of the domain {case['domain']!r}", "group"].setdefault(
            case["split"], case["id"]
        )
        splits_of[f"image hash {case['sha256']['image'][:12]}...", "image"].setdefault(case["split"], case["id"])
    remedy = {
        "group": "put the whole group into one split",
        "image": "the files are identical: remove one, or give both the same group and split",
    }
    return [
        f"{what} is in two splits: "
        + ", ".join(f"{name!r} in {split!r}" for split, name in found.items())
        + f"; {remedy[kind]}"
        for (what, kind), found in splits_of.items()
        if len(found) > 1
    ]


def _spacing_problems(cases: Sequence[Mapping[str, Any]], spatial_dims: int) -> list[str]:
    return [
        f"case {case['id']!r}: spacing {case['spacing']} has {len(case['spacing'])} values, "
        f"spatial_dims is {spatial_dims}; give one value in mm for each axis, or null"
        for case in cases
        if case["spacing"] is not None and len(case["spacing"]) != spatial_dims
    ]


def _path_problems(cases: Sequence[Mapping[str, Any]], folder: Path, *, check_files: bool) -> list[str]:
    problems = []
    for case in cases:
        for kind in ("image", "label"):
            path = case[kind]
            if Path(path).is_absolute() or PureWindowsPath(path).is_absolute():
                problems.append(f"case {case['id']!r}: {kind} {path!r} is absolute; write it relative to dataset.json")
            elif check_files and not os.path.isfile(os.path.normpath(folder / path)):
                problems.append(
                    f"case {case['id']!r}: {kind} {path!r} does not exist (looked in {folder}); "
                    "restore the file or make the data set again"
                )
    return problems
