"""What a training step of each compared method costs: ``python -m benchmarks.method_cost [--methods a,b]``.

Every method takes the same steps, on the same random images and from the same untrained network, with the hard pass
that its overlay describes. Methods take turns within a round, and processor time of one thread is counted, so that
other work on the machine matters little. Printed is the median over rounds of a step's time, and of its ratio to the
baseline of equal steps (`no_stylizer`) in the same round.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import fire
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm import tqdm

from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.data import Task
from mixstyleflow_monai.engines import DualDecoderTrainer, HardPass, SemanticLosses
from mixstyleflow_monai.hard_pass_settings import configured_hard_pass
from mixstyleflow_monai.losses import SegmentationLoss
from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.styles import IMAGE_LEVEL

CONFIGS = Path(__file__).resolve().parents[1] / "bundles" / PHASE_BUNDLES[3] / "configs"
BASELINE, DEFAULT = "no_stylizer", "mixstyleflow"


def method_names() -> list[str]:
    """Return the baseline, the default method, then all others."""
    names = sorted(path.stem for path in (CONFIGS / "methods").glob("*.json"))
    return [BASELINE, DEFAULT, *(name for name in names if name != BASELINE)]


def task_of(method: str, channels: int = 1) -> Task:
    """Return the task of one region, with the layers that a method adds to the network."""
    path = CONFIGS / "methods" / f"{method}.json"
    added = json.loads(path.read_text(encoding="utf-8")).get("normalization") if path.is_file() else None
    return Task(channels, {"region": [1]}, (32, 32), normalization=added)


def hard_pass_of(method: str, statistics_of: dict[int, tuple[Tensor, Tensor]]) -> HardPass | SemanticLosses | None:
    """Build the hard pass that a method's overlay describes, with flows fitted to no data in place of phase 2's.

    Args:
        method: name of an overlay, or "mixstyleflow" for none.
        statistics_of: level -> (means, standard deviations) to start flows from.

    Raises:
        ValueError: no such method.
    """
    if method not in method_names():
        raise ValueError(f"methods: {method!r}, expected some of {method_names()}.")
    config = json.loads((CONFIGS / "train.json").read_text(encoding="utf-8"))
    if method != DEFAULT:
        config.update(json.loads((CONFIGS / "methods" / f"{method}.json").read_text(encoding="utf-8")))
    return configured_hard_pass(config, task_of(method), statistics_of)


def make_trainer(
    hard_pass: HardPass | SemanticLosses | None, task: Task, batch: dict[str, Tensor], steps: int
) -> DualDecoderTrainer:
    """Return a trainer of a new network on the same batch again and again."""
    torch.manual_seed(0)
    network = DualDecoderNet(**task.network_settings())
    return DualDecoderTrainer(
        hard_pass=hard_pass,
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[batch] * steps,
        network=network.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        optimizer=torch.optim.AdamW(network.parameters(), lr=1e-4),
        loss_function=SegmentationLoss(),
    )


def measure(
    methods: Sequence[str], *, image_size: int, batch_size: int, channels: int, steps: int, rounds: int
) -> dict[str, list[float]]:
    """Return for each method the processor seconds of a step, a number a round."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch_size, channels, image_size, image_size, generator=generator)
    batch = {"image": images, "label": (images[:, :1] > 0.5).float()}
    start = {
        level: (torch.randn(50, size, generator=generator), 0.5 + torch.rand(50, size, generator=generator))
        for level, size in ((2, 32), (3, 16), (4, 16), (IMAGE_LEVEL, channels))
    }
    trainers = {
        name: make_trainer(hard_pass_of(name, start), task_of(name, channels), batch, steps) for name in methods
    }
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    with tqdm(total=(rounds + 1) * len(methods), desc="method cost") as bar:
        for number in range(rounds + 1):
            for name, trainer in trainers.items():
                trainer.state.max_epochs = number + 1
                trainer.set_epoch = lambda epoch: None  # type: ignore[method-assign]
                before = time.process_time()
                trainer.run()
                if number:  # the first round warms up
                    seconds[name].append((time.process_time() - before) / steps)
                bar.update()
    return seconds


def main(
    methods: str | Sequence[str] | None = None,
    image_size: int = 96,
    batch_size: int = 20,
    channels: int = 1,
    steps: int = 2,
    rounds: int = 5,
) -> None:
    """Measure and print.

    Args:
        methods: names with commas between them; all by default. The baseline is always measured.
        image_size: height and width in pixels, a multiple of 16.
        batch_size: images a step.
        channels: of the images.
        steps: of each method a round.
        rounds: measured rounds, after one that warms up.
    """
    chosen = [methods] if isinstance(methods, str) else list(methods or method_names())
    chosen = [name for part in chosen for name in str(part).split(",")]
    torch.set_num_threads(1)
    names = list(dict.fromkeys([BASELINE, *chosen]))
    seconds = measure(
        names, image_size=image_size, batch_size=batch_size, channels=channels, steps=steps, rounds=rounds
    )
    table = Table("method", "seconds a step", "times the baseline", "least", "most")
    for name in names:
        ratios = [own / base for own, base in zip(seconds[name], seconds[BASELINE], strict=True)]
        row = (statistics.median(seconds[name]), statistics.median(ratios), min(ratios), max(ratios))
        table.add_row(name, *(f"{value:.2f}" for value in row))
    Console(width=100).print(table)


if __name__ == "__main__":
    fire.Fire(main)
