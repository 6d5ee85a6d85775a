"""Training steps on made-up images, to be timed and compared: what `benchmarks.scaling` and `benchmarks.gpu` share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.transforms import Compose
from torch import Tensor

from mixstyleflow_monai.data import SliceDataset, TrainingLoader
from mixstyleflow_monai.engines import DualDecoderTrainer, EpochSeeding, HardPass, place_network
from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.losses import SegmentationLoss
from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.styles import FlowStyleMix

WARM_UP = 1
"""Steps that are not timed: allocation, choice of kernels, compilation."""


@dataclass(frozen=True)
class Setting:
    """How steps are computed; the options of the bundles of the same names."""

    amp: bool | str = False
    channels_last: bool = True
    compile: bool | str = False

    def __str__(self) -> str:
        """Describe the setting in a table."""
        precision = {False: "float32", True: "mixed"}.get(self.amp, str(self.amp))  # type: ignore[arg-type]
        order = "" if self.channels_last else ", contiguous"
        return precision + order + (f", compile {self.compile}" if self.compile else "")


@dataclass
class Steps:
    """What was seen of some steps.

    Attributes:
        losses: of each step.
        seconds: of each step after the warm-up.
        cpu_seconds: the same of all threads of this process.
        gradients: of the first step, by parameter.
        memory_mib: largest memory of tensors on a GPU, 0 on a CPU.
    """

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    memory_mib: float = 0.0

    @property
    def median(self) -> float:
        """Median seconds a step."""
        return float(torch.tensor(self.seconds).median())

    @property
    def median_cpu(self) -> float:
        """Median CPU seconds a step."""
        return float(torch.tensor(self.cpu_seconds).median())


class Ellipse:
    """Transform of {"number": n, "size": s} to a noisy image (1, s, s) with an ellipse, and the ellipse."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Tensor]:
        """Draw it."""
        size, number = int(data["size"]), int(data["number"])
        generator = torch.Generator().manual_seed(number)
        grid = torch.linspace(-1.0, 1.0, size)
        x, y, a, b = (torch.rand(4, generator=generator) * torch.tensor([0.4, 0.4, 0.3, 0.3])).tolist()
        inside = ((grid[:, None] - x) / (0.25 + a)) ** 2 + ((grid[None] - y) / (0.25 + b)) ** 2 < 1
        noise = 0.05 * torch.randn(size, size, generator=generator)
        image = (0.3 + 0.4 * inside + noise).clamp(0.0, 1.0)[None]
        return {"image": image, "label": inside[None].to(torch.uint8)}


def images(size: int, count: int) -> SliceDataset:
    """Return cached images."""
    data = [{"number": number, "size": size} for number in range(count)]
    return SliceDataset(data, Compose([Ellipse()]), progress=False, num_workers=1)


def stylizer(device: torch.device) -> FlowStyleMix:
    """Return a stylizer with untrained flows, which costs what a trained one does."""
    generator = torch.Generator().manual_seed(0)
    bank = StyleFlowBank()
    bank.initialize(
        {
            level: (0.1 * torch.randn(64, size, generator=generator), 0.5 + torch.rand(64, size, generator=generator))
            for level, size in ((2, 32), (3, 16), (4, 16))
        }
    )
    return FlowStyleMix(bank.to(device))


def run_steps(
    device: torch.device,
    setting: Setting,
    *,
    steps: int,
    size: int = 224,
    batch_size: int = 20,
    styled: bool = False,
    network: DualDecoderNet | None = None,
    noise_std: float = 0.0,
    learning_rate: float = 1e-3,
    after: Callable[[int, DualDecoderNet], None] | None = None,
) -> Steps:
    """Train for some steps.

    Args:
        device: to train on.
        setting: how.
        steps: how many.
        size: height and width of the images.
        batch_size: images a step and process.
        styled: with a pass on hard examples, as in Phase III.
        network: to train; by default a new one that is the same every time.
        noise_std: of the denoising noise; noise of a GPU's generator is not that of a CPU's.
        learning_rate: of AdamW.
        after: called with the number of each step and the network.
    """
    if network is None:
        torch.manual_seed(0)
        network = DualDecoderNet(1, 1)
    place_network(network, device, channels_last=setting.channels_last)
    trainer = DualDecoderTrainer(
        device=device,
        max_epochs=1,
        train_data_loader=TrainingLoader(images(size, 32), batch_size, epoch_length=steps),
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), lr=learning_rate),
        loss_function=SegmentationLoss(),
        train_handlers=[EpochSeeding()],
        noise_std=noise_std,
        hard_pass=HardPass(stylizer(device)) if styled else None,
        amp=setting.amp,
        compile=setting.compile,
    )
    watch = Watch(device, network, after)
    watch.attach(trainer)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trainer.run()
    if device.type == "cuda":
        watch.seen.memory_mib = torch.cuda.max_memory_allocated(device) / 2**20
    return watch.seen


class Watch:
    """Keeps what is to be seen of a training's steps.

    Args:
        device: that it runs on.
        network: that is trained.
        after: called with the number of each step and the network.

    Attributes:
        seen: so far.
    """

    def __init__(
        self, device: torch.device, network: DualDecoderNet, after: Callable[[int, DualDecoderNet], None] | None = None
    ) -> None:
        self.seen = Steps()
        self._device, self._network, self._after = device, network, after
        self._started = (0.0, 0.0)

    def attach(self, trainer: DualDecoderTrainer) -> None:
        """Watch a trainer."""
        trainer.add_event_handler(Events.ITERATION_STARTED, self._start)
        trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._keep_gradients)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._end)

    def _start(self) -> None:
        _synchronize(self._device)
        self._started = time.perf_counter(), time.process_time()

    def _keep_gradients(self, trainer: DualDecoderTrainer) -> None:
        if trainer.state.iteration == 1:
            named = self._network.named_parameters()
            self.seen.gradients = {n: p.grad.detach().cpu().clone() for n, p in named if p.grad is not None}

    def _end(self, trainer: DualDecoderTrainer) -> None:
        _synchronize(self._device)
        if trainer.state.iteration > WARM_UP:
            self.seen.seconds.append(time.perf_counter() - self._started[0])
            self.seen.cpu_seconds.append(time.process_time() - self._started[1])
        self.seen.losses.append(float(trainer.state.output[0]["loss"]))
        if self._after is not None:
            self._after(trainer.state.iteration, self._network)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Return |found - expected| / |expected|, Euclidean norms."""
    return float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected).clamp_min(1e-12))


def flattened(tensors: dict[str, Tensor]) -> Tensor:
    """Return the values of several tensors in one vector."""
    return torch.cat([tensors[name].detach().double().cpu().flatten() for name in sorted(tensors)])
