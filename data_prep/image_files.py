"""Reading images and labels as they are found, and writing them in the form that a data set holds.

2-D files go through Pillow; for volumes see `data_prep.volume_files`. A file that cannot be used raises
:class:`UnusableCase`, whose text says why; the caller reports the case and goes on. A label value without a meaning
raises ``ValueError``, because it is a mistake in the spec and would repeat in every file.
"""

from __future__ import annotations

import hashlib
import math
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mixstyleflow_monai.data.file_faults import Fault, lossy_label_faults, open_picture, picture_faults, unreadable
from mixstyleflow_monai.data.label_values import whole_labels

_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L")
_GREY_MODES = ("1", "L", "LA", *_WIDE_MODES)
_COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBX")
_PIECE = 2**20
"""Values converted together."""


class UnusableCase(Exception):
    """A case that is reported and left out; the text is the reason, ``remedy`` what to do about it."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy


class SeveralValues(ValueError):
    """A label file with more than one value a pixel; ``fault`` says it without the file."""

    def __init__(self, path: Path, fault: str) -> None:
        super().__init__(
            f"{path}: label {fault}, expected one value a pixel (indexed, grey, or equal channels). Save it as indexed "
            "PNG and map the indices with `label_values`."
        )
        self.fault = fault


def name_of(path: Path) -> str:
    """Return the file name without its suffix, where ``.nii.gz`` is one suffix."""
    return path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem


def similar_name(path: Path) -> str:
    """Return a note on the file beside a missing one whose name only looks the same; empty if there is none.

    Linux takes "A.png" and "a.png" for two names, and so letters that macOS writes in two parts.
    """
    if not path.parent.is_dir():
        return ""
    wanted = _plain(path.name)
    found = next((name for name in sorted(os.listdir(path.parent)) if _plain(name) == wanted), None)
    if path.is_dir():
        return ", but a folder of this name"
    return f", but {found} (other upper and lower case, or accents written otherwise)" if found else ""


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def stored_values(path: Path) -> str:
    """Return what a file stores: "colours" (even if all are grey), "wide" (grey of more than 8 bits) or "grey".

    Files that cannot be read count as "grey".
    """
    try:
        with open_picture(path) as image:
            mode = image.mode
    except (OSError, ValueError, Image.DecompressionBombError):
        return "grey"
    # Other modes count as grey: such images are left out.
    return "wide" if mode in _WIDE_MODES else "colours" if mode in _COLOUR_MODES else "grey"


def open_image(path: str | os.PathLike[str], *, is_label: bool = False) -> Image.Image:
    """Read a 2-D file with all its pixels.

    Raises:
        UnusableCase: missing, unreadable, a file of several frames, colours of 16 bits, or stored turned (EXIF); a
            label of a format that changes its values.
    """
    try:
        with open_picture(path) as image:
            # Indexed colours are turned into RGB where an image is wanted.
            refuse(picture_faults(Path(path), image, is_label=True))
            refuse(lossy_label_faults(Path(path), image) if is_label else [])
            image.load()
            return image.copy()
    except UnusableCase:
        raise
    except Exception as error:  # whatever Pillow raises, the file is at fault
        raise unusable(unreadable(Path(path), error), error) from error


def refuse(faults: Sequence[Fault]) -> None:
    """Leave out a case for the first error among the faults of a file."""
    for fault in faults:
        if fault.severity == "error":
            raise unusable(fault)


def unusable(fault: Fault, error: Exception | None = None) -> UnusableCase:
    """Return a fault as the reason for leaving out a case; of an unexpected error the kind is enough."""
    known = error is None or not fault.text.startswith("cannot be read (")
    text = fault.text if known else f"cannot be read ({type(error).__name__})"
    return UnusableCase(f"{fault.file.name} {text}", fault.remedy)


def read_grey(path: str | os.PathLike[str]) -> Image.Image:
    """Read any 2-D file as 8-bit grey; wide values are scaled by their maximum, which Pillow itself would clip."""
    image = open_image(path)
    if image.mode in (*_WIDE_MODES, "F"):
        values = np.asarray(image, dtype=np.float64)
        image = Image.fromarray((values.clip(0) * 255 / max(float(values.max()), 1.0)).astype(np.uint8))
    return image.convert("L")


def read_image(path: Path, channels: int) -> NDArray[Any]:
    """Read a 2-D image.

    Args:
        path: a file that Pillow reads.
        channels: 1 (colours become their luminance) or 3 (grey is repeated).

    Returns:
        (rows, columns) or (rows, columns, 3), uint8; uint16 for a grey file of more than 8 bits and one channel.

    Raises:
        UnusableCase: unreadable, or values that a PNG cannot hold.
    """
    image = open_image(path)
    if image.mode == "F":
        raise UnusableCase(
            f"{path.name} has floating-point values; convert it to 8 or 16 bits", "scale the values before"
        )
    if image.mode not in (*_GREY_MODES, *_COLOUR_MODES):
        reason = f"{path.name} has mode {image.mode}, and how it becomes RGB depends on a colour profile"
        raise UnusableCase(reason, "convert it to RGB with the program that made it")
    if image.mode not in _WIDE_MODES:
        if image.mode == "P":
            image = image.convert("RGBA")
        return np.asarray(image.convert("L" if channels == 1 else "RGB"))
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise UnusableCase(f"{path.name} has values {low} to {high}; convert it to 0 to 65535")
    if channels == 1:
        return values.astype(np.uint16)
    # Pillow has no 16-bit colour: keep the high byte, as it does for colour files of 16 bits.
    return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)


def read_label(path: Path) -> NDArray[Any]:
    """Read a 2-D label as (rows, columns) integers; of an indexed file the index is taken, not its colour.

    Raises:
        UnusableCase: unreadable, or of a format that changes values.
        SeveralValues: a colour file whose channels differ, or one of which a part is transparent.
    """
    image = open_image(path, is_label=True)
    values = np.asarray(image)
    if image.mode == "1":
        return values.astype(np.uint8)
    # The label may be in the transparency alone, and colours that nobody sees may be anything.
    if image.mode in ("LA", "PA", "RGBA") and np.ptp(values[..., -1]) > 0:
        raise SeveralValues(path, f"of mode {image.mode} is transparent in places")
    if image.mode in ("LA", "PA"):
        return values[..., 0]
    if values.ndim == 3:
        if image.mode not in ("RGB", "RGBA") or (values[..., :3] != values[..., :1]).any():
            raise SeveralValues(path, f"of mode {image.mode} has colours")
        return values[..., 0]
    return values


def remap(label: NDArray[Any], label_values: Mapping[int, int], path: Path) -> NDArray[np.uint8]:
    """Replace each value by the one that ``label_values`` gives for it.

    Raises:
        ValueError: the label has a value without an entry.
    """
    label = whole_labels(label)
    found = np.unique(label)
    unknown = [value for value in found.tolist() if value not in label_values]
    if unknown:
        shown = ", ".join(map(number, found[:12].tolist())) + (", ..." if len(found) > 12 else "")
        known = f"{path}: label has values {shown}; `label_values` knows {', '.join(map(str, sorted(label_values)))}."
        fractions = [value for value in unknown if value != math.floor(value)] if np.isfinite(unknown).all() else []
        if not np.isfinite(unknown).all():
            raise ValueError(f"{known} A label has a whole number everywhere: replace NaN and infinity by 0.")
        if fractions:
            raise ValueError(
                f"{known} {', '.join(map(number, fractions[:12]))} is no whole number: round the label, and where it "
                "was resampled, do it again with nearest neighbour."
            )
        hint = (
            " So many values point to a lossy format or to an image in place of a label." if len(unknown) > 12 else ""
        )
        raise ValueError(
            f"{known} Add {', '.join(map(number, unknown[:12]))} to `label_values` of this domain (0 is "
            f"background).{hint}"
        )
    result = np.zeros(label.shape, dtype=np.uint8)
    for value in found.tolist():
        result[label == value] = label_values[value]
    return result


def number(value: float) -> str:
    """Write a number as shortly as a file may hold it: as float32 if it is one, and never so that 0.9999999 is 1."""
    if math.isfinite(value) and value == math.floor(value):
        return str(int(value))
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return str(single) if float(single) == value else str(float(value))


def centre_crop(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Keep the central ``size`` rows and columns.

    Raises:
        UnusableCase: the image is smaller than ``size``.
    """
    rows, columns = values.shape[:2]
    if rows < size[0] or columns < size[1]:
        reason = f"image of {rows} x {columns} is smaller than centre_crop {size[0]} x {size[1]}"
        raise UnusableCase(reason, "lower centre_crop, or exclude the image")
    top, left = (rows - size[0]) // 2, (columns - size[1]) // 2
    return values[top : top + size[0], left : left + size[1]]


