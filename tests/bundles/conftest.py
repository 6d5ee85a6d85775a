"""Tiny data sets, and the three bundles trained on them as a user would: through monai.bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel
import numpy as np
import pytest
import torch
from monai.utils import set_determinism
from PIL import Image

from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.data import save_dataset

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
SOURCE_SPLITS = ("train", "train", "train", "validation", "test")
LOOP = {
    "batch_size": 4,
    "epoch_length": 2,
    "max_epochs": 1,
    "val_interval": 1,
    "checkpoint_interval": 1,
    "preview_interval": 1,
}
SMALL: dict[int, dict[str, Any]] = {
    1: {**LOOP, "image_size": [32, 32], "pixel_spacing": [1.5, 1.5]},
    2: {"statistics_passes": 1, "statistics_batch_size": 4, "max_epochs": 2, "checkpoint_interval": 1},
    3: LOOP,
}
ARTIFACT = {1: "models/model.pt", 2: "models/style_flows.pt", 3: "models/model.pt"}


@dataclass(frozen=True)
class Chain:
    """Output folders of the three phases and the data set they were trained on."""

    dataset: Path
    phase1: Path
    phase2: Path
    phase3: Path

    def folders(self, phase: int) -> dict[str, str]:
        """Options that name the data set and the earlier phases."""
        earlier = {"phase1_dir": str(self.phase1), "phase2_dir": str(self.phase2)}
        names = list(earlier)[: phase - 1]
        return {"dataset_dir": str(self.dataset), **{name: earlier[name] for name in names}}

    def output(self, phase: int) -> Path:
        """Output folder of a phase."""
        return (self.phase1, self.phase2, self.phase3)[phase - 1]


def run(phase: int, config: str = "train", overlays: tuple[str, ...] = (), **options: Any) -> None:
    """Run a configuration of a shipped bundle; torch's and numpy's random states are left as they were."""
    configs = BUNDLES / PHASE_BUNDLES[phase] / "configs"
    files = [str(configs / f"{name}.json") for name in (config, *overlays)]
    with torch.random.fork_rng():
        state = np.random.get_state()
        try:
            monai.bundle.run(config_file=files, logging_file=False, **options)
        finally:
            set_determinism(seed=None)
            np.random.set_state(state)


def train_chain(dataset: Path, root: Path, overlays: dict[int, tuple[str, ...]] | None = None) -> Chain:
    """Train the three phases for a few steps each."""
    chain = Chain(dataset, root / "phase1", root / "phase2", root / "phase3")
    for phase in PHASE_BUNDLES:
        folders = {**chain.folders(phase), "output_dir": str(chain.output(phase))}
        run(phase, "train", (overlays or {}).get(phase, ()), **folders, **SMALL[phase])
    return chain


def make_dataset(folder: Path, spatial_dims: int) -> Path:
    """Write bright ellipses of three sites: colour images of disc and cup, or grey volumes of a prostate."""
    folder.mkdir()
    random = np.random.default_rng(spatial_dims)
    cases = []
    for domain in ("site_a", "site_b", "site_c"):
        for number, split in enumerate(SOURCE_SPLITS if domain == "site_a" else ("test",)):
            name = f"{domain}_{number}"
            write = write_image if spatial_dims == 2 else write_volume
            image, label = write(folder, name, *ellipse(random))
            cases.append(
                {
                    "id": name,
                    "domain": domain,
                    "group": name,
                    "split": split,
                    "image": image.name,
                    "label": label.name,
                    "sha256": {"image": sha256_file(image), "label": sha256_file(label)},
                    "spacing": None if spatial_dims == 2 else [1.0, 1.0, 3.0],
                }
            )
    content = {
        "format": 1,
        "name": f"ellipses_{spatial_dims}d",
        "spatial_dims": spatial_dims,
        "channels": 3 if spatial_dims == 2 else 1,
        "regions": {"disc": [1, 2], "cup": [2]} if spatial_dims == 2 else {"prostate": [1, 2]},
        "source_domain": "site_a",
        "cases": cases,
    }
    save_dataset(folder, content)
    return folder


def ellipse(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image (48, 48) in [0, 1] and label map of an ellipse, 1, with a brighter one, 2, in its middle."""
    y, x = np.mgrid[:48, :48]
    centre, radius = random.uniform(18, 30, 2), random.uniform(9, 14, 2)
    distance = ((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2
    label = (distance < 1).astype(np.uint8) + (distance < 0.3).astype(np.uint8)
    image = np.clip(0.2 + 0.3 * label + random.normal(0, 0.05, label.shape), 0, 1)
    return image, label


def write_image(folder: Path, name: str, image: np.ndarray, label: np.ndarray) -> tuple[Path, Path]:
    """Write a colour PNG and its label map."""
    paths = folder / f"{name}.png", folder / f"{name}_label.png"
    Image.fromarray((255 * np.stack([image, 0.7 * image, 0.5 * image], axis=-1)).astype(np.uint8)).save(paths[0])
    Image.fromarray(label).save(paths[1])
    return paths


def write_volume(folder: Path, name: str, image: np.ndarray, label: np.ndarray) -> tuple[Path, Path]:
    """Write a NIfTI volume of three slices, the first without a label, and its label map."""
    paths = folder / f"{name}.nii.gz", folder / f"{name}_label.nii.gz"
    affine = np.diag([-1.0, -1.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(np.stack([image] * 3, axis=-1).astype(np.float32), affine), paths[0])
    nibabel.save(nibabel.Nifti1Image(np.stack([0 * label, label, label], axis=-1), affine), paths[1])
    return paths


@pytest.fixture(scope="session")
def run_bundle() -> Callable[..., None]:
    """`run`: phase, configuration, overlays, options."""
    return run


@pytest.fixture(scope="session")
def small() -> dict[int, dict[str, Any]]:
    """Options by phase that make a training a matter of a second."""
    return SMALL


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set of 2-D colour images."""
    return make_dataset(tmp_path_factory.mktemp("images") / "dataset", 2)


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set of grey volumes."""
    return make_dataset(tmp_path_factory.mktemp("volumes") / "dataset", 3)


@pytest.fixture(scope="session")
def chain(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The three phases trained on images. Tests must not write to it."""
    return train_chain(images, tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="session")
def volume_chain(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The three phases trained on volumes. Tests must not write to it."""
    return train_chain(volumes, tmp_path_factory.mktemp("volume_chain"))


@pytest.fixture
def train_all() -> Callable[..., Chain]:
    """`train_chain`: data set, folder, overlays by phase."""
    return train_chain


@pytest.fixture
def train_phase(tmp_path: Path) -> Callable[..., Path]:
    """Train a phase after the earlier ones of a chain: phase, chain, then options over the small ones; its folder."""

    def train(phase: int, earlier: Chain, overlays: tuple[str, ...] = (), **options: Any) -> Path:
        folder = {"output_dir": str(tmp_path / f"phase{phase}")}
        run(phase, "train", overlays, **{**earlier.folders(phase), **SMALL[phase], **folder, **options})
        return Path({**folder, **options}["output_dir"])

    return train


@pytest.fixture(scope="session")
def user_error() -> Callable[..., str]:
    """Call something that fails, and return the text of the first error: MONAI wraps it once a configuration item."""

    def message(call: Callable[[], Any], *kinds: type[Exception]) -> str:
        with pytest.raises((ValueError, RuntimeError, FileNotFoundError)) as caught:
            call()
        error: BaseException = caught.value
        while error.__cause__ is not None:
            error = error.__cause__
        assert isinstance(error, kinds or (ValueError, FileNotFoundError)), repr(error)
        return str(error)

    return message


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without runs, to be copied: making one takes seconds."""
    mlflow = pytest.importorskip("mlflow")
    path = tmp_path_factory.mktemp("store") / "mlruns.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path
