"""Inputs and outputs of inference: lists of images, and label maps written on the images' own grid."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import NibabelWriter, PILWriter
from monai.transforms import Compose, SaveImaged
from torch.utils.data import Dataset

from mixstyleflow_monai.artifacts import atomic_path, write_json
from mixstyleflow_monai.data.dataset_description import load_dataset

SOURCES = "label_map_sources.json"
"""In a folder of label maps: the image of each, by the label map's place below the folder."""

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def inference_datalist(
    images: str | os.PathLike[str] | Sequence[str] | None,
    dataset_dir: str | os.PathLike[str],
    *,
    source_only: bool = False,
) -> list[dict[str, str]]:
    """Return the images to segment as a MONAI datalist.

    Args:
        images: a file, a folder (read recursively, without hidden files and label maps that inference wrote), a glob
            pattern, or a list of files; None for the test cases of the data set.
        dataset_dir: data set that is used where ``images`` is None.
        source_only: take only the source domain's test cases of the data set.

    Raises:
        FileNotFoundError: nothing found.
        ValueError: a file that is no image by its suffix, or two files whose label maps would have one name.
    """
    if images is None:
        description = load_dataset(dataset_dir)
        cases = description.datalist("test", description.source_domain if source_only else None)
        return [{key: item[key] for key in ("image", "case_id", "domain")} for item in cases]
    if isinstance(images, str | os.PathLike):
        path = Path(images)
        if path.is_dir():
            written = _label_maps(path)
            found = (p for p in path.rglob("*") if p.is_file() and _is_image(p))
            files = sorted(p for p in found if p not in written and not _is_hidden(path, p))
        elif path.is_file():
            files = [path]
        else:
            matching = Path(path.anchor or ".").glob(str(path.relative_to(path.anchor) if path.anchor else path))
            files = sorted(p for p in matching if p.is_file())
    else:
        files = [Path(p) for p in images]
    if not files:
        raise FileNotFoundError(
            f"{images}: no images found. Give a file, a folder or a pattern of files that end in "
            f"{', '.join(IMAGE_SUFFIXES)}."
        )
    by_output = defaultdict(set)
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file.")
        if not _is_image(file):
            raise ValueError(f"{file}: not an image by its name, allowed are {', '.join(IMAGE_SUFFIXES)}.")
        by_output[_without_suffix(file), ".nii" in _suffix(file)].add(file.name)
    for (name, _), names in by_output.items():
        if len(names) > 1:
            raise ValueError(
                f"{name}: the label maps of {', '.join(sorted(names))} would have the same name. Segment them one "
                "after the other into different folders."
            )
    # Not resolved: a link's own name is the one that its user knows.
    return [{"image": os.path.abspath(f), "case_id": os.path.basename(_without_suffix(f)), "domain": ""} for f in files]


def common_folder(datalist: Sequence[Mapping[str, Any]]) -> str:
    """Return the deepest folder that holds all images, so that outputs can mirror the folders below it."""
    return os.path.commonpath([os.path.dirname(os.path.abspath(item["image"])) for item in datalist])


def _suffix(path: Path) -> str:
    """Return the suffix of an image in lower case, ``.nii.gz`` as one; "" for anything else."""
    return max((s for s in IMAGE_SUFFIXES if path.name.lower().endswith(s)), key=len, default="")


def _without_suffix(path: Path) -> str:
    return os.path.abspath(path)[: -len(_suffix(path))]


