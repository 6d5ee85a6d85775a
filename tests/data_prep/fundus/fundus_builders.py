"""Small fundus releases with the folders, names, formats and label values of the public ones."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = (36, 40)
Label = NDArray[np.uint8]

CUP_BLACK = {0: 255, 1: 128, 2: 0}
RIM_WHITE = {0: 0, 1: 255, 2: 128}
INDEX = {0: 0, 1: 1, 2: 2}
RIGA_FOLDERS = {
    "BinRushed": ("BinRushed1", "BinRushed2"),
    "Magrabia": ("MagrabiaFemale", "MagrabiaMale"),
}


def disc_label(seed: int, size: tuple[int, int] = SIZE) -> Label:
    """Return 0 background, 1 rim, 2 cup: two ellipses that share a centre, drawn by the seed."""
    generator = np.random.default_rng(seed)
    row, column = (side / 2 + generator.uniform(-3, 3) for side in size)
    radius = generator.uniform(7, 10)
    rows, columns = np.mgrid[: size[0], : size[1]]
    distance = np.hypot((rows - row) / radius, (columns - column) / (0.9 * radius))
    return np.where(distance < 0.55, 2, np.where(distance < 1, 1, 0)).astype(np.uint8)


def coded(label: Label, values: Mapping[int, int]) -> Label:
    """Replace 0, 1 and 2 by the values of a release."""
    return np.array([values[value] for value in range(3)], dtype=np.uint8)[label]


def write(path: Path, values: NDArray[Any], mode: str | None = None) -> None:
    """Write an array as an image, in a mode of Pillow's if one is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path)


def write_photograph(path: Path, seed: int, size: tuple[int, int] = SIZE) -> None:
    """Write a colour image of noise."""
    write(path, np.random.default_rng(1000 + seed).integers(0, 255, (*size, 3), dtype=np.uint8))


