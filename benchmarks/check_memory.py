"""How much memory does ``python -m data_prep check`` need? ``python -m benchmarks.check_memory [--volumes 100]``.

Makes synthetic volumes of 320 x 320 x 20 voxels with their labels (about 6 MB a case, in a temporary folder) and
checks a quarter of them, then all of them, each time in fresh processes. The table shows the largest resident size of
the main process and of one worker; their sum over the workers is an upper bound, as pages that processes share count
several times. Volumes are read one after the other, so the bound is the same for any number of them.
"""

from __future__ import annotations

import io
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import fire
import nibabel as nib
import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from data_prep.check import check_dataset
from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.data import save_dataset

SHAPE = (320, 320, 20)
SPACING = (0.625, 0.625, 3.6)
LIMIT_MIB = 2048
# Linux gives kilobytes, macOS bytes.
_UNITS_A_MIB = 2**20 if sys.platform == "darwin" else 2**10


def main(volumes: int = 100, workers: int = 2, folder: str | None = None) -> None:
    """Make the volumes, check them and print time and memory.

    Args:
        volumes: how many, at least 16.
        workers: processes of the check.
        folder: where to make them; a temporary folder by default. They are removed afterwards.

    Raises:
        ValueError: too few volumes.
        SystemExit: the check found errors or needed more than 2 GiB.
    """
    if volumes < 16:
        raise ValueError(f"--volumes: found {volumes}, allowed: 16 or more, so that a quarter of them can be divided")
    table = Table("volumes", "s", "s a volume", "main MiB", "largest worker MiB", f"bound of {workers} workers MiB")
    place = Path(tempfile.mkdtemp(prefix="check-memory-", dir=folder))
    try:
        entries = [_make_case(place, number) for number in tqdm(range(volumes), desc="make", unit="volume")]
        largest = 0.0
        for count in (volumes // 4, volumes):
            _describe(place, entries[:count])
            # A process of its own, because the largest size of a process never goes down again.
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                status, seconds, own, worker = pool.submit(_measure, place, workers).result()
            if status:
                raise SystemExit(f"the check of {count} volumes found errors")
            bound = own + workers * worker
            largest = max(largest, bound)
            cells = (seconds, seconds / count, own, worker, bound)
            table.add_row(str(count), *(f"{cell:.{2 if cell < 1 else 0}f}" for cell in cells))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    Console().print(table)
    if largest > LIMIT_MIB:
        raise SystemExit(f"{largest:.0f} MiB are more than {LIMIT_MIB} MiB")


def _make_case(place: Path, number: int) -> dict[str, Any]:
    """Write one volume of noise and its label; return its entry in ``dataset.json``."""
    generator = np.random.default_rng(number)
    image = generator.integers(0, 1000, SHAPE, dtype=np.int16)
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[100:200, 120:180, 5:15] = 1
    files = {}
    for kind, values in (("image", image), ("label", label)):
        path = place / kind / f"{number:05d}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(values, np.diag((*SPACING, 1.0))), path)
        files[kind] = path
    return {
        "id": f"case{number:05d}",
        "domain": "site",
        "group": f"case{number:05d}",
        "split": ("train", "train", "validation", "test")[number % 4],
        **{kind: path.relative_to(place).as_posix() for kind, path in files.items()},
        "sha256": {kind: sha256_file(path) for kind, path in files.items()},
        "spacing": list(SPACING),
    }


def _describe(place: Path, entries: list[dict[str, Any]]) -> None:
    content = {"format": 1, "name": "noise", "spatial_dims": 3, "channels": 1, "regions": {"block": [1]}}
    save_dataset(place, {**content, "source_domain": "site", "cases": entries})


def _measure(place: Path, workers: int) -> tuple[int, float, float, float]:
    """Return exit status, seconds, and the largest resident sizes in MiB of this process and of a worker."""
    start = time.perf_counter()
    status = check_dataset(place, workers=workers, console=Console(file=io.StringIO()))
    seconds = time.perf_counter() - start
    sizes = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return status, seconds, sizes[0] / _UNITS_A_MIB, sizes[1] / _UNITS_A_MIB


if __name__ == "__main__":
    fire.Fire(main)
