"""Task05_Prostate of the Medical Segmentation Decathlon as it is released: a folder, or the tar file of it.

The release holds ``dataset.json``, 4-D volumes ``imagesTr/prostate_XX.nii.gz`` (T2 and ADC) and labels
``labelsTr/prostate_XX.nii.gz`` with 0 background, 1 peripheral zone (PZ), 2 transition zone (TZ); 32 cases with labels.
The numbers have gaps: the missing ones are the test cases of the challenge (``imagesTs``), whose labels are not public.

Reference:
    Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 2022, http://medicaldecathlon.com
"""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from tqdm import tqdm

from data_prep.image_files import name_of
from data_prep.import_summary import LeftOut
from data_prep.prostate.cases import LABEL_VALUES, ReleaseCase
from mixstyleflow_monai.data.dataset_description import read_json
from mixstyleflow_monai.data.schema_checks import raise_problems, schema_problems

TASK = "Task05_Prostate"
DOMAIN = "decathlon"
MODALITY = "T2"
RELEASE_FILE = "dataset.json"
_PARTS = ("imagesTr", "labelsTr")
# Thirty times what the release has: a small compressed file may claim any size.
_MAX_BYTES = 2**33

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["modality", "labels", "training"],
    "properties": {
        "modality": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}},
        "labels": {"type": "object"},
        "numTraining": {"type": "integer"},
        "training": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["image", "label"],
                "properties": {"image": {"type": "string"}, "label": {"type": "string"}},
            },
        },
    },
}


@dataclass(frozen=True)
class DecathlonRelease:
    """A checked release.

    Attributes:
        cases: the labelled cases that ``dataset.json`` lists, in the order of their names.
        left_out: files of ``imagesTr`` that it does not list.
        facts: what it says about itself (name, licence, release), as far as it does.
    """

    cases: tuple[ReleaseCase, ...]
    left_out: tuple[LeftOut, ...]
    facts: dict[str, Any]


def open_release(path: str | os.PathLike[str], scratch: Path) -> DecathlonRelease:
    """Read a release from its folder or its tar file.

    Args:
        path: the folder ``Task05_Prostate``, the folder that holds it, or its tar file.
        scratch: folder to extract a tar file to; not touched otherwise.

    Raises:
        FileNotFoundError: nothing is there, or no ``dataset.json`` in it.
        ValueError: not a tar file, a damaged or unsafe one, or a ``dataset.json`` that is not that of the task.
    """
    path = Path(path)
    if path.is_dir():
        return read_release(_root(path, path))
    if not path.is_file():
        raise FileNotFoundError(f"--decathlon {path}: no such file or folder; give {TASK} or {TASK}.tar as released.")
    extract_release(path, scratch)
    try:
        return read_release(_root(scratch, path))
    except ValueError as error:
        # The scratch folder is gone when the message is read.
        raise ValueError(str(error).replace(str(scratch), str(path))) from error


