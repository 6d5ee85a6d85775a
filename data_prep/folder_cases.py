"""The cases of a folder import: finding images with their labels, and writing them in the form of a data set."""

from __future__ import annotations

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from data_prep.folder_spec import DomainSpec, FolderSpec
from data_prep.image_files import (
    UnusableCase,
    array_hash,
    centre_crop,
    name_of,
    read_image,
    read_label,
    remap,
    similar_name,
    stored_values,
    write_png,
)
from data_prep.import_summary import LeftOut
from data_prep.volume_files import copy_volume
from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.data.file_faults import is_volume
from mixstyleflow_monai.data.file_search import search


@dataclass
class FoundCase:
    """A case on its way into the data set; the second half of the fields is known once it is written."""

    domain: DomainSpec
    name: str
    image: Path
    label: Path
    group: str = ""
    outputs: tuple[Path, Path] = (Path(), Path())
    pixels: str = ""
    spacing: list[float] | None = None
    shares: dict[str, float] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.domain.name}_{self.name}"

    def entry(self, folder: Path) -> dict[str, Any]:
        """Return the case as ``dataset.json`` in ``folder`` has it, still without a split; reads both files."""
        return {
            "id": self.id,
            "domain": self.domain.name,
            "group": self.group,
            "split": "",
            "image": self.outputs[0].relative_to(folder).as_posix(),
            "label": self.outputs[1].relative_to(folder).as_posix(),
            "sha256": {"image": sha256_file(self.outputs[0]), "label": sha256_file(self.outputs[1])},
            "spacing": self.spacing,
        }


def find_cases(spec: FolderSpec, domain: DomainSpec, root: Path) -> list[FoundCase]:
    """List the images of a domain with the labels they should have, ordered by name.

    Raises:
        ValueError: no image, or names that do not go with the spec or cannot be written.
    """
    where = f"{spec.path}: domains.{domain.name}"
    try:
        found = sorted(path for path in _search(root, domain.images) if not path.name.startswith("."))
    except (ValueError, OSError) as error:
        raise ValueError(f"{where}.images: {domain.images!r} cannot be searched for ({error}); correct it.") from error
    paths = [path for path in found if os.path.isfile(path) or is_dead_link(path)]
    for path in paths:
        if any("\ud800" <= letter <= "\udfff" for letter in str(path)):
            raise ValueError(f"{where}.images: {str(path)!r} has a name that is not UTF-8; rename the file.")
    if not paths:
        raise ValueError(
            f"{where}.images: {domain.images!r} matches no file under {root}; correct the pattern, or --root."
            f"{_no_match(root, domain.images)}"
        )
    if all(is_volume(path) != (spec.spatial_dims == 3) for path in paths):
        kind, other = ("volumes", 3) if spec.spatial_dims == 2 else ("pictures", 2)
        raise ValueError(
            f"{spec.path}: spatial_dims: found {spec.spatial_dims}, but the images of domains.{domain.name} are "
            f"{kind}, as {relative_to(paths[0], root)}. Write `spatial_dims: {other}`, or correct `images`."
        )
    names = _case_names(paths)
    unknown = sorted(set(domain.exclude) - set(names))
    if unknown:
        raise ValueError(f"{where}.exclude: no image is named {', '.join(unknown)}; the first is named {names[0]!r}.")
    cases = []
    for path, name in zip(paths, names, strict=True):
        group = name
        if domain.group:
            match = domain.group.search(name)
            if match is None or not match.group(1):
                raise ValueError(
                    f"{where}.group: {domain.group.pattern!r} finds nothing in the case name {name!r}; "
                    "correct the expression, or narrow `images`."
                )
            group = match.group(1)
        parent = path.parent.relative_to(root).as_posix()
        label = root / domain.labels.format(stem=name_of(path), parent=parent, group=group)
        cases.append(FoundCase(domain, name, path, label, group))
    return cases


def _search(root: Path, pattern: str) -> set[Path]:
    """Return what a glob finds.

    Also dead links, which glob itself leaves out where a name has no wildcard.

    Raises:
        PermissionError: a folder on the way, which glob itself would skip.
    """
    found = search(root, pattern)
    folders, _, name = pattern.rpartition("/")
    if not any(letter in name for letter in "*?["):
        places = search(root, folders) if folders else {root}
        found |= {place / name for place in places if is_dead_link(place / name)}
    return found


def _no_match(root: Path, pattern: str) -> str:
    """Return why a pattern may have found nothing, or ""."""
    if "\\" in pattern:
        return " Write / between folders."
    if (root / pattern).is_dir():
        return f" It is a folder: write {pattern.rstrip('/')}/*.png, with the suffix of its images."
    above = root.resolve().parent
    if pattern.split("/")[0] == root.resolve().name and any(above.glob(pattern)):
        return f" It matches files under {above}: is that the root?"
    if any(path.is_dir() for path in search(root, pattern)):
        return f" It finds folders alone: write {pattern.rstrip('/')}/*.png, with the suffix of their images."
    other = _of_other_case(root, pattern)
    return f" Upper and lower case count: {other[0].name} is there." if other else ""