def write_png(path: Path, values: NDArray[Any]) -> None:
    """Write (rows, columns) uint8 or uint16, or (rows, columns, 3) uint8, as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(values)).save(path, format="PNG")


class ValueHash:
    """Hash of an array that is equal for equal numbers, whatever type, byte order or scale factor they are stored with.

    Values are rounded to float32 after scaling, as the network gets them: whole numbers with a scale factor and their
    scaled copy in floating point are then equal. Given piece by piece, the hash does not depend on the pieces' size.
    """

    def __init__(self, axis: int) -> None:
        """Start with no value.

        Args:
            axis: the axis that the pieces divide: 0 for images, 2 for volumes, which files store in this order.
        """
        self._axis = axis
        self._digest = hashlib.sha256()
        self._shape: list[int] = []

    def update(self, piece: NDArray[Any]) -> None:
        """Add the next piece; all pieces have the same size along the other axes."""
        # Adding 0 turns -0.0 into 0.0. With the divided axis outermost, the bytes of the pieces follow on.
        with np.errstate(over="ignore"):
            values = piece.astype(np.float32) + np.float32(0.0)
        self._digest.update(np.ascontiguousarray(values.T if self._axis else values).data)
        before = self._shape[self._axis] if self._shape else 0
        self._shape = list(piece.shape)
        self._shape[self._axis] += before

    def hexdigest(self) -> str:
        """Return the hash of shape and values."""
        whole = self._digest.copy()
        whole.update(repr(self._shape).encode())
        return whole.hexdigest()


def array_hash(values: NDArray[Any], axis: int = 0) -> str:
    """Return the :class:`ValueHash` of an array in memory, of which one piece at a time is converted.

    Args:
        values: image (rows, columns) or (rows, columns, colours), or volume (x, y, z).
        axis: 0 for images, 2 for volumes.
    """
    result = ValueHash(axis)
    along = values.shape[axis]
    step = max(1, _PIECE * along // max(values.size, 1))
    for start in range(0, along, step):
        result.update(values[(slice(None),) * axis + (slice(start, start + step),)])
    return result.hexdigest()
