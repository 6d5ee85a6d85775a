"""What the tests of MONAI Label work with: oblique volumes with nested regions, and a network trained on them."""

from __future__ import annotations

import importlib.util
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import monai.bundle
import nibabel
import numpy as np
import torch
from monai.utils import set_determinism
from nibabel import orientations

from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.data import save_dataset

ROOT = Path(__file__).resolve().parents[2]
REGIONS = {"organ": [1, 2], "core": [2]}
SHAPE, SPACING = (60, 72, 6), (1.0, 1.0, 3.0)
SPLITS = ("train", "train", "train", "train", "validation", "test")


def tool(name: str) -> ModuleType:
    """A script of ``tools/monai_label`` as a module."""
    full = f"monai_label_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, ROOT / "tools" / "monai_label" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[full] = module
    return sys.modules[full]


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and label of a bright ellipsoid, 1, with a brighter one, 2, in it; off the centre, axes to L, P and S."""
    random = np.random.default_rng(seed)
    centre, radius = random.uniform((22, 38, 2.2), (28, 46, 3.2)), random.uniform((9, 13, 2), (13, 18, 3))
    grid = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    distance = sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radius, strict=True))
    label = (distance < 1).astype(np.uint8) + (distance < 0.3).astype(np.uint8)
    return np.clip(0.2 + 0.3 * label + random.normal(0, 0.04, SHAPE), 0, 1).astype(np.float32), label


def save(path: Path, array: np.ndarray, axes: str = "LPS", degrees: float = 0.0) -> Path:
    """Write an array whose axes point to L, P and S in another order of axes, turned about the body's long axis."""
    turn, cosine, sine = np.eye(4), np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn[:2, :2] = [[cosine, -sine], [sine, cosine]]
    affine = turn @ np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    affine[:3, 3] = (31.0, -12.5, 87.0)
    change = orientations.ornt_transform(orientations.axcodes2ornt("LPS"), orientations.axcodes2ornt(axes))
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine).as_reoriented(change), path)
    return path


def make_dataset(folder: Path) -> Path:
    """Write volumes of a source site and an unseen one."""
    cases = []
    for number, split in enumerate((*SPLITS, "test")):
        name, domain = f"case{number}", "home" if number < len(SPLITS) else "away"
        image, label = draw(number)
        files = {"image": f"{name}.nii.gz", "label": f"{name}_label.nii.gz"}
        for key, array in (("image", image), ("label", label)):
            save(folder / files[key], array)
        hashes = {key: sha256_file(folder / file) for key, file in files.items()}
        entry = {"id": name, "domain": domain, "group": name, "split": split, **files, "sha256": hashes}
        cases.append({**entry, "spacing": list(SPACING)})
    content = {"format": 1, "name": "ellipsoids", "spatial_dims": 3, "channels": 1, "regions": REGIONS}
    save_dataset(folder, {**content, "source_domain": "home", "cases": cases})
    return folder


def run(phase: int, config: str = "train", overrides: dict[str, Any] | None = None, **options: Any) -> None:
    """Run a configuration of a shipped bundle; torch's and numpy's random states are left as they were."""
    file = ROOT / "bundles" / PHASE_BUNDLES[phase] / "configs" / f"{config}.json"
    with torch.random.fork_rng():
        state = np.random.get_state()
        try:
            monai.bundle.run(config_file=str(file), logging_file=False, **options, **(overrides or {}))
        finally:
            set_determinism(seed=None)
            np.random.set_state(state)


def train_phases(root: Path, steps: int) -> Path:
    """Train the phases, the first for so many steps; the folder of the third, with ``style_flows.pt`` beside it."""
    dataset = make_dataset(root / "dataset")
    loop = {"max_epochs": 1, "val_interval": 1, "preview_interval": 1, "batch_size": 8, "learning_rate": 0.003}
    first = {"image_size": [64, 64], "pixel_spacing": [1.25, 1.25], "epoch_length": steps, "selection": "last"}
    folders = {f"phase{k}_dir": str(root / f"phase{k}") for k in (1, 2)}
    run(1, dataset_dir=str(dataset), output_dir=str(root / "phase1"), **loop, **first)
    second = {"statistics_passes": 1, "statistics_batch_size": 8, "max_epochs": 2}
    run(2, dataset_dir=str(dataset), output_dir=str(root / "phase2"), phase1_dir=folders["phase1_dir"], **second)
    third = {**folders, **loop, "learning_rate": 0.0001, "epoch_length": 2}
    run(3, dataset_dir=str(dataset), output_dir=str(root / "phase3"), **third)
    return root / "phase3"


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Dice of two masks, 0 to 1."""
    return float(2 * (found & truth).sum() / max(1, found.sum() + truth.sum()))


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
