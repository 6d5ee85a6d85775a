"""What does a volume, a slice, a step cost, and what do two processes change? ``python -m benchmarks.scaling``.

Three tables on this machine's CPU, in two to three minutes if it has nothing else to do. CPU seconds are those of all
threads of a process. With one thread other work on the machine changes them little; with more, threads that wait for
each other count as well. The load is printed before and after: seconds that pass mean nothing on a busy machine.

- a volume of 320 x 320 x 20 voxels: size on disk, seconds to load and preprocess, memory in the cache, and how long a
  slice takes with its volume in the cache and without;
- a training step of each phase in every precision and memory format, and two processes of half the batch against one;
- batch norm of each process on its own half of a batch against one process with the whole: how far losses, gradients,
  weights and running statistics go apart. With batch norm on running statistics they do not, which is the control.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import fire
import torch
import torch.distributed as dist
import torch.multiprocessing
from monai.utils import set_determinism
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.check_memory import SHAPE, _describe, _make_case
from benchmarks.steps import WARM_UP, Setting, flattened, images, relative_difference, run_steps
from mixstyleflow_monai.data import SliceDataset, Task, augmentation, load_dataset
from mixstyleflow_monai.engines.distributed import average_buffers
from mixstyleflow_monai.networks import DualDecoderNet

CPU = torch.device("cpu")
STEPS_OF_NORMS = (1, 10, 40)


class RunningNorms(DualDecoderNet):
    """A network whose batch norms always use their running statistics."""

    def train(self, mode: bool = True) -> RunningNorms:
        """Set the mode of everything else."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.training = False
        return self


def main(volumes: int = 8, steps: int = 2, size: int = 224, batch_size: int = 8, threads: int = 1) -> None:
    """Measure and print.

    Args:
        volumes: how many to make, at least 8.
        steps: timed steps of each setting.
        size: height and width of an image of a step.
        batch_size: images a step, even.
        threads: of the one process whose settings are compared; everything else has one.
    """
    if volumes < 8 or steps < 1 or batch_size % 2:
        raise ValueError(
            f"--volumes {volumes} --steps {steps} --batch_size {batch_size}: expected at least 8, at least 1, and an "
            "even number."
        )
    console = Console(width=120)
    console.print(
        f"torch {torch.__version__}, {os.cpu_count()} cores, {threads} threads, load {os.getloadavg()[0]:.1f}"
    )
    # A worker process of a data loader has one thread.
    torch.set_num_threads(1)
    console.print(volume_table(volumes))
    torch.set_num_threads(threads)
    console.print(step_table(steps, size, batch_size, threads))
    console.print(f"load {os.getloadavg()[0]:.1f} after the steps")
    console.print(norm_table())


def volume_table(count: int) -> Table:
    """Measure volumes of noise, which compresses worse than any image."""
    table = Table(
        "of one volume, median", "value", title=f"{SHAPE[0]} x {SHAPE[1]} x {SHAPE[2]} voxels, int16, 1 thread"
    )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        entries = [_make_case(place, number) for number in range(count)]
        _describe(place, entries)
        description = load_dataset(place)
        task = Task.from_dataset(description, (224, 224), pixel_spacing=(0.625, 0.625))
        cases = description.datalist()
        disk = [(place / entry["image"]).stat().st_size for entry in entries]
        transform = task.training_preprocessing()
        seconds, items = zip(*(_timed(lambda case=case: transform(case)) for case in cases), strict=True)
        memory = sum(t.numel() * t.element_size() for t in (items[0]["image"], items[0]["label"]))
        slices = items[0]["image"].shape[-1]
        recipe = augmentation("prostate", task.image_size)
        access = [
            _median(lambda data=data: data[0], 5)
            for data in (
                SliceDataset(cases[:1], transform, augmentation=recipe, progress=False, cache_rate=rate)
                for rate in (1.0, 0.0)
            )
        ]
    table.add_row("on disk, image alone (noise, gzip)", f"{_middle(disk) / 2**20:.1f} MiB")
    table.add_row("load and preprocess", f"{_middle(seconds):.2f} CPU s")
    table.add_row(
        f"in the cache, {slices} slices of {task.image_size[0]} x {task.image_size[1]}", f"{memory / 2**20:.2f} MiB"
    )
    table.add_row("in the cache, a slice", f"{memory / slices / 2**20:.3f} MiB")
    table.add_row("a slice augmented, volume in the cache", f"{1000 * access[0]:.0f} CPU ms")
    table.add_row("a slice augmented, volume not in the cache", f"{1000 * access[1]:.0f} CPU ms")
    return table


