"""Phase II, first half: gather the channel statistics of the image decoder over the source domain."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from mixstyleflow_monai.artifacts import (
    check_lineage,
    check_same_sources,
    manifest_path,
    read_manifest,
    save_tensors,
    write_manifest,
)
from mixstyleflow_monai.data import TrainingLoader, epoch_seed
from mixstyleflow_monai.engines.lineage import load_style_flows
from mixstyleflow_monai.engines.segmentation_trainer import denoising_input
from mixstyleflow_monai.networks import DualDecoderNet, style_batch_norm
from mixstyleflow_monai.styles import IMAGE_LEVEL, GaussianStyleBank, channel_statistics
from mixstyleflow_monai.styles.images import makes_z_scored_images
from mixstyleflow_monai.styles.level_mix import NO_IMAGE_LEVEL

Statistics = dict[int, tuple[Tensor, Tensor]]
"""Level -> (means, standard deviations), (N, C) each."""


@torch.no_grad()
def gather_statistics(
    network: DualDecoderNet,
    loader: TrainingLoader,
    levels: Sequence[int],
    *,
    passes: int,
    noise_std: float,
    seed: int,
    device: torch.device,
    batch_norm: str = "batch",
    description: str = "style statistics",
) -> Statistics:
    """Run the frozen network over its images and keep mean and standard deviation of each channel and level.

    The input is what Phase I trained on (noisy, augmented and plain), at `IMAGE_LEVEL` too, where stylizers change the
    image without its noise. Batch norm uses the statistics that the stylizer of Phase III will use.

    Args:
        network: Phase I network.
        loader: batches of source images.
        levels: image-decoder levels, 0 to 4, and `IMAGE_LEVEL` for the images themselves.
        passes: how often to go over the loader, with fresh augmentation.
        noise_std: of the denoising noise.
        seed: of the noise.
        device: where to run.
        batch_norm: "batch" or "running", see `mixstyleflow_monai.networks.style_batch_norm`.
        description: text of the progress bar.

    Returns:
        Level -> (mean, std), (N, C) on the CPU.
    """
    unknown = sorted(set(levels) - set(range(IMAGE_LEVEL + 1)))
    if unknown or not levels:
        raise ValueError(f"levels={list(levels)}: expected some of 0 (latent) to 4 (last block) and 5 (the image).")
    if IMAGE_LEVEL in levels and makes_z_scored_images(network):
        raise ValueError(f"levels={list(levels)}: {IMAGE_LEVEL} is the image itself, and {NO_IMAGE_LEVEL}")
    collected: dict[int, list[tuple[Tensor, Tensor]]] = {level: [] for level in levels}
    generator = torch.Generator(device=device)
    network.to(device)
    with (
        style_batch_norm(network, batch_norm),
        tqdm(total=passes * len(loader), desc=description, mininterval=1.0) as bar,
    ):
        for number in range(1, passes + 1):
            loader.set_epoch(number)
            generator.manual_seed(epoch_seed(seed, number))
            for batch in loader:
                images = denoising_input(batch["image"].to(device), noise_std, generator)
                features = {**network.image_levels(network.encode(images)), IMAGE_LEVEL: images}
                for level in levels:
                    mean, std = channel_statistics(features[level])
                    collected[level].append((mean.cpu(), std.cpu()))
                bar.update()
    return {
        level: (torch.cat([mean for mean, _ in pairs]), torch.cat([std for _, std in pairs]))
        for level, pairs in collected.items()
    }


def save_statistics(path: str | os.PathLike[str], parts: Mapping[str, Statistics], **manifest: Any) -> None:
    """Write statistics as one file of tensors, ``train.2.mean`` and so on, and its manifest."""
    tensors = {
        f"{part}.{level}.{name}": value
        for part, statistics in parts.items()
        for level, pair in statistics.items()
        for name, value in zip(("mean", "std"), pair, strict=True)
    }
    save_tensors(path, tensors)
    write_manifest(path, "style_statistics", **manifest)


def load_statistics(path: str | os.PathLike[str], part: str) -> Statistics:
    """Read one part, "train" or "validation", of a statistics file."""
    tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    levels = sorted({int(key.split(".")[1]) for key in tensors if key.startswith(f"{part}.")})
    if not levels:
        raise ValueError(f"{path}: no part {part!r}; run phase 2 again.")
    return {level: (tensors[f"{part}.{level}.mean"], tensors[f"{part}.{level}.std"]) for level in levels}


def load_gaussian_styles(
    path: str | os.PathLike[str],
    network_path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    flows_path: str | os.PathLike[str] | None = None,
) -> GaussianStyleBank:
    """Fit Gaussians to the training images' statistics, and refuse those of another network.

    Args:
        path: ``style_statistics.pt`` of Phase II, with its manifest.
        network_path: ``model.pt`` that training starts from, with its manifest.
        device: where to put them.
        flows_path: flows whose temperatures to take, so that both densities reach as far; None for the defaults.
    """
    manifest = read_manifest(path, kind="style_statistics")
    check_lineage(read_manifest(network_path, kind="segmentation_network"), manifest)
    batch_norm = manifest["settings"].get("batch_norm", "batch")
    temperatures = None if flows_path is None else load_style_flows(flows_path, network_path).temperatures
    return GaussianStyleBank(load_statistics(path, "train"), temperatures, batch_norm=batch_norm).to(device)


def style_statistics_file(
    path: str | os.PathLike[str],
    *,
    network: DualDecoderNet,
    network_path: str | os.PathLike[str],
    loaders: Mapping[str, TrainingLoader],
    levels: Sequence[int],
    passes: int,
    noise_std: float,
    seed: int,
    device: str | torch.device,
    batch_norm: str = "batch",
    facts: Mapping[str, Any] | None = None,
) -> str:
    """Return the path of a statistics file of this network with these settings, gathering it first if need be.

    Args:
        path: the file, ``models/style_statistics.pt``.
        network: Phase I network.
        network_path: its file, recorded in the manifest.
        loaders: part ("train", "validation") -> loader of source images.
        levels: see `gather_statistics`.
        passes: over the training images; validation images are not augmented; their loader is gone over once,
            and like that of training it gives whole batches, so that a few images are left out or come again.
        noise_std: see `gather_statistics`.
        seed: see `gather_statistics`.
        device: see `gather_statistics`.
        batch_norm: see `gather_statistics`.
        facts: further settings on which the statistics depend.
    """
    settings = {"levels": list(levels), "passes": passes, "noise_std": noise_std, "seed": seed, **(facts or {})}
    settings["batch_norm"] = batch_norm
    if not _is_current(Path(path), network_path, settings):
        parts = {
            name: gather_statistics(
                network,
                loader,
                levels,
                passes=passes if name == "train" else 1,
                noise_std=noise_std,
                seed=seed,
                device=torch.device(device),
                batch_norm=batch_norm,
                description=f"style statistics, {name}",
            )
            for name, loader in loaders.items()
        }
        save_statistics(path, parts, made_from={"network": network_path}, facts={"settings": settings})
    return str(path)


class StyleStatisticsDataset(Dataset[dict[str, Tensor]]):
    """Rows of gathered statistics, one an image seen.

    Args:
        path: a statistics file; None for a placeholder without rows, see `mixstyleflow_monai.inspection`.
        part: "train" or "validation".

    Items:
        dict with ``"{level}.mean"`` and ``"{level}.std"``, (C,) each.
    """

    def __init__(self, path: str | os.PathLike[str] | None, part: str) -> None:
        if path is None:
            self.statistics: Statistics = {0: (torch.empty(0, 1), torch.empty(0, 1))}
            return
        read_manifest(path, kind="style_statistics")
        self.statistics = load_statistics(path, part)

    def __len__(self) -> int:
        """Return the number of images that were seen."""
        return len(next(iter(self.statistics.values()))[0])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one image's statistics at all levels."""
        return {
            f"{level}.{name}": value[index]
            for level, pair in self.statistics.items()
            for name, value in zip(("mean", "std"), pair, strict=True)
        }


def _is_current(path: Path, network_path: str | os.PathLike[str], settings: Mapping[str, Any]) -> bool:
    """True if the file was gathered from this network with these settings."""
    if not path.is_file() or not manifest_path(path).is_file():
        return False
    try:
        manifest = read_manifest(path, kind="style_statistics")
    except ValueError:  # stopped between the file and its manifest: gather again
        return False
    return check_same_sources(manifest, {"network": network_path}) and manifest["settings"] == dict(settings)