def _of_other_case(root: Path, pattern: str) -> list[Path]:
    """Return the files that a pattern would match but for upper and lower case, in order."""
    folders, _, name = pattern.rpartition("/")
    found = search(root, pattern)
    return sorted(
        path
        for place in (search(root, f"{folders}/") if folders else {root})
        if place.is_dir()
        for path in place.iterdir()
        if fnmatch.fnmatchcase(path.name.casefold(), name.casefold()) and path not in found and path.is_file()
    )


def other_case_note(spec: FolderSpec, domain: DomainSpec, root: Path) -> str:
    """Return a note on files that a domain's pattern misses by upper and lower case, and no domain takes; or ""."""
    passed_over = [path for path in _of_other_case(root, domain.images) if not path.name.startswith(".")]
    if passed_over:
        taken = {path for other in spec.domains for path in search(root, other.images)}
        passed_over = [path for path in passed_over if path not in taken]
    if not passed_over:
        return ""
    return (
        f"{domain.name}: `images` {domain.images} passes over {len(passed_over)} files that differ from it in upper "
        f"and lower case, such as {passed_over[0].name}. Rename them, or write the letters that differ as [nN]."
    )


def is_dead_link(path: Path) -> bool:
    """Say whether a path is a link to nothing or a circle of links."""
    return path.is_symlink() and not os.path.exists(path)


def check_ids(spec: FolderSpec, cases: Sequence[FoundCase]) -> None:
    """Refuse two cases whose domain and name together read the same.

    Raises:
        ValueError: names both files.
    """
    repeated = repeated_names([case.id for case in cases])
    if repeated:
        twin, case = (cases[index] for index in repeated[:2])
        ids = repr(case.id) if case.id == twin.id else f"{twin.id!r} but for upper and lower case"
        raise ValueError(
            f"{spec.path}: {twin.image} (domain {twin.domain.name}) and {case.image} (domain {case.domain.name}) "
            f"both get the case id {ids}; rename one of the domains or files."
        )


def repeated_names(names: Sequence[str]) -> list[int]:
    """Return where the first name that is there more than once is; empty if all differ.

    Names that differ in upper and lower case only are the same file on many file systems, and so are the same here.
    """
    plain = [name.casefold() for name in names]
    counts = Counter(plain)
    twice = next((name for name in plain if counts[name] > 1), None)
    return [index for index, name in enumerate(plain) if name == twice]


def check_filled(
    spec: FolderSpec, cases: Sequence[FoundCase], left_out: Sequence[LeftOut], *, where: str, remedy: str
) -> None:
    """Refuse a domain of which nothing is left.

    Args:
        spec: the domains.
        cases: those that were taken over.
        left_out: those that were not.
        where: start of the message, before the name of the domain.
        remedy: its last sentence.

    Raises:
        ValueError: names the domain and the most frequent reasons.
    """
    filled = {case.domain.name for case in cases}
    for domain in spec.domains:
        if domain.name not in filled:
            entries = [entry for entry in left_out if entry.domain == domain.name]
            raise ValueError(
                f"{where}{domain.name}: none of its {len(entries)} images can be used: {reasons_of(entries)}. {remedy}"
            )


def reasons_of(left_out: Sequence[LeftOut]) -> str:
    """Return the most frequent reasons for which cases were left out, and the first case."""
    reasons = Counter(re.sub(r"\S*[./]\S*", "...", entry.reason) for entry in left_out).most_common(3)
    told = "; ".join(f"{count} x {reason}" for reason, count in reasons)
    return f"{told}. The first is {left_out[0].image}: {left_out[0].reason}"


def _case_names(paths: list[Path]) -> list[str]:
    """Name cases by their file; where file names repeat (one folder a patient), by the folders that differ as well."""
    names = [name_of(path) for path in paths]
    if repeated_names(names):
        common = Path(os.path.commonpath([path.parent for path in paths]))
        names = [(path.parent.relative_to(common) / name_of(path)).as_posix().replace("/", "_") for path in paths]
    repeated = repeated_names(names)
    if repeated:
        twins = ", ".join(str(paths[index]) for index in repeated)
        name = repr(names[repeated[0]])
        if len({names[index] for index in repeated}) > 1:
            raise ValueError(
                f"{twins}: these images have the same name {name} but for upper and lower case; rename one."
            )
        raise ValueError(f"{twins}: these images have the same name {name}; narrow `images` to one of them.")
    return names


