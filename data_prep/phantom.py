"""The embedded multi-site phantom: a data set with a real domain shift that needs no download.

``prostate`` is a set of pelvic T2-weighted volumes of one source and five unseen sites, ``fundus`` a set of colour
pictures of the optic disc by one source and three unseen cameras. Anatomy has one distribution everywhere; what differs
between domains is how it is imaged, see `data_prep.phantom_sites` and `data_prep.phantom_cameras`.

Every case has its own random streams, keyed by task, domain and number: more cases or domains change no other case.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image
from tqdm import tqdm

from data_prep.building import building
from data_prep.contact_sheet import contact_sheet
from data_prep.phantom_cameras import CAMERAS, Camera, photograph
from data_prep.phantom_fundus import build_eye, draw_fundus
from data_prep.phantom_prostate import build_prostate, draw_prostate
from data_prep.phantom_sites import PROSTATE_SITES, MriSite, render_volume
from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.data.dataset_description import (
    DATASET_FILE,
    load_dataset,
    read_json,
    save_dataset,
    verify_hashes,
)
from mixstyleflow_monai.data.splits import assign_splits

GENERATOR = "mixstyleflow_monai embedded phantom"
GENERATOR_VERSION = 1
"""Raised with every change that alters the images of a seed."""

TASKS: dict[str, dict[str, Any]] = {
    "prostate": {
        "spatial_dims": 3,
        "channels": 1,
        "regions": {"prostate": [1, 2]},
        "domains": PROSTATE_SITES,
        "source_cases": 24,
        "unseen_cases": 8,
    },
    "fundus": {
        "spatial_dims": 2,
        "channels": 3,
        "regions": {"disc": [1, 2], "cup": [2]},
        "domains": CAMERAS,
        "source_cases": 60,
        "unseen_cases": 20,
    },
}
"""What each task consists of; the first domain is the source."""

SHEET_FILE = "contact_sheet.png"


def make_phantom(
    task: str,
    output: str | os.PathLike[str],
    seed: int = 0,
    *,
    source_cases: int | None = None,
    unseen_cases: int | None = None,
) -> Path:
    """Write the phantom of one task: ``dataset.json``, ``images/``, ``labels/`` and ``contact_sheet.png``.

    The folder appears only when it is complete. A complete phantom of the same request is left as it is.

    Args:
        task: ``"prostate"`` or ``"fundus"``.
        output: folder to write; it must not exist, be empty, or hold the same phantom.
        seed: seed of all cases and of the split, 0 or more.
        source_cases: cases of the source domain, 3 or more; 24 volumes or 60 pictures by default.
        unseen_cases: cases of each unseen domain, 1 or more; 8 volumes or 20 pictures by default.

    Returns:
        The absolute path of the folder.

    Raises:
        ValueError: unknown task, a negative seed, too few cases, or an ``output`` that holds something else.
    """
    request = _request(task, seed, source_cases, unseen_cases)
    target = Path(os.path.abspath(output))
    if _already_there(target, request):
        print(f"{target}: already holds this phantom ({task}, seed {seed}); nothing to do.")
        return target
    with building(target) as partial:
        _write(partial, request)
    return target


def _request(task: str, seed: int, source_cases: int | None, unseen_cases: int | None) -> dict[str, Any]:
    """Check the arguments and return what identifies a phantom."""
    if task not in TASKS:
        raise ValueError(f"phantom: unknown task {task!r}, allowed: {', '.join(TASKS)}. Give one with --task.")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"phantom: seed is {seed!r}, it must be a whole number of 0 or more.")
    counts = {}
    for name, value, least in (("source_cases", source_cases, 3), ("unseen_cases", unseen_cases, 1)):
        counts[name] = TASKS[task][name] if value is None else value
        if not isinstance(counts[name], int) or counts[name] < least:
            raise ValueError(f"phantom: {name} is {counts[name]!r}, it must be a whole number of {least} or more.")
    return {"generator": GENERATOR, "version": GENERATOR_VERSION, "task": task, "seed": seed, **counts}


def _already_there(target: Path, request: dict[str, Any]) -> bool:
    """Return whether ``target`` holds the requested phantom; refuse anything else that is not an empty folder."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    found: Any = None
    if (target / DATASET_FILE).is_file():
        try:
            found = read_json(target / DATASET_FILE).get("processing", {})
        except (ValueError, AttributeError):
            found = None
    # Another domain as the source keeps the facts of the phantom that it was made from.
    ours = isinstance(found, dict) and "resplit" not in found
    if ours and all(found.get(key) == value for key, value in request.items()):
        damaged = [mismatch.path for mismatch in verify_hashes(load_dataset(target))]
        if damaged:
            more = f", nor are {len(damaged) - 1} more" if damaged[1:] else ""
            raise ValueError(
                f"{damaged[0]}: is not as it was written{more}. Nothing was changed: remove {target} and make the "
                "phantom again, or give another --output."
            )
        return True
    holds = "holds another phantom or data set" if isinstance(found, dict) else "exists and is not empty"
    raise ValueError(
        f"{target}: {holds}; wanted {request['task']} phantom, seed {request['seed']}. "
        "Nothing was changed: give another --output, or remove this one first."
    )


