"""Damages of one file, and what the commands say to each."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.data_prep import bad_files as bad

AGAIN = "copy or download it again"


class Bad(NamedTuple):
    """One damage.

    Attributes:
        role: "image" or "label", the file to damage.
        damage: what is done to it.
        folder: what `folder` says, a regular expression.
        check: what `check` says, a regular expression.
        remedy: what both advise, a regular expression.
        stops: `folder` stops, because the same would be wrong in every file; otherwise the case is left out.
        header: the header alone tells it, so that training refuses it at its start.
    """

    role: str
    damage: bad.Damage
    folder: str
    check: str
    remedy: str
    stops: bool = False
    header: bool = False


VOLUMES = {
    "truncated gzip": Bad("image", bad.cut_off, "t2.nii.gz is damaged or cut off", "is damaged or cut off", AGAIN),
    "wrong checksum": Bad(
        "image", bad.flip_checksum, "is damaged or cut off .CRC", "is damaged or cut off .CRC", AGAIN
    ),
    "no trailer": Bad(
        "image",
        lambda path: path.write_bytes(path.read_bytes()[:-8]),
        "is damaged or cut off",
        "is damaged or cut off",
        AGAIN,
    ),
    "text": Bad(
        "image",
        bad.replace(b"no image"),
        "t2.nii.gz cannot be read",
        "cannot be read",
        "its content is text",
        header=True,
    ),
    "wrong extension": Bad(
        "image", bad.unpack, "cannot be read", "cannot be read", r"uncompressed NIfTI volume \(.nii\)"
    ),
    "zero bytes": Bad(
        "image", bad.replace(b""), r"it is empty \(0 bytes\)", r"it is empty \(0 bytes\)", AGAIN, header=True
    ),
    "NaN": Bad("image", bad.with_value(np.nan), "has 1 voxels that are NaN", "has 1 NaN values", "replace them"),
    "infinity": Bad("image", bad.with_value(-np.inf), "or infinite", "has 1 infinite values", "replace them"),
    "negative spacing": Bad(
        "image",
        bad.NEGATIVE_PIXDIM,
        "has the voxel size -1 x 0.75 x 3 mm",
        "has the voxel size -1 x 0.75 x 3 mm in pixdim, expected numbers above 0",
        "write the header again with the right spacing",
        header=True,
    ),
    "singular affine": Bad(
        "image", bad.SINGULAR_AFFINE, "singular", "has a singular", "write its affine again", header=True
    ),
    "NaN affine": Bad("image", bad.NAN_AFFINE, "non-finite affine", "non-finite affine", "write its affine again"),
    "4-D": Bad(
        "image",
        bad.change_voxels(lambda values: np.stack([values, values], -1)),
        r"has 4 dimensions \(8, 7, 5, 2\), expected 3",
        r"has shape \(8, 7, 5, 2\), expected three axes",
        "split it|volume that was labelled",
        header=True,
    ),
    "5-D": Bad(
        "image",
        bad.change_voxels(lambda values: values[..., None, None]),
        r"has 5 dimensions \(8, 7, 5, 1, 1\)",
        r"has shape \(8, 7, 5, 1, 1\), expected three axes",
        "axes of length 1",
    ),
    "RGB": Bad(
        "image",
        bad.change_voxels(bad.as_colours),
        "has RGB colours",
        "has RGB colours",
        "store one channel",
        header=True,
    ),
    "complex": Bad(
        "image",
        bad.change_voxels(lambda values: values.astype(np.complex64)),
        "has complex numbers",
        r"has complex numbers \(complex64\), expected one real number",
        "store the magnitude",
        header=True,
    ),
    "huge claim": Bad(
        "image",
        bad.HUGE,
        r"claims shape \(30000, 30000, 30000\)",
        r"claims shape \(30000, 30000, 30000\), 54,000,000,000,352 bytes, and the file of .* cannot hold them",
        AGAIN,
        header=True,
    ),
    "no voxel": Bad(
        "image",
        bad.NO_VOXEL,
        r"has shape \(0, 7, 5\)",
        r"shape \(0, 7, 5\), so no voxel",
        "export it again",
        header=True,
    ),
    "symlink loop": Bad(
        "image", bad.link_to_itself, "in a circle", "is a link that leads nowhere", "put the file itself", header=True
    ),
    "label in a circle": Bad("label", bad.link_to_itself, "seg.nii.gz is a link", "in a circle", "put the file itself"),
    "no label": Bad("label", Path.unlink, "no label home/p1/seg.nii.gz", "does not exist", "add it|restore"),
    "larger label": Bad(
        "label",
        bad.change_voxels(lambda values: np.pad(values, (0, 1))),
        r"image has shape \(8, 7, 5\), label \(9, 8, 6\)",
        r"has shape \(8, 7, 5\), its label \(9, 8, 6\)",
        "give the label that was drawn on this image",
        header=True,
    ),
    "moved label": Bad(
        "label",
        bad.move,
        r"placed 3\.5 mm apart by their affines, allowed 0\.05 mm",
        "placed 8 mm apart",
        "image's affine to the label",
        header=True,
    ),
    "complex label": Bad(
        "label",
        bad.change_voxels(lambda values: values.astype(np.complex64)),
        "seg.nii.gz has complex numbers",
        "has complex numbers",
        "store the magnitude",
    ),
    "fraction": Bad(
        "label",
        bad.with_value(0.9999),
        "label has values 0, 0.9999, 1;",
        "0.9999 that are not whole",
        "round (it|the)",
        stops=True,
    ),
    "next to 1": Bad(
        "label", bad.with_value(1.0000001), r"1\.0000001 is", r"1\.0000001 that", "nearest neighbour", stops=True
    ),
    "NaN label": Bad(
        "label",
        bad.with_value(np.nan),
        "label has values 0, 1, nan;",
        "values nan, allowed: 0, 1",
        "NaN and infinity",
        stops=True,
    ),
    "unknown value": Bad(
        "label",
        bad.with_value(7),
        "label has values 0, 1, 7;",
        "values 7, allowed: 0, 1",
        "(Add 7|add them) to",
        stops=True,
    ),
}
PICTURES = {
    "truncated PNG": Bad("image", bad.cut_off, "p1.png cannot be read", "cannot be read .*truncated", AGAIN),
    "text": Bad(
        "image", bad.replace(b"no image"), "p1.png cannot be read", "cannot be read", "its content is text", header=True
    ),
    "DICOM": Bad("image", bad.replace(b"\0" * 128 + b"DICM"), "cannot be read", "cannot be read", "data_prep dicom"),
    "zero bytes": Bad(
        "image", bad.replace(b""), r"it is empty \(0 bytes\)", r"it is empty \(0 bytes\)", AGAIN, header=True
    ),
    "16-bit colours": Bad(
        "image", bad.COLOURS_OF_16_BITS, "has 16-bit", "only the upper 8 bits", "8 bits a colour", header=True
    ),
    "pages": Bad(
        "image",
        bad.several_pages("TIFF"),
        "p1.png has 2 frames",
        "has 2 frames",
        "was labelled|each as a file",
        header=True,
    ),
    "animation": Bad(
        "image", bad.several_pages("PNG"), "p1.png has 2 frames", "has 2 frames", "labelled|each as a file"
    ),
    "CMYK": Bad(
        "image",
        bad.save_as("JPEG", lambda image: image.convert("CMYK")),
        "p1.png has mode CMYK",
        r"has 4 channels \(mode CMYK\), dataset.json says 3",
        "convert it to RGB",
        header=True,
    ),
    "floats": Bad(
        "image",
        bad.save_as("TIFF", lambda image: image.convert("F")),
        "has floating-point values",
        r"has 1 channels \(mode F\), dataset.json says 3",
        "scale the values|convert it to RGB",
    ),
    "huge claim": Bad(
        "image", bad.HUGE_PNG, "claims more than 179 million", "claims more than 179 million", "into tiles", header=True
    ),
    "symlink loop": Bad(
        "image", bad.link_to_itself, "in a circle", "is a link that leads nowhere", "put the file itself", header=True
    ),
    "larger label": Bad(
        "label",
        bad.change_pixels(lambda values: np.pad(values, ((0, 6), (0, 0)))),
        "image and label differ in size: 24 x 20 and 30 x 20",
        "is 20 x 24 pixels, its label 20 x 30",
        "give the label that was drawn on this image",
        header=True,
    ),
    "truncated label": Bad("label", bad.cut_off, "p1.png cannot be read", "cannot be read .*truncated", AGAIN),
    "fraction": Bad(
        "label",
        bad.change_pixels(lambda values: values.astype(np.float32) * np.float32(0.9999), "TIFF"),
        r"label has values 0, 0\.9999",
        r"0\.9999.* that are not whole numbers",
        "nearest neighbour",
        stops=True,
    ),
    "colours": Bad(
        "label",
        bad.save_as("PNG", lambda image: Image.new("RGB", image.size, (9, 8, 7))),
        "label of mode RGB has colours",
        "its label has 3 channels, expected one integer map",
        "(convert p[01].png to grey or|Save it as) indexed",
        stops=True,
        header=True,
    ),
    "unknown value": Bad(
        "label",
        bad.change_pixels(lambda values: values * 7),
        "label has values 0, 7;",
        "values 7, allowed: 0, 1",
        "(Add 7|add them) to",
        stops=True,
    ),
}
