"""Small releases of images and volumes, and ways to damage one of their files."""

from __future__ import annotations

import csv
import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml
from PIL import Image

from data_prep.__main__ import main

AFFINE = np.diag([-0.5, 0.75, 3.0, 1.0])
Damage = Callable[[Path], object]


def run(*words: object) -> int:
    """Run a command as its user does and return the exit status."""
    try:
        return main([str(word) for word in words])
    except SystemExit as end:
        return int(end.code or 0)


def left_out(output: Path) -> list[dict[str, str]]:
    """Return the rows of `left_out.csv`."""
    with open(output / "left_out.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def make_pictures(root: Path) -> Path:
    """Write two domains of colour images with grey labels of the values 0 and 1; return the spec."""
    for domain, count in (("home", 5), ("away", 2)):
        for number in range(count):
            for kind in ("images", "masks"):
                (root / domain / kind).mkdir(parents=True, exist_ok=True)
            values = np.random.default_rng([number, count]).integers(0, 255, (24, 20, 3), dtype=np.uint8)
            label = np.zeros(values.shape[:2], dtype=np.uint8)
            label[5:15, 5:15] = 1
            Image.fromarray(values).save(root / domain / "images" / f"p{number}.png")
            Image.fromarray(label).save(root / domain / "masks" / f"p{number}.png")
    return write_spec(root, 2, "{domain}/images/*", "{domain}/masks/{{stem}}.png")


def make_volumes(root: Path) -> Path:
    """Write two domains of volumes with labels of the values 0 and 1, one folder a patient; return the spec."""
    for domain, count in (("home", 5), ("away", 2)):
        for number in range(count):
            folder = root / domain / f"p{number}"
            folder.mkdir(parents=True)
            values = np.random.default_rng([number, count]).integers(-100, 900, (8, 7, 5)).astype(np.int16)
            label = np.zeros(values.shape, dtype=np.uint8)
            label[2:5, 2:5, 1:3] = 1
            nib.save(nib.Nifti1Image(values, AFFINE), folder / "t2.nii.gz")
            nib.save(nib.Nifti1Image(label, AFFINE), folder / "seg.nii.gz")
    return write_spec(root, 3, "{domain}/*/t2.nii.gz", "{{parent}}/seg.nii.gz")


def write_spec(root: Path, spatial_dims: int, images: str, labels: str) -> Path:
    """Write the spec of both domains beside their files."""
    content = {
        "name": "small",
        "spatial_dims": spatial_dims,
        "regions": {"organ": [1]},
        "source_domain": "home",
        "domains": {
            name: {"images": images.format(domain=name), "labels": labels.format(domain=name)}
            for name in ("home", "away")
        },
    }
    path = root / "spec.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, bytes | str]:
    """Return what is in a folder: bytes of files, targets of links."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def replace(content: bytes) -> Damage:
    return lambda path: path.write_bytes(content)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_checksum(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF
    path.write_bytes(content)


def unpack(path: Path) -> None:
    path.write_bytes(gzip.decompress(path.read_bytes()))


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def patch_header(offset: int, values: Any, kind: str) -> Damage:
    """Overwrite values in the header of a .nii.gz; the writers of nibabel would refuse or repair them."""

    def damage(path: Path) -> None:
        content = bytearray(gzip.decompress(path.read_bytes()))
        new = np.asarray(values, dtype=kind).tobytes()
        content[offset : offset + len(new)] = new
        path.write_bytes(gzip.compress(content))

    return damage


# Offsets of NIfTI-1: dim at 40, pixdim at 76, the rows of the sform at 280.
NEGATIVE_PIXDIM = patch_header(80, [-1.0], "<f4")
SINGULAR_AFFINE = patch_header(296, [0.0] * 4, "<f4")
NAN_AFFINE = patch_header(280, [np.nan] * 12, "<f4")
HUGE = patch_header(42, [30000] * 3, "<i2")
NO_VOXEL = patch_header(42, [0], "<i2")


def change_voxels(change: Callable[[Any], Any]) -> Damage:
    """Rewrite a volume with changed values on its affine."""

    def damage(path: Path) -> None:
        volume = nib.load(path)
        nib.save(nib.Nifti1Image(change(np.asarray(volume.dataobj)), volume.affine), path)

    return damage


def with_value(value: float) -> Damage:
    def change(values: Any) -> Any:
        values = values.astype(np.float32)
        values[2, 2, 2] = value
        return values

    return change_voxels(change)


def as_colours(values: Any) -> Any:
    return np.zeros(values.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


def move(path: Path) -> None:
    volume = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(volume.dataobj), AFFINE @ np.diag([-1, 1, 1, 1])), path)


def save_as(form: str, change: Callable[[Image.Image], Image.Image] = lambda image: image, **options: Any) -> Damage:
    """Rewrite a 2-D file in another format under its old name."""

    def damage(path: Path) -> None:
        with Image.open(path) as image:
            changed = change(image)
        changed.save(path, format=form, **options)

    return damage


def change_pixels(change: Callable[[Any], Any], form: str = "PNG") -> Damage:
    return save_as(form, lambda image: Image.fromarray(change(np.array(image))))


def png(width: int, height: int, *, bits: int, colours: int, rows: bytes) -> bytes:
    """Return a PNG; Pillow writes no 16-bit colours and no size that is not there."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


COLOURS_OF_16_BITS = replace(
    png(
        20,
        24,
        bits=16,
        colours=2,
        rows=b"".join(b"\0" + np.arange(0, 60000, 1000, dtype=">u2").tobytes() for _ in range(24)),
    )
)
HUGE_PNG = replace(png(30000, 30000, bits=8, colours=2, rows=b"\0" * 10))


def several_pages(form: str) -> Damage:
    def damage(path: Path) -> None:
        with Image.open(path) as image:
            first, second = image.copy(), image.rotate(90)
        first.save(path, format=form, save_all=True, append_images=[second])

    return damage


def to_palette(image: Image.Image) -> Image.Image:
    indexed = Image.fromarray(np.array(image))
    indexed = indexed.convert("P")
    indexed.putpalette([0, 0, 0, 200, 100, 0])
    return indexed