def _write(folder: Path, request: dict[str, Any]) -> None:
    """Make all cases, the description and the contact sheet in ``folder``."""
    task = TASKS[request["task"]]
    for name in ("images", "labels"):
        (folder / name).mkdir()
    writer: Callable[[Path, Any, int, np.random.SeedSequence], dict[str, Any]]
    writer = _write_volume if request["task"] == "prostate" else _write_picture
    jobs = [
        (domain, number)
        for index, domain in enumerate(task["domains"])
        for number in range(request["unseen_cases"] if index else request["source_cases"])
    ]
    cases = [
        writer(folder, domain, number, _case_seed(request, domain.name, number))
        for domain, number in tqdm(jobs, desc=f"{request['task']} phantom", unit="case")
    ]
    source = task["domains"][0].name
    save_dataset(
        folder,
        {
            "format": 1,
            "name": f"{request['task']} phantom",
            "spatial_dims": task["spatial_dims"],
            "channels": task["channels"],
            "regions": task["regions"],
            "source_domain": source,
            "cases": assign_splits(cases, source, seed=request["seed"]),
            "processing": {
                **request,
                "split": {"seed": request["seed"]},
                "domains": {domain.name: asdict(domain) for domain in task["domains"]},
            },
        },
    )
    contact_sheet(load_dataset(folder), folder / SHEET_FILE)


def _case_seed(request: dict[str, Any], domain: str, number: int) -> np.random.SeedSequence:
    """Return the random stream of one case; names enter by their CRC-32, so that order does not matter."""
    keys = (zlib.crc32(request["task"].encode()), zlib.crc32(domain.encode()), number)
    return np.random.SeedSequence(request["seed"], spawn_key=keys)


def _entry(folder: Path, domain: str, number: int, suffix: str, spacing: list[float] | None) -> dict[str, Any]:
    """Return a case of ``dataset.json``, without its split and its hashes."""
    name = f"{domain}_{number:03d}"
    paths = {"image": f"images/{name}{suffix}", "label": f"labels/{name}{suffix}"}
    return {"id": name, "domain": domain, "group": name, **paths, "spacing": spacing}


def _hashed(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    return {**entry, "sha256": {key: sha256_file(folder / entry[key]) for key in ("image", "label")}}


def _write_volume(folder: Path, site: MriSite, number: int, seed: np.random.SeedSequence) -> dict[str, Any]:
    """Make and write one volume and its label; return its case."""
    sizes, anatomy, scan = (np.random.default_rng(child) for child in seed.spawn(3))
    volume = render_volume(site, build_prostate(draw_prostate(sizes, endorectal=site.endorectal), anatomy), scan)
    entry = _entry(folder, site.name, number, ".nii.gz", [float(value) for value in volume.spacing])
    for key, data in (("image", volume.image), ("label", volume.label)):
        nifti = nib.Nifti1Image(data, volume.affine)
        nifti.header.set_xyzt_units("mm")
        nib.save(nifti, folder / entry[key])
    return _hashed(folder, entry)


def _write_picture(folder: Path, camera: Camera, number: int, seed: np.random.SeedSequence) -> dict[str, Any]:
    """Make and write one picture and its label; return its case."""
    sizes, anatomy, exposure = (np.random.default_rng(child) for child in seed.spawn(3))
    eye = build_eye(draw_fundus(sizes), anatomy)
    entry = _entry(folder, camera.name, number, ".png", None)
    Image.fromarray(photograph(camera, eye, exposure)).save(folder / entry["image"])
    Image.fromarray(eye.label).save(folder / entry["label"])
    return _hashed(folder, entry)
