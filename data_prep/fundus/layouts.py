"""Where the images and label files are in the public fundus releases that are plain folders: one function a layout.

No image is read here. A folder that must be there and is not is an error; an image without its label is handed on with
the reason, to be reported and left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PARTS = ("train", "test")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_SKIPPED_FOLDERS = ("__MACOSX", "illustration")


@dataclass(frozen=True)
class ListedCase:
    """An image of a release with its label files.

    Attributes:
        domain: camera or site.
        image: path of the image.
        labels: the label file, or those of disc and cup.
        rater: whose annotation it is, or None where there is one only.
        fault: why it cannot be used, where the listing already tells; else empty.
        remedy: what to do about the fault.
    """

    domain: str
    image: Path
    labels: tuple[Path, ...]
    rater: int | None = None
    fault: str = ""
    remedy: str = ""


def dofe_cases(root: Path) -> list[ListedCase]:
    """List the cases of ``Domain{1..4}/{train,test}/ROIs/{image,mask}``, where a mask has the name of its image."""
    cases = []
    for domain in (f"Domain{number}" for number in range(1, 5)):
        for part in PARTS:
            folder = root / domain / part / "ROIs"
            if folder.is_dir():
                cases += _paired(domain, _images(folder / "image"), _images(folder / "mask"), f"{domain}/{part}")
    return cases


def windows_cases(root: Path, domains: Sequence[str]) -> list[ListedCase]:
    """List the cases of ``{domain}/{images,masks}``, where a mask has the name of its image."""
    return [
        case
        for domain in domains
        if (root / domain / "images").is_dir()
        for case in _paired(domain, _images(root / domain / "images"), _images(root / domain / "masks"), domain)
    ]


REFUGE_SETS = (
    ("REFUGE_Zeiss", ("Training400", "REFUGE-Training400"), ("Annotation-Training400",)),
    ("REFUGE_Canon", ("REFUGE-Validation400", "Validation400"), ("REFUGE-Validation400-GT", "Validation400-GT")),
    ("REFUGE_Canon", ("Test400", "REFUGE-Test400"), ("REFUGE-Test-GT", "REFUGE-Test400-GT", "Test400-GT")),
)
"""Domain (the camera), names of the image folder and names of the annotation folder of each set."""


def refuge_cases(root: Path) -> list[ListedCase]:
    """List the cases of the REFUGE sets: jpg images, bmp masks of the same name under ``Disc_Cup_Masks``."""
    cases = []
    for domain, image_folders, label_folders in REFUGE_SETS:
        images = _find_folder(root, image_folders)
        labels = _find_folder(root, label_folders)
        if images is None and labels is not None:
            raise FileNotFoundError(
                f"{root}: the folder {labels.name} is there, but not that of its images, {' or '.join(image_folders)}; "
                "unpack it as well, or move the annotations away to leave this set out."
            )
        if images is not None:
            masks = _files(labels, (".bmp",), within="Disc_Cup_Masks") if labels else []
            why = "" if labels else f"the folder {label_folders[0]} of its annotations is missing"
            cases += _paired(domain, _files(images, (".jpg",)), masks, images.name, why)
    return cases


def drishti_cases(root: Path) -> list[ListedCase]:
    """List the cases of ``{Training,Test}/Images`` with the soft maps of disc and cup in ``GT`` and ``Test_GT``.

    The average boundaries that the release has as text are not read: public readers of them disagree on whether the
    row or the column comes first.
    """
    cases = []
    for part, truth in (("Training", "GT"), ("Test", "Test_GT")):
        folder = _find_folder(root, (part,), holding="Images")
        if folder is None:
            continue
        for image in _files(folder / "Images", (".png",)):
            maps = folder / truth / image.stem / "SoftMap"
            labels = tuple(maps / f"{image.stem}_{kind}segSoftmap.png" for kind in ("OD", "cup"))
            cases.append(ListedCase("Drishti_GS", image, labels))
    return cases


def _images(folder: Path) -> list[Path]:
    """Return the image files directly in a folder."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder, but the release has one there; unpack the release again.")
    return sorted(path for path in folder.iterdir() if _is_image(path, IMAGE_SUFFIXES))


def _files(folder: Path, suffixes: Sequence[str], within: str = "") -> list[Path]:
    """Return the files with one of the suffixes below a folder, or below its subfolders named ``within``."""
    found = []
    for path in sorted(folder.rglob("*")):
        parents = path.relative_to(folder).parts[:-1]
        skipped = any(name in part or name in part.lower() for part in parents for name in _SKIPPED_FOLDERS)
        if not skipped and (not within or within in parents) and _is_image(path, suffixes):
            found.append(path)
    return found


def _is_image(path: Path, suffixes: Sequence[str]) -> bool:
    """Say whether a file has one of the suffixes and is not hidden (macOS adds ``._name`` files to archives)."""
    return path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()


def subfolders(root: Path, depth: int = 2) -> list[Path]:
    """Return the root and its subfolders to a depth, because archives wrap a release in folders of their own.

    A folder that is met again by way of a link is not entered again.
    """
    found, level, real = [root], [root], {root.resolve()}
    for _ in range(depth):
        children = [child for folder in level for child in _children(folder)]
        level = []
        for child in children:
            if child.resolve() not in real:
                real.add(child.resolve())
                level.append(child)
        found += level
    return found


def _children(folder: Path) -> list[Path]:
    """Return the visible subfolders in order; none of a folder that may not be read."""
    with suppress(PermissionError):
        children = [path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir()]
        return sorted(path for path in children if path.name not in _SKIPPED_FOLDERS)
    return []


def _find_folder(root: Path, names: Iterable[str], holding: str = "") -> Path | None:
    """Return the outermost folder with one of the names, to a depth of three, that holds a folder ``holding``.

    Raises:
        ValueError: there are several.
    """
    wanted = set(names)
    found = [path for path in subfolders(root, depth=3)[1:] if path.name in wanted and (path / holding).is_dir()]
    outermost = [path for path in found if not any(other in path.parents for other in found)]
    if len(outermost) > 1:
        raise ValueError(
            f"{root}: found the folder {outermost[0].name} more than once: {', '.join(map(str, outermost))}; "
            "move all but one away, or give --root of one copy of the release."
        )
    return outermost[0] if outermost else None


def _paired(
    domain: str, images: Sequence[Path], masks: Sequence[Path], place: str, missing: str = ""
) -> list[ListedCase]:
    """Pair images and masks by their names without suffix."""
    by_name: dict[str, Path] = {}
    for mask in masks:
        if mask.stem in by_name:
            raise ValueError(
                f"{place}: two masks have the same name: {by_name[mask.stem]} and {mask}; keep the right one."
            )
        by_name[mask.stem] = mask
    cases = []
    for image in images:
        if image.stem in by_name:
            cases.append(ListedCase(domain, image, (by_name[image.stem],)))
        else:
            fault = f"no mask named {image.stem}{f': {missing}' if missing else ''}"
            cases.append(ListedCase(domain, image, (), None, fault, "add it from the release"))
    without = by_name.keys() - {image.stem for image in images}
    cases += [
        ListedCase(domain, by_name[name], (), None, "a mask without its image", "add the image from the release")
        for name in sorted(without)
    ]
    return cases
