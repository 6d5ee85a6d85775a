"""The cases of a folder import: finding images with their labels, and writing them in the form of a data set."""

from __future__ import annotations

import os
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
    copy_volume,
    is_colour,
    name_of,
    read_image,
    read_label,
    remap,
    write_png,
)


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


@dataclass(frozen=True)
class LeftOut:
    """A case that was not taken over: its domain, image (relative to the root) and the reason."""

    domain: str
    image: str
    reason: str


def find_cases(spec: FolderSpec, domain: DomainSpec, root: Path) -> list[FoundCase]:
    """List the images of a domain with the labels they should have, ordered by name."""
    where = f"{spec.path}: domains.{domain.name}"
    paths = sorted(p for p in root.glob(domain.images) if p.is_file() and not p.name.startswith("."))
    if not paths:
        raise ValueError(
            f"{where}.images: {domain.images!r} matches no file under {root}; correct the pattern, or --root."
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


def _case_names(paths: list[Path]) -> list[str]:
    """Name cases by their file; where file names repeat (one folder a patient), by the folders that differ as well."""
    names = [name_of(path) for path in paths]
    if len(set(names)) < len(names):
        common = Path(os.path.commonpath([path.parent for path in paths]))
        names = [(path.parent.relative_to(common) / name_of(path)).as_posix().replace("/", "_") for path in paths]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        twins = ", ".join(str(path) for path, name in zip(paths, names, strict=True) if name == repeated[0])
        raise ValueError(f"{twins}: these images have the same name {repeated[0]!r}; narrow `images` to one of them.")
    return names


def choose_channels(spec: FolderSpec, cases: Sequence[FoundCase]) -> int:
    """Return the channels that all images get: as the spec says, else 3 if any file stores colours, else 1."""
    if spec.channels is not None or spec.spatial_dims == 3:
        return spec.channels or 1
    return 3 if any(is_colour(case.image) for case in cases) else 1


def take_case(case: FoundCase, folder: Path, root: Path, channels: int, spatial_dims: int) -> NDArray[Any]:
    """Check a case, write its image and label below ``folder`` and set the fields of ``case`` that this tells.

    Returns:
        The label as written, uint8.

    Raises:
        UnusableCase: the case is to be left out, with the reason.
        ValueError: the label has a value that the spec does not know.
    """
    if case.name in case.domain.exclude:
        raise UnusableCase(f"excluded by the spec: {case.domain.exclude[case.name]}")
    if not case.label.is_file():
        raise UnusableCase(f"no label {relative_to(case.label, root)}")
    return _take_2d(case, folder, channels) if spatial_dims == 2 else _take_3d(case, folder)


def _take_2d(case: FoundCase, folder: Path, channels: int) -> NDArray[Any]:
    """Write one 2-D case; return its label as written."""
    domain = case.domain
    image, label = read_image(case.image, channels), read_label(case.label)
    if image.shape[:2] != label.shape:
        sizes = " and ".join(f"{shape[0]} x {shape[1]}" for shape in (image.shape, label.shape))
        raise UnusableCase(f"image and label differ in size: {sizes} (rows x columns)")
    ratio = max(label.shape) / min(label.shape)
    if domain.max_aspect_ratio is not None and ratio > domain.max_aspect_ratio:
        size = f"{label.shape[0]} x {label.shape[1]}"
        raise UnusableCase(f"aspect ratio {ratio:.2f} of {size} is over max_aspect_ratio {domain.max_aspect_ratio:g}")
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