def write_list(path: Path, rows: Sequence[Sequence[str]], columns: Sequence[str] = ("image", "mask")) -> None:
    """Write a csv list."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *rows])


def riga_rows(
    root: Path, domain: str, part: str, folders: tuple[str, str], values: Mapping[int, int], count: int
) -> list[tuple[str, str]]:
    """Write RIGA images with the tif masks of six raters; the rows name the mask without its rater.

    The seed of rater ``n`` is that of the image plus ``100 n``. File names repeat from one subfolder to the next.
    """
    images, masks = folders
    rows = []
    for number in range(count):
        folders_of_domain = RIGA_FOLDERS.get(domain, ("Labeled",))
        sub = folders_of_domain[number % len(folders_of_domain)]
        name = f"{sub}/image{number // len(folders_of_domain) + (10 if part == 'test' else 0)}.tif"
        seed = sum(map(ord, f"{domain}{part}")) * 7 + number
        write_photograph(root / images / domain / name, seed)
        for rater in range(1, 7):
            mask = root / masks / domain / name.replace(".tif", f"-{rater}.tif")
            write(mask, coded(disc_label(seed + 100 * rater), values))
        rows.append((f"{images}/{domain}/{name}", f"{masks}/{domain}/{name}"))
    return rows


def five_domain(root: Path, count: int = 4) -> None:
    """Write the release of Zenodo record 8009107: ``count`` training and 2 test images a domain."""
    for domain in ("BinRushed", "Magrabia"):
        for part, number in (("train", count), ("test", 2)):
            rows = riga_rows(root, domain, part, ("RIGA", "RIGA-mask"), CUP_BLACK, number)
            write_list(root / f"{domain}_{part}.csv", rows)
    for index, domain in enumerate(("REFUGE", "ORIGA", "Drishti_GS")):
        for part, number in (("train", count), ("test", 2)):
            rows = []
            for case in range(number):
                seed = 50 * index + case + (20 if part == "test" else 0)
                image, mask = (f"{domain}/{part}/{kind}/{part}{case}.png" for kind in ("image", "mask"))
                write_photograph(root / image, seed)
                write(root / mask, coded(disc_label(seed), CUP_BLACK), "RGB" if domain == "REFUGE" else None)
                rows.append((image, mask))
            write_list(root / f"{domain}_{part}.csv", rows)


def riga_plus(root: Path, count: int = 4) -> None:
    """Write RIGA+ (Zenodo record 6325549) with one of its MESSIDOR domains and a list without masks."""
    for domain in ("BinRushed", "Magrabia", "MESSIDOR_Base1"):
        for part, number in (("train", count), ("test", 2)):
            rows = riga_rows(root, domain, part, ("RIGA", "RIGA-mask"), RIM_WHITE, number)
            write_list(root / f"{domain}_{part}.csv", rows)
    write_photograph(root / "RIGA/MESSIDOR_Base1/Unlabeled/image99.tif", 99)
    write_list(root / "MESSIDOR_Base1_unlabeled.csv", [["RIGA/MESSIDOR_Base1/Unlabeled/image99.tif"]], ["image"])


def dofe(root: Path) -> None:
    """Write the data of DoFE; the masks of Domain2 have the values that lossy compression leaves."""
    for number in range(1, 5):
        for part, count in (("train", 3), ("test", 1)):
            for case in range(count):
                seed = 40 * number + case + (10 if part == "test" else 0)
                folder, name = root / f"Domain{number}" / part / "ROIs", f"{part}{case}.png"
                write_photograph(folder / "image" / name, seed)
                mask = coded(disc_label(seed), CUP_BLACK)
                if number == 2:
                    noise = np.random.default_rng(seed).integers(-50, 51, mask.shape)
                    mask = (mask + noise).clip(0, 255).astype(np.uint8)
                write(folder / "mask" / name, mask, "RGB" if number == 3 else None)


def refuge(root: Path) -> None:
    """Write REFUGE as its archives unpack: each in a folder of its own, the test masks by diagnosis."""
    sets = (
        ("REFUGE-Training400/Training400/Glaucoma", "Annotation-Training400/Disc_Cup_Masks/Glaucoma", "g", 2),
        ("REFUGE-Training400/Training400/Non-Glaucoma", "Annotation-Training400/Disc_Cup_Masks/Non-Glaucoma", "n", 3),
        ("REFUGE-Validation400", "REFUGE-Validation400-GT/Disc_Cup_Masks", "V", 2),
        ("Test400", "REFUGE-Test-GT/Disc_Cup_Masks/G", "T", 1),
    )
    for index, (images, masks, letter, count) in enumerate(sets):
        for case in range(1, count + 1):
            seed = 30 * index + case
            write_photograph(root / images / f"{letter}{case:04d}.jpg", seed)
            write(root / masks / f"{letter}{case:04d}.bmp", coded(disc_label(seed), CUP_BLACK))
    hidden = root / "__MACOSX" / "Test400" / "._T0001.jpg"
    hidden.parent.mkdir(parents=True)
    hidden.write_bytes(b"resource fork")


def expert_maps(seed: int) -> tuple[Label, Label]:
    """Return soft maps of disc and cup: 255 times the share of four experts, whose labels differ."""
    labels = [disc_label(seed) if expert < 2 else disc_label(seed + 500 * expert) for expert in range(4)]
    shares = [np.mean([label >= value for label in labels], axis=0) for value in (1, 2)]
    disc, cup = (np.floor(255 * share).astype(np.uint8) for share in shares)
    return disc, cup


def drishti(root: Path) -> None:
    """Write Drishti-GS as released, in the folder that its archive makes."""
    for part, truth, numbers in (("Training", "GT", (2, 4, 8)), ("Test", "Test_GT", (1, 3))):
        folder = root / "Drishti-GS1_files" / part
        for number in numbers:
            name = f"drishtiGS_{number:03d}"
            write_photograph(folder / "Images" / f"{name}.png", number)
            for kind, values in zip(("OD", "cup"), expert_maps(number), strict=True):
                write(folder / truth / name / "SoftMap" / f"{name}_{kind}segSoftmap.png", values)


def windows(root: Path) -> None:
    """Write the windows of Drishti-GS (palette masks, one image of another shape) and of REFUGE (wider, RGB masks)."""
    for number in range(4):
        size = (80, 40) if number == 3 else SIZE
        write_photograph(root / "drishti_gs/images" / f"drishtiGS_{number:03d}.png", number, size)
        mask = Image.fromarray(disc_label(number, size)).convert("P")
        mask.putpalette([0, 0, 0, 200, 100, 0, 100, 200, 0])
        (root / "drishti_gs/masks").mkdir(exist_ok=True)
        mask.save(root / "drishti_gs/masks" / f"drishtiGS_{number:03d}.png")
    write_photograph(root / "refuge_train/images/g0001.png", 50, (600, 580))
    label = np.pad(disc_label(50), ((282, 282), (270, 270)))
    write(root / "refuge_train/masks/g0001.png", coded(label, CUP_BLACK), "RGB")
