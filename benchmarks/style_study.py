"""Where do the flows reach, and what does the decoder paint? Measured on a finished run, unseen domains included.

``python -m benchmarks.style_study RUN --dataset_dir DATASET --output FOLDER`` reads ``RUN/phase1`` and ``RUN/phase2``
and writes ``style_study.json`` and ``levels.png`` (styles in two dimensions); `benchmarks.style_tables` does it for the
comparisons of `benchmarks.methods` and makes the tables of docs/method_study.md. For understanding only: nothing here
may choose a setting, because it looks at unseen domains.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mixstyleflow_monai.artifacts import atomic_path, write_json
from mixstyleflow_monai.data import DatasetDescription, SliceDataset, Task, load_dataset
from mixstyleflow_monai.engines import load_network, load_style_flows
from mixstyleflow_monai.engines.style_preview import batch_dice
from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.networks import DualDecoderNet, untracked_batch_norm
from mixstyleflow_monai.styles import IMAGE_LEVEL, FlowStyleMix, channel_statistics

BATCH = 20
SAMPLES = 2000
FACTORS = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Multiples of the levels' own temperatures."""


def main(run: str, dataset_dir: str, output: str, slices_a_domain: int = 100) -> None:
    """Measure and write.

    Args:
        run: folder of a run with phase1/ and phase2/.
        dataset_dir: its data set.
        output: folder to write to.
        slices_a_domain: at most so many labelled slices, evenly spaced.
    """
    root, folder = Path(run), Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    model = root / "phase1" / "models" / "model.pt"
    task, description = Task.from_model(model), load_dataset(dataset_dir)
    network = DualDecoderNet(**task.network_settings())
    load_network(network, model).eval().requires_grad_(False)
    bank = load_style_flows(root / "phase2" / "models" / "style_flows.pt", model)
    images, targets = read_domains(description, task, slices_a_domain)
    styles = {name: level_styles(network, batch, bank.levels) for name, batch in images.items()}
    running = {name: level_styles(network, batch, bank.levels, running=True) for name, batch in images.items()}
    source = description.source_domain
    result = {
        "data": description.name,
        "source": source,
        "temperatures": {str(level): bank.temperatures[level] for level in bank.levels},
        "slices": {name: len(batch) for name, batch in images.items()},
        "levels": {str(level): study_level(bank, level, source, styles) for level in bank.levels},
        "mean_abs_score_by_running_statistics": {
            str(level): {
                name: float(score.abs().mean()) for name, score in standard_scores(running, source, level).items()
            }
            for level in bank.levels
        },
        "anatomy": study_anatomy(bank, network, task, images[source], targets[source]),
        "images": study_images(bank, network, source, images),
    }
    write_json(folder / "style_study.json", result)
    save_projections(bank, styles, source, folder / "levels.png")
    print(f"wrote {folder / 'style_study.json'} and levels.png")


