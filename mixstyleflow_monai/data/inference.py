"""Inputs and outputs of inference: lists of images, and label maps written on the images' own grid."""

from __future__ import annotations

import copy
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor, NibabelWriter, PILWriter
from monai.transforms import Compose, SaveImaged
from torch.utils.data import Dataset

from mixstyleflow_monai.artifacts import atomic_path, sha256_file, write_json
from mixstyleflow_monai.data.dataset_description import load_dataset, read_json
from mixstyleflow_monai.data.file_search import folders_below, search
from mixstyleflow_monai.stopping import locked

SOURCES = "label_map_sources.json"
"""In a folder of label maps: by a label map's place below the folder its ``image`` and, once written, ``sha256``."""

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
            pattern (without these either), or a list of files; None for the test cases of the data set.
        dataset_dir: data set that is used where ``images`` is None.
        source_only: take only the source domain's test cases of the data set.

    Raises:
        FileNotFoundError: nothing found.
        ValueError: a file that is no image by its suffix, or two files whose label maps would have one name.
    """
    if images is None:
        description = load_dataset(dataset_dir)
        if source_only and not description.source_domain:
            raise ValueError(f"{description.path}: source_domain is null: no images of the source. Give --input.")
        cases = description.datalist("test", description.source_domain if source_only else None)
        return [{key: item[key] for key in ("image", "case_id", "domain")} for item in cases]
    if isinstance(images, str | os.PathLike):
        path = Path(images)
        if path.is_dir():
            files = _images([p for folder in _image_folders(path) for p in folder.iterdir() if _is_image(p)], images)
        elif path.is_file():
            files = [path]
        elif path.is_symlink():
            files = _images([path], images)
        else:
            pattern = (path.relative_to(path.anchor) if path.anchor else path).as_posix()
            files = _images([p for p in search(Path(path.anchor or "."), pattern) if not p.is_dir()], images)
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
    return os.path.abspath(path).removesuffix(path.name[len(path.name) - len(_suffix(path)) :])


def _image_folders(folder: Path) -> Iterator[Path]:
    """Yield a folder and those below it, but for hidden ones, such as those of a run that was killed."""
    return folders_below(folder, hidden=False, skip_closed=True)


def _images(paths: Sequence[Path], images: Any) -> list[Path]:
    """Return what is to be segmented of the files that were found: no hidden ones, and no label maps that we wrote.

    Args:
        paths: files, links to files and dead links.
        images: what the user gave, for messages.

    Raises:
        FileNotFoundError: a link that leads nowhere, such as to a file that was not fetched; nothing but label maps.
    """
    visible = [p for p in paths if not p.name.startswith(".")]
    dead = sorted(p for p in visible if p.is_symlink() and not p.exists())
    if dead:
        more = f", and {len(dead) - 1} more," if len(dead) > 1 else ""
        raise FileNotFoundError(f"{dead[0]}{more} is a link that leads nowhere. Fetch the file, or remove the link.")
    # A record tells of label maps in the folders below its own as well.
    folders = {folder for p in visible for folder in (p.absolute().parent, *p.absolute().parent.parents)}
    records = (folder / SOURCES for folder in folders if (folder / SOURCES).is_file())
    written = {os.path.realpath(record.parent / name) for record in records for name in _read_sources(record)}
    files = sorted(p for p in visible if p.is_file() and os.path.realpath(p) not in written)
    if visible and not files:
        raise FileNotFoundError(f"{images}: all {len(visible)} files are label maps that inference wrote. Give images.")
    return files


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
        if isinstance(max_slices, bool) or not isinstance(max_slices, int) or max_slices < 1:
            raise ValueError(f"max_images={max_slices!r}: expected a whole number of at least 1.")
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

    def set_metadata(self, meta_dict: Any, resample: bool = True, **options: Any) -> None:
        """Take place and units of the image; MONAI would write a label map without units."""
        super().set_metadata(meta_dict, resample, **options)
        self.units = (meta_dict or {}).get("xyzt_units", 0)

    def write(self, filename: Any, verbose: bool = False, **kwargs: Any) -> None:
        """Write the file."""
        header = nib.Nifti1Header()
        header.set_data_dtype(self.output_dtype)
        header["xyzt_units"] = int(self.units) or nib.nifti1.unit_codes["mm"]
        with atomic_path(filename) as partial:
            super().write(str(partial), verbose=verbose, header=header, **kwargs)


class AtomicPILWriter(PILWriter):
    """MONAI's PNG writer, with a temporary name and a rename."""

    def write(self, filename: Any, verbose: bool = False, **kwargs: Any) -> None:
        """Write the file."""
        with atomic_path(filename) as partial:
            super().write(str(partial), verbose=verbose, **kwargs)