def _is_hidden(folder: Path, path: Path) -> bool:
    """Tell files that start with a dot below a folder, such as those of macOS and of a run that was killed."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _label_maps(folder: Path) -> set[Path]:
    """Return the label maps that `SaveLabeld` wrote somewhere below a folder."""
    return {record.parent / name for record in folder.rglob(SOURCES) for name in json.loads(record.read_bytes())}


def _is_image(path: Path) -> bool:
    return _suffix(path) != ""


class ImageSlices(Dataset[dict[str, Any]]):
    """Unlabelled slices for looking at: each image, and of each volume its middle slice.

    Args:
        data: MONAI datalist with ``image``.
        transform: deterministic transform to (C, H, W[, D]).
        max_slices: how many at most, at least 1, evenly spread over the list.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Compose, max_slices: int = 24) -> None:
        chosen = np.linspace(0, len(data) - 1, min(len(data), max_slices)).round().astype(int)
        self.data = [data[k] for k in chosen]
        self.transform = transform

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return ``{"image": (C, H, W)}``, and the ``case_id`` if the list has one."""
        item = dict(self.data[index])
        image = torch.as_tensor(self.transform(item)["image"]).as_subclass(torch.Tensor)
        name = {"case_id": item["case_id"]} if "case_id" in item else {}
        return {"image": image if image.ndim == 3 else image[..., image.shape[-1] // 2].contiguous(), **name}


class AtomicNibabelWriter(NibabelWriter):
    """MONAI's NIfTI writer of a volume (1, H, W, D), with a temporary name and a rename."""

    def set_data_array(self, data_array: Any, channel_dim: int | None = 0, **kwargs: Any) -> None:  # type: ignore[override]
        """Take the data; a volume of one slice stays a volume, where MONAI would drop its last axis."""
        volume = data_array if channel_dim is None else data_array[0]
        super().set_data_array(volume, channel_dim=None, **{**kwargs, "squeeze_end_dims": False})
        # Told that there is no channel, MONAI adds one of its own at the end.
        self.data_obj = self.data_obj[..., 0]

    def write(self, filename: Any, verbose: bool = False, **kwargs: Any) -> None:
        """Write the file."""
        with atomic_path(filename) as partial:
            super().write(str(partial), verbose=verbose, **kwargs)


class AtomicPILWriter(PILWriter):
    """MONAI's PNG writer, with a temporary name and a rename."""

    def write(self, filename: Any, verbose: bool = False, **kwargs: Any) -> None:
        """Write the file."""
        with atomic_path(filename) as partial:
            super().write(str(partial), verbose=verbose, **kwargs)


class SaveLabeld(SaveImaged):
    """Save integer label maps, uint8, as NIfTI (volumes) or PNG (images), named ``<image>_seg``.

    Beside them, `SOURCES` tells the image of each. A label map of another image, which an earlier call wrote under the
    same name, is not replaced.

    A subclass of MONAI's transform, so that MONAI Label, which saves results itself, knows to leave it out.

    Args:
        keys: label maps (1, H, W[, D]) with the metadata of their image.
        output_dir: folder to write to.
        data_root_dir: folders of the image below this one are repeated below ``output_dir``.

    Raises:
        ValueError: the file to write is the label map of another image.
    """

    def __init__(self, keys: Any, output_dir: str | os.PathLike[str], data_root_dir: str = "") -> None:
        settings: dict[str, Any] = {
            "output_dir": output_dir,
            "data_root_dir": data_root_dir,
            "output_postfix": "seg",
            "separate_folder": False,
            "resample": False,
            "output_dtype": np.uint8,
            "print_log": False,
        }
        super().__init__(keys, output_ext=".nii.gz", writer=AtomicNibabelWriter, **settings)
        self.planar = SaveImaged(keys, output_ext=".png", writer=AtomicPILWriter, **settings)
        self.sources = Path(output_dir) / SOURCES

    def __call__(self, data: Any) -> Any:
        """Write the label maps of one item."""
        key = next(iter(self.keys))
        planar = data[key].ndim == 3
        source = os.path.abspath(str(data[key].meta["filename_or_obj"]))
        target = (self.planar if planar else self).saver.folder_layout.filename(subject=source)
        name = Path(os.path.relpath(target, self.sources.parent)).as_posix()
        known = json.loads(self.sources.read_text(encoding="utf-8")) if self.sources.is_file() else {}
        other = known.get(name, source)
        if other != source and os.path.exists(target):
            raise ValueError(
                f"{target}: is the label map of {other}, and that of {source} would replace it. Give another "
                "--output_dir, or segment both images in one call."
            )
        if name not in known or other != source:
            # Before the label map itself, so that an interruption leaves none without its source.
            write_json(self.sources, {**known, name: source})
        return self.planar(data) if planar else super().__call__(data)