def read_domains(
    description: DatasetDescription, task: Task, count: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return domain -> images (N, c, H, W) and targets: the source's training slices, the others' test slices."""
    images, targets = {}, {}
    for domain in description.domains:
        split = "train" if domain == description.source_domain else "test"
        data = SliceDataset(
            description.datalist(split, domain), task.training_preprocessing(), slices="labelled", progress=False
        )
        # Spread over the whole list, and whole batches: batch norm sees a batch of one domain.
        keep = np.linspace(0, len(data) - 1, min(count, len(data))).astype(int)
        items = [data[int(position)] for position in keep]
        images[domain] = torch.stack([item["image"] for item in items])
        targets[domain] = torch.stack([item["label"] for item in items])
    return images, targets


@torch.no_grad()
def level_styles(
    network: DualDecoderNet, images: Tensor, levels: tuple[int, ...], *, running: bool = False
) -> dict[int, Tensor]:
    """Return level -> (N, 2C) means and standard deviations of the image decoder's channels.

    With ``running`` batch norm uses its running statistics, as inference does; otherwise those of the batch, as Phase
    II and the stylizer do.
    """
    collected: dict[int, list[Tensor]] = {level: [] for level in levels}
    with contextlib.nullcontext() if running else untracked_batch_norm(network):
        for batch in images.split(BATCH):
            features = network.image_levels(network.encode(batch))
            for level in levels:
                collected[level].append(torch.cat(channel_statistics(features[level]), dim=1))
    return {level: torch.cat(parts) for level, parts in collected.items()}


def standard_scores(styles: Mapping[str, Mapping[int, Tensor]], source: str, level: int) -> dict[str, Tensor]:
    """Return domain -> (N, 2C) styles of a level, less the source's mean, over the source's standard deviation."""
    own = styles[source][level]
    return {name: (of[level] - own.mean(0)) / own.std(0).clamp_min(1e-6) for name, of in styles.items()}


def study_level(
    bank: StyleFlowBank, level: int, source: str, styles: Mapping[str, Mapping[int, Tensor]]
) -> dict[str, Any]:
    """Compare the styles of each domain, and samples of each temperature, with the source's, in its standard scores."""
    own = styles[source][level]
    centre, scale = own.mean(0), own.std(0).clamp_min(1e-6)
    scores = standard_scores(styles, source, level)
    samples = {factor: (_sample(bank, level, factor) - centre) / scale for factor in FACTORS[1:]}
    samples_in = (_sample(bank, level, None) - centre) / scale
    result: dict[str, Any] = {
        "mean_abs_score": {name: float(value.abs().mean()) for name, value in scores.items()},
        "mean_abs_score_of_samples": {
            "temperature 1": float(samples_in.abs().mean()),
            **{f"{factor:g} x": float(value.abs().mean()) for factor, value in samples.items()},
        },
        "unseen": {},
    }
    for name, value in scores.items():
        if name == source:
            continue
        result["unseen"][name] = {
            "mmd_to_source": mmd(value, scores[source]),
            **{
                label: {
                    "mmd": mmd(value, drawn),
                    "channel_coverage": coverage(value, drawn),
                    "inside_envelope": inside(value, drawn),
                }
                for label, drawn in (("temperature 1", samples_in), *((f"{f:g} x", s) for f, s in samples.items()))
            },
        }
    return result


def _sample(bank: StyleFlowBank, level: int, factor: float | None) -> Tensor:
    """Return (SAMPLES, 2C) styles at a multiple of the level's temperature; None is temperature 1."""
    temperature = 1.0 if factor is None else factor * bank.temperatures[level]
    generator = torch.Generator().manual_seed(level)
    return torch.cat(bank.sample(level, SAMPLES, temperature=temperature, generator=generator), dim=1)


def mmd(first: Tensor, second: Tensor) -> float:
    """Return the unbiased squared maximum mean discrepancy with Gaussian kernels of five widths about the median."""
    second = second[: max(200, len(first))]
    joined = torch.cat([first, second])
    distances = torch.cdist(joined, joined).square()
    median = distances[distances > 0].median()
    kernel = sum(torch.exp(-distances / (factor * median)) for factor in (0.25, 0.5, 1.0, 2.0, 4.0)) / 5.0
    kernel = torch.as_tensor(kernel)
    n, m = len(first), len(second)
    within = (kernel[:n, :n].sum() - kernel[:n, :n].trace()) / (n * (n - 1))
    beyond = (kernel[n:, n:].sum() - kernel[n:, n:].trace()) / (m * (m - 1))
    return float(within + beyond - 2.0 * kernel[:n, n:].mean())


def coverage(values: Tensor, samples: Tensor) -> float:
    """Return the share of single statistics that lie within the central 99 % of the samples of their channel."""
    low, high = torch.quantile(samples, torch.tensor([0.005, 0.995]), dim=0)
    return float(((values >= low) & (values <= high)).float().mean())


def inside(values: Tensor, samples: Tensor) -> float:
    """Return the share of styles that are as near to a sample as 95 % of the samples are to another one."""
    half = len(samples) // 2
    nearest = torch.cdist(samples[:half], samples[half:]).amin(1)
    return float((torch.cdist(values, samples[half:]).amin(1) <= torch.quantile(nearest, 0.95)).float().mean())


@torch.no_grad()
def study_anatomy(
    bank: StyleFlowBank, network: DualDecoderNet, task: Task, images: Tensor, target: Tensor
) -> dict[str, dict[str, float]]:
    """Return what is left of the anatomy in stylised source images, by temperature and output."""
    result: dict[str, dict[str, float]] = {}
    for output in ("detail", "decoded"):
        for factor in FACTORS:
            styled = stylised(bank, network, images, factor, output)
            result[f"{output}, {factor:g} x"] = {
                "dice": batch_dice(network, styled, target, task.encoding),
                "gradient_correlation": float(gradient_correlation(images, styled).mean()),
            }
    result["plain"] = {"dice": batch_dice(network, images, target, task.encoding), "gradient_correlation": 1.0}
    return result


@torch.no_grad()
def stylised(
    bank: StyleFlowBank,
    network: DualDecoderNet,
    images: Tensor,
    factor: float,
    output: str,
    levels: Sequence[int] | None = None,
) -> Tensor:
    """Return images with a style at every level, drawn at a multiple of the temperatures; 0 is the plain decoding."""
    parts = []
    settings: dict[str, Any] = {"output": output, "seed": 0, "levels": levels}
    if factor > 0:
        settings["temperatures"] = {level: factor * value for level, value in bank.temperatures.items()}
    stylizer = FlowStyleMix(bank, **settings)
    for batch in images.split(BATCH):
        with untracked_batch_norm(network):
            latent = network.encode(batch)
        style = stylizer.draw(len(batch), probability=1.0 if factor > 0 else 0.0)
        parts.append(stylizer.stylize(network, batch, latent, style))
    return torch.cat(parts)


def gradient_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return, for each image, the correlation of the gradient magnitudes of two versions of it, (N,)."""
    magnitudes = []
    for images in (first, second):
        down, across = torch.gradient(images.mean(1), dim=(1, 2))
        magnitudes.append((down.square() + across.square()).sqrt().flatten(1))
    return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(*magnitudes, strict=True)]).nan_to_num()


@torch.no_grad()
def study_images(
    bank: StyleFlowBank, network: DualDecoderNet, source: str, images: Mapping[str, Tensor]
) -> dict[str, dict[str, float]]:
    """Return, for each unseen domain, how far its images are from the nearest source image, plain and stylised.

    The distance is the mean over channels of the Wasserstein distance between grey values, on a scale of 0 to 1.
    """
    pools = {"plain": images[source]}
    for factor in FACTORS[1:]:
        pools[f"{factor:g} x"] = stylised(bank, network, images[source], factor, "detail")
    for level in (IMAGE_LEVEL,) if IMAGE_LEVEL in bank.levels else ():
        others = [other for other in bank.levels if other != level]
        for name, levels in ((f"1 x, level {level} alone", [level]), (f"1 x, without level {level}", others)):
            pools[name] = stylised(bank, network, images[source], 1.0, "detail", levels)
    result: dict[str, dict[str, float]] = {}
    for name, batch in images.items():
        if name != source:
            result[name] = {label: float(_nearest(batch, pool).mean()) for label, pool in pools.items()}
    return result


def _nearest(images: Tensor, pool: Tensor) -> Tensor:
    """Return, for each image, the Wasserstein distance of its grey values to those of the nearest of a pool."""
    levels = torch.linspace(0.005, 0.995, 100)
    first, second = (
        torch.quantile(batch.flatten(2), levels, dim=2).movedim(0, 2).flatten(1) for batch in (images, pool)
    )
    return torch.cdist(first, second, p=1.0).amin(1) / first.shape[1]


def save_projections(bank: StyleFlowBank, styles: Mapping[str, Mapping[int, Tensor]], source: str, path: Path) -> None:
    """Draw the styles of every domain and of samples on the two main axes of all domains, a panel a level."""
    figure = Figure(figsize=(4.6 * len(bank.levels), 4.4), layout="constrained")
    for position, level in enumerate(bank.levels):
        axes = figure.add_subplot(1, len(bank.levels), position + 1)
        own = styles[source][level]
        centre, scale = own.mean(0), own.std(0).clamp_min(1e-6)
        scores = standard_scores(styles, source, level)
        joined = torch.cat([*scores.values()])
        _, _, directions = torch.linalg.svd(joined - joined.mean(0), full_matrices=False)
        for label, factor, colour in (
            ("samples, own temperature", 1.0, "0.85"),
            ("samples, temperature 1", None, "0.65"),
        ):
            drawn = ((_sample(bank, level, factor) - centre) / scale - joined.mean(0)) @ directions[:2].T
            axes.scatter(drawn[:600, 0].numpy(), drawn[:600, 1].numpy(), s=5, color=colour, label=label, zorder=1)
        for name, value in scores.items():
            points = (value - joined.mean(0)) @ directions[:2].T
            label = f"{name} (source)" if name == source else name
            axes.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=9, alpha=0.8, label=label, zorder=2)
        axes.set_title(f"level {level}")
        axes.set_xlabel("first axis")
        axes.set_ylabel("second axis")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=110, format="png")


if __name__ == "__main__":
    fire.Fire(main)