class SaveLabeld(SaveImaged):
    """Save integer label maps, uint8, as NIfTI (volumes) or PNG (images), named ``<image>_seg``.

    Beside them, `SOURCES` tells the image and the SHA-256 of each. Only what an earlier call wrote for the same image
    is replaced, and only if nobody changed it since.

    A subclass of MONAI's transform, so that MONAI Label, which saves results itself, knows to leave it out.

    Args:
        keys: label maps (1, H, W[, D]) with the metadata of their image.
        output_dir: folder to write to.
        data_root_dir: folders of the image below this one are repeated below ``output_dir``.

    Raises:
        ValueError: the file to write is there, as the label map of another image, changed since it was written, or not
            written by inference.
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
        self.written = 0
        self.empty: list[str] = []

    def check(self, datalist: Sequence[Mapping[str, Any]]) -> None:
        """Refuse before the first image is segmented what would be refused when its label map is written.

        Args:
            datalist: MONAI datalist with ``image``. A NIfTI file is taken for a volume.

        Raises:
            ValueError: as of the class.
        """
        known = _read_sources(self.sources)
        for item in datalist:
            source = os.path.abspath(str(item["image"]))
            target, name = self._place(source, planar=".nii" not in _suffix(Path(source)))
            if os.path.exists(target):
                _check_own(target, source, known.get(name, {}))

    def report(self) -> None:
        """Print how many label maps were written since this was made, where, and which of them are empty."""
        print(f"wrote {self.written} label maps to {self.sources.parent}")
        if self.empty:
            shown = ", ".join(self.empty[:5]) + (", ..." if self.empty[5:] else "")
            print(f"note: nothing was found in {len(self.empty)} of them: {shown}")

    def _place(self, source: str, *, planar: bool) -> tuple[str, str]:
        """Return the file of an image's label map, and its name in `SOURCES`."""
        layout: Any = copy.copy((self.planar if planar else self).saver.folder_layout)
        layout.makedirs = False
        target = str(layout.filename(subject=_subject(source)))
        return target, Path(os.path.relpath(target, self.sources.parent)).as_posix()

    def __call__(self, data: Any) -> Any:
        """Write the label maps of one item."""
        key = next(iter(self.keys))
        planar = data[key].ndim == 3
        source = os.path.abspath(str(data[key].meta["filename_or_obj"]))
        subject = _subject(source)
        target, name = self._place(source, planar=planar)
        if os.path.exists(target):
            _check_own(target, source, _read_sources(self.sources).get(name, {}))
        # Before the label map itself, so that an interruption leaves none without its source.
        _record(self.sources, name, {"image": source})
        label = MetaTensor(data[key].as_tensor(), meta={**data[key].meta, "filename_or_obj": subject})
        item = {**data, key: label}
        if planar:
            self.planar(item)
        else:
            super().__call__(item)
        _record(self.sources, name, {"image": source, "sha256": sha256_file(target)})
        self.written += 1
        if not bool(torch.as_tensor(data[key]).any()):
            self.empty.append(name)
        return data


def _subject(source: str) -> str:
    # MONAI knows .nii.gz in small letters alone, and would keep half of .NII.GZ in the name.
    return _without_suffix(Path(source)) + _suffix(Path(source))


def _record(path: Path, name: str, entry: Mapping[str, str]) -> None:
    """Enter a label map into `SOURCES`; other processes may write into the same folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        write_json(path, {**_read_sources(path), name: dict(entry)})


def _read_sources(path: Path) -> dict[str, dict[str, str]]:
    """Return `SOURCES`; earlier versions wrote the images alone."""
    content = read_json(path) if path.is_file() else {}
    return {name: {"image": entry} if isinstance(entry, str) else entry for name, entry in content.items()}


def _check_own(target: str | os.PathLike[str], source: str, written: Mapping[str, str]) -> None:
    """Raise unless a file is what inference wrote for this image, and has not changed since."""
    remedy = "Give another --output_dir, or move the file away."
    if not written:
        raise ValueError(
            f"{target}: is there and was not written by inference, and the label map of {source} would replace it. "
            f"{remedy}"
        )
    if written["image"] != source:
        raise ValueError(
            f"{target}: is the label map of {written['image']}, and that of {source} would replace it. Give another "
            "--output_dir, or segment both images in one call."
        )
    if sha256_file(target) != written.get("sha256", sha256_file(target)):
        raise ValueError(f"{target}: was changed since inference wrote it, and would be replaced. {remedy}")