def extract_release(archive: Path, folder: Path) -> None:
    """Extract ``dataset.json``, ``imagesTr`` and ``labelsTr`` of a tar file; hidden files (``._x``) stay behind.

    All members are looked at before the first is extracted.

    Args:
        archive: the tar file, plain or compressed.
        folder: where its content goes; made if absent.

    Raises:
        ValueError: not a tar file, a damaged one, one of more than 8 GiB or than fits the disk, or a member that is
            there twice or has ``..``, an absolute path, a link or a device: the release has none, and such members may
            write outside ``folder``.
    """
    if not hasattr(tarfile, "data_filter"):
        raise ValueError(
            f"--decathlon {archive}: this Python has no safe extraction of tar files (it came with 3.11.4). Update "
            "Python, or extract the file yourself and give the folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            _check_end(tar)
            for member in members:
                _refuse_unsafe(member, archive, folder)
            wanted = [member for member in members if member.isfile() and _is_wanted(member.name)]
            _refuse_excess(wanted, archive, folder)
            for member in tqdm(wanted, desc=f"extract {archive.name}", unit="file"):
                tar.extract(member, folder, filter="data")
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
        raise ValueError(
            f"--decathlon {archive}: cannot be extracted ({reason}). It is not a tar file, or an incomplete one; fetch "
            f"{TASK}.tar again."
        ) from error


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise if the file ends between two members, which ``tarfile`` takes for the end; a whole one ends with zeros."""
    stream: Any = tar.fileobj
    stream.seek(tar.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("unexpected end of data")


def _refuse_unsafe(member: tarfile.TarInfo, archive: Path, folder: Path) -> None:
    """Raise if extracting the member could touch anything outside ``folder``."""
    fault = ""
    if PurePosixPath(member.name).is_absolute() or PureWindowsPath(member.name).anchor:
        fault = "an absolute path"
    elif ".." in PureWindowsPath(member.name).parts:  # splits at both kinds of slash
        fault = "'..' in its path"
    elif member.issym() or member.islnk():
        fault = f"a link to {member.linkname!r}"
    else:
        try:
            tarfile.data_filter(member, str(folder))
        except tarfile.FilterError as error:
            fault = str(error)
    if fault:
        raise ValueError(
            f"--decathlon {archive}: member {member.name!r} is refused: {fault}. {TASK}.tar as released holds only "
            "files and folders of its own; fetch it again from its origin. Nothing was extracted."
        )


def _refuse_excess(wanted: Sequence[tarfile.TarInfo], archive: Path, folder: Path) -> None:
    """Raise if a file is there twice, of which the later would silently replace the other, or for too large files."""
    counts = Counter(PurePosixPath(member.name) for member in wanted)
    twice = next((str(name) for name, count in counts.items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"--decathlon {archive}: holds {twice} twice; fetch {TASK}.tar again. Nothing was extracted.")
    total, free = sum(member.size for member in wanted), shutil.disk_usage(folder).free
    if total > min(free, _MAX_BYTES):
        limit = f"at most {_MAX_BYTES:,} are taken" if free > _MAX_BYTES else f"{free:,} are free where --output is"
        raise ValueError(
            f"--decathlon {archive}: claims {total:,} bytes of images and labels, and {limit}. {TASK}.tar as released "
            "has less than 1 GB: fetch it again, or make room. Nothing was extracted."
        )


def _is_wanted(name: str) -> bool:
    """Say whether a member is one of the files that are read."""
    parts = [part for part in PurePosixPath(name).parts if part != "."]
    inner = parts[1:] if parts and parts[0] == TASK else parts
    if any(part.startswith(".") for part in parts):
        return False
    return inner == [RELEASE_FILE] or (len(inner) == 2 and inner[0] in _PARTS)


def _root(folder: Path, given: Path) -> Path:
    """Return the folder that holds ``dataset.json``."""
    for root in (folder, folder / TASK):
        if (root / RELEASE_FILE).is_file():
            return root
    held = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if f"{TASK}.tar" in held:
        hint = f"Give the file {TASK}.tar in it."
    else:
        hint = f"Give the folder {TASK} or the file {TASK}.tar as released."
    raise FileNotFoundError(
        f"--decathlon {given}: neither {RELEASE_FILE} nor {TASK}/{RELEASE_FILE} is in it; found "
        f"{', '.join(held[:8]) or 'nothing'}{', ...' if len(held) > 8 else ''}. {hint}"
    )


def read_release(root: Path) -> DecathlonRelease:
    """Read and check ``dataset.json`` of an extracted release; volumes are not opened.

    Raises:
        ValueError: not JSON, or not that of the prostate task; lists all problems.
    """
    path = root / RELEASE_FILE
    content = read_json(path, remedy=f"Restore it from {TASK}.tar.")
    raise_problems(path, schema_problems(_SCHEMA, content))
    raise_problems(path, _problems(content))
    channels = _channels(content)
    cases = sorted((_case(entry, root, channels) for entry in content["training"]), key=lambda case: case.name)
    facts = {key: content[key] for key in ("name", "licence", "relase", "release") if key in content}
    facts["listed_cases"] = len(cases)
    return DecathlonRelease(tuple(cases), tuple(_unlisted(root, cases)), facts)


def _channels(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the channels in order; the keys of ``modality`` are their numbers."""
    return tuple(content["modality"][key] for key in sorted(content["modality"], key=int))


def _problems(content: Mapping[str, Any]) -> list[str]:
    """Return what keeps this from being the release of the prostate task."""
    problems = []
    modality, labels = content["modality"], content["labels"]
    if set(modality) != {str(number) for number in range(len(modality))} or MODALITY not in modality.values():
        problems.append(
            f"modality: found {modality}, expected {{'0': 'T2', '1': 'ADC'}}; {TASK} has a T2 channel. Give that task"
        )
    if set(labels) != {str(value) for value in LABEL_VALUES}:
        problems.append(f"labels: found {labels}, expected {{'0': 'background', '1': 'PZ', '2': 'TZ'}}")
    seen: set[str] = set()
    for index, entry in enumerate(content["training"]):
        for key in ("image", "label"):
            parts = PureWindowsPath(entry[key]).parts
            if ".." in parts or PureWindowsPath(entry[key]).anchor or not parts:
                problems.append(f"training[{index}].{key}: {entry[key]!r} leaves the release; restore the file")
        name = name_of(Path(entry["image"]))
        if name in seen:
            problems.append(f"training[{index}].image: {name!r} is listed twice; restore the file")
        seen.add(name)
    return problems


def _case(entry: Mapping[str, str], root: Path, channels: tuple[str, ...]) -> ReleaseCase:
    image, label = (PurePosixPath(entry[key]) for key in ("image", "label"))
    return ReleaseCase(
        domain=DOMAIN,
        name=name_of(Path(image)),
        image=root / image,
        label=root / label,
        shown=image.as_posix(),
        channels=channels,
        channel=channels.index(MODALITY),
    )


def _unlisted(root: Path, cases: list[ReleaseCase]) -> list[LeftOut]:
    """Report images that are there and not listed: their labels may be anything."""
    listed = {case.image.name for case in cases}
    folder = root / _PARTS[0]
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [
        LeftOut(DOMAIN, f"{_PARTS[0]}/{name}", f"not listed in {RELEASE_FILE}", "none needed")
        for name in found
        if name not in listed and not name.startswith(".")
    ]