def step_table(steps: int, size: int, batch_size: int, threads: int) -> Table:
    """Time training steps of one process, and of two with half the batch and one thread each."""
    table = Table(
        "phase",
        "setting",
        "s a step",
        "images a s",
        "CPU s an image",
        title=f"{batch_size} images of {size} x {size} a step",
    )
    settings = [Setting(), Setting(channels_last=False), Setting(amp=True)]
    for styled, setting in [(styled, setting) for styled in (False, True) for setting in settings]:
        seen = run_steps(
            CPU, setting, steps=steps + WARM_UP, size=size, batch_size=batch_size, styled=styled, noise_std=0.05
        )
        times = (seen.median, batch_size / seen.median, seen.median_cpu / batch_size)
        label = f"{setting}, {threads} thread{'s' * (threads > 1)}"
        table.add_row("3" if styled else "1", label, *(f"{value:.2f}" for value in times))
    for number in (1, 2):
        options = {"steps": steps + WARM_UP, "size": size, "batch_size": batch_size // number}
        seconds, cpu = _in_processes(number, "times", options).tolist()
        times = (seconds, batch_size / seconds, cpu / options["batch_size"])
        label = f"float32, {number} process{'es' * (number > 1)} of 1 thread"
        table.add_row("1", label, *(f"{value:.2f}" for value in times))
    return table


def norm_table() -> Table:
    """Compare two processes of four images with one of eight."""
    names = ("loss", "gradient", "weights", "running variance", "loss in eval mode")
    table = Table("batch norm", "step", *names, title="relative difference of 2 processes x 4 images to 1 x 8, 64 x 64")
    for kind in ("batch", "running"):
        one = _in_processes(1, "follow", {"kind": kind, "batch_size": 8})
        two = _in_processes(2, "follow", {"kind": kind, "batch_size": 4})
        for step in STEPS_OF_NORMS:
            cells = []
            for name in names:
                if name == "gradient" and step > 1:
                    cells.append("")
                    continue
                cells.append(f"{relative_difference(two[step][name], one[step][name]):.1e}")
            table.add_row(f"{kind} statistics", str(step), *cells)
    return table


def times(number: int, options: dict[str, Any]) -> Tensor:
    """Return the median seconds and CPU seconds of a step of this process."""
    seen = run_steps(CPU, Setting(), noise_std=0.05, **options)
    return torch.tensor([seen.median, seen.median_cpu])


def follow(number: int, options: dict[str, Any]) -> dict[int, dict[str, Tensor]]:
    """Return what a training is like after some steps."""
    torch.manual_seed(0)
    network = {"batch": DualDecoderNet, "running": RunningNorms}[options["kind"]](1, 1)
    held_out = images(64, 48)
    batch = [held_out[k] for k in range(32, 48)]
    image, label = (torch.stack([item[key] for item in batch]) for key in ("image", "label"))
    found: dict[int, dict[str, Tensor]] = {}

    def keep(step: int, network: DualDecoderNet) -> None:
        if step in STEPS_OF_NORMS:
            average_buffers(network)
            training = network.training
            network.eval()
            # Of the first process alone: the pooled Dice would add up those of all, which are the same.
            with torch.no_grad():
                loss = nn.functional.binary_cross_entropy_with_logits(network(image), label)
            network.train(training)
            variances = {n: b for n, b in network.named_buffers() if n.endswith("running_var")}
            found[step] = {
                "weights": flattened(dict(network.named_parameters())),
                "running variance": flattened(variances),
                "loss in eval mode": loss,
            }

    steps = max(STEPS_OF_NORMS)
    seen = run_steps(
        CPU, Setting(), steps=steps, size=64, batch_size=options["batch_size"], network=network, after=keep
    )
    for step, values in found.items():
        values["loss"] = torch.tensor(seen.losses[step - 1])
        values["gradient"] = flattened(seen.gradients)
    return found


def _in_processes(number: int, job: str, options: dict[str, Any]) -> Any:
    """Return what the first of several processes of one thread each returns."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_work, (number, folder, job, options), nprocs=number)
        return torch.load(Path(folder) / "result.pt", weights_only=True)


def _work(number: int, processes: int, folder: str, job: str, options: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    set_determinism(seed=0)
    if processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=processes)
    result = {"times": times, "follow": follow}[job](number, options)
    if number == 0:
        torch.save(result, Path(folder) / "result.pt")
    if processes > 1:
        dist.barrier()
        dist.destroy_process_group()


def _timed(call: Any) -> tuple[float, Any]:
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def _median(call: Any, repeats: int) -> float:
    return _middle([_timed(call)[0] for _ in range(repeats)])


def _middle(values: Any) -> float:
    return float(torch.tensor([float(value) for value in values], dtype=torch.float64).median())


if __name__ == "__main__":
    fire.Fire(main)