def choose_channels(spec: FolderSpec, cases: Sequence[FoundCase]) -> int:
    """Return the channels that all images get: as the spec says, else 3 if any file stores colours, else 1.

    Raises:
        ValueError: nothing is said, and some files store colours, others more than 8 bits of grey.
    """
    if spec.channels is not None or spec.spatial_dims == 3:
        return spec.channels or 1
    first: dict[str, Path] = {}
    for case in cases:
        first.setdefault(stored_values(case.image), case.image)
    if {"colours", "wide"} <= first.keys():
        raise ValueError(
            f"{spec.path}: channels: not given, and {first['colours']} stores colours, but {first['wide']} more than 8 "
            "bits of grey, which no colour file holds. Write `channels: 1` to make all of them grey, scale the latter "
            "to 8 bits, or write `channels: 3` to keep the upper 8 of their 16 bits."
        )
    return 3 if "colours" in first else 1


def check_images(spec: FolderSpec, cases: Sequence[FoundCase]) -> None:
    """Refuse images that are labels.

    Raises:
        ValueError: names the file.
    """
    labels = {os.path.realpath(case.label) for case in cases}
    for case in cases:
        if os.path.realpath(case.image) in labels:
            raise ValueError(
                f"{spec.path}: domains.{case.domain.name}.images: {case.domain.images!r} matches {case.image} too, "
                "which is a label. Narrow the pattern, so that it matches images alone."
            )


def take_case(case: FoundCase, folder: Path, root: Path, channels: int, spatial_dims: int) -> NDArray[Any]:
    """Check a case, write its image and label below ``folder`` and set the fields of ``case`` that this tells.

    Returns:
        The label as written, uint8.

    Raises:
        UnusableCase: the case is to be left out, with the reason.
        ValueError: the label has a value that the spec does not know.
    """
    if case.name in case.domain.exclude:
        raise UnusableCase(f"excluded by the spec: {case.domain.exclude[case.name]}", "none needed")
    for path in (case.image, case.label):
        if is_dead_link(path):
            reason = f"{relative_to(path, root)} is a link that leads nowhere or in a circle"
            raise UnusableCase(reason, "put the file itself in its place")
    if not os.path.isfile(case.label):
        reason = f"no label {relative_to(case.label, root)}{similar_name(case.label)}"
        raise UnusableCase(reason, "add it, or correct `labels`")
    return _take_2d(case, folder, channels) if spatial_dims == 2 else _take_3d(case, folder)


def _take_2d(case: FoundCase, folder: Path, channels: int) -> NDArray[Any]:
    """Write one 2-D case; return its label as written."""
    domain = case.domain
    image, label = read_image(case.image, channels), read_label(case.label)
    if image.shape[:2] != label.shape:
        sizes = " and ".join(f"{shape[0]} x {shape[1]}" for shape in (image.shape, label.shape))
        remedy = "give the label that was drawn on this image"
        raise UnusableCase(f"image and label differ in size: {sizes} (rows x columns)", remedy)
    ratio = max(label.shape) / min(label.shape)
    if domain.max_aspect_ratio is not None and ratio > domain.max_aspect_ratio:
        size = f"{label.shape[0]} x {label.shape[1]}"
        reason = f"aspect ratio {ratio:.2f} of {size} is over max_aspect_ratio {domain.max_aspect_ratio:g}"
        raise UnusableCase(reason, "crop it, or raise max_aspect_ratio")
    if domain.centre_crop:
        image, label = centre_crop(image, domain.centre_crop), centre_crop(label, domain.centre_crop)
    mapped = remap(label, domain.label_values, case.label)
    case.outputs = (
        folder / "images" / domain.name / f"{case.name}.png",
        folder / "labels" / domain.name / f"{case.name}.png",
    )
    for path, values in zip(case.outputs, (image, mapped), strict=True):
        write_png(path, values)
    case.pixels = array_hash(image)
    case.spacing = list(domain.spacing) if domain.spacing else None
    return mapped


def _take_3d(case: FoundCase, folder: Path) -> NDArray[Any]:
    """Copy one volume and write its label; return the label as written."""
    suffix = ".nii.gz" if case.image.name.lower().endswith(".gz") else ".nii"
    case.outputs = (
        folder / "images" / case.domain.name / f"{case.name}{suffix}",
        folder / "labels" / case.domain.name / f"{case.name}.nii.gz",
    )
    facts = copy_volume(case.image, case.label, case.domain.label_values, case.outputs)
    case.pixels, case.spacing = facts["pixels"], facts["spacing"]
    label: NDArray[Any] = facts["label"]
    return label


def relative_to(path: Path, root: Path) -> str:
    """Return ``path`` as seen from ``root``, with forward slashes; may start with ``..``."""
    return Path(os.path.relpath(path, root)).as_posix()
