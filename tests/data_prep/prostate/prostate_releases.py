"""Small releases of the prostate volumes, laid out as the public ones: names, dimensions, types and label values."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from data_prep.prostate.dataset import make_prostate_dataset
from mixstyleflow_monai.data import check_headers
from mixstyleflow_monai.data.dataset_description import DatasetDescription, load_dataset

# The labelled cases of Task05_Prostate; the numbers between them are the challenge's test cases.
DECATHLON_NUMBERS = (
    0, 1, 2, 4, 6, 7, 10, 13, 14, 16, 17, 18, 20, 21, 24, 25, 28, 29, 31, 32, 34, 35, 37, 38, 39, 40, 41, 42, 43, 44,
    46, 47,
)  # fmt: skip
SITE_NUMBERS: dict[str, Sequence[int]] = {
    "RUNMC": range(30),
    "BMC": range(30),
    "I2CVB": range(19),
    "UCL": (1, *range(26, 38)),
    "BIDMC": (0, 1, *range(3, 13)),
    "HK": range(38, 50),
}
SHAPE = (12, 10, 4)
# Oblique, like the published masks.
AFFINE = np.array([[0.6, 0, 0, -98.2], [0, 0.5744, 1.1561, -105.5], [0, -0.1734, 3.8293, -39.2], [0, 0, 0, 1.0]])


def save(path: Path, values: NDArray[Any], affine: NDArray[Any] = AFFINE) -> None:
    """Write a volume."""
    nib.save(nib.Nifti1Image(values, affine), path)


def label_of(zones: int, shape: tuple[int, ...] = SHAPE) -> NDArray[np.uint8]:
    """Return a gland of 1, with a part of 2 if there are two zones."""
    label = np.zeros(shape, dtype=np.uint8)
    label[3:9, 2:8, 1:3] = 1
    if zones == 2:
        label[4:7, 3:6, 1:3] = 2
    return label


def write_decathlon(parent: Path, numbers: Sequence[int] = DECATHLON_NUMBERS) -> Path:
    """Write ``Task05_Prostate`` with 4-D float volumes (T2, ADC) and labels 0, 1, 2; return its folder."""
    root = parent / "Task05_Prostate"
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (root / name).mkdir(parents=True)
    for number in numbers:
        name = f"prostate_{number:02d}.nii.gz"
        values = np.random.default_rng(number).uniform(0, 1500, (*SHAPE, 2)).astype(np.float32)
        nib.save(nib.Nifti1Image(values, AFFINE), root / "imagesTr" / name)
        nib.save(nib.Nifti1Image(label_of(2), AFFINE), root / "labelsTr" / name)
    (root / "imagesTs" / "prostate_03.nii.gz").write_bytes(b"not read")
    # The list is in no order, as published; "relase" and "licence" are spelt so.
    order = np.random.default_rng(0).permutation(np.array(numbers)).tolist()
    content = {
        "name": "PROSTATE",
        "description": "Prostate transitional zone and peripheral zone segmentation",
        "reference": "Radboud University, Nijmegen Medical Centre",
        "licence": "CC-BY-SA 4.0",
        "relase": "1.0 04/05/2018",
        "tensorImageSize": "4D",
        "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "numTraining": len(numbers),
        "numTest": 1,
        "training": [
            {"image": f"./imagesTr/prostate_{n:02d}.nii.gz", "label": f"./labelsTr/prostate_{n:02d}.nii.gz"}
            for n in order
        ],
        "test": ["./imagesTs/prostate_03.nii.gz"],
    }
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def write_tar(root: Path, archive: Path) -> Path:
    """Pack a release as it is published: plain tar, with the hidden files that macOS adds."""
    with tarfile.open(archive, "w") as tar:
        for path in [root, *sorted(root.rglob("*"))]:
            name = path.relative_to(root.parent)
            hidden = tarfile.TarInfo((name.parent / f"._{name.name}").as_posix())
            tar.addfile(hidden)
            tar.add(path, name.as_posix(), recursive=False)
    return archive


def write_sites(root: Path, numbers: Mapping[str, Sequence[int]] = SITE_NUMBERS) -> Path:
    """Write the six-site release: BMC says "_Segmentation"; RUNMC and BMC have two zones, the others one."""
    for index, (site, listed) in enumerate(numbers.items()):
        (root / site).mkdir(parents=True)
        (root / site / "._Case00.nii.gz").write_bytes(b"macOS")
        suffix = "Segmentation" if site == "BMC" else "segmentation"
        affine = np.diag([-0.625, -0.625, 3.0 + 0.1 * index, 1.0])
        for number in listed:
            values = np.random.default_rng([index, number]).integers(0, 900, SHAPE).astype(np.int16)
            nib.save(nib.Nifti1Image(values, affine), root / site / f"Case{number:02d}.nii.gz")
            label = label_of(2 if site in ("RUNMC", "BMC") else 1)
            nib.save(nib.Nifti1Image(label, affine), root / site / f"Case{number:02d}_{suffix}.nii.gz")
    return root


def import_releases(root: Path, output: Path, **options: Any) -> tuple[DatasetDescription, str]:
    """Run with both releases; return the data set and what was printed."""
    stream = io.StringIO()
    settings = {"decathlon": root / "Task05_Prostate", "sites": root / "sites", **options}
    path = make_prostate_dataset(output, **settings, console=Console(file=stream, width=160))
    return check_headers(load_dataset(path)), stream.getvalue()
