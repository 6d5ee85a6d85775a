"""What two processes do for `test_distributed`: each job returns something that can be saved."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from monai.engines.utils import IterationEvents
from monai.transforms import Compose
from torch import Tensor, nn

from mixstyleflow_monai.artifacts import read_manifest, write_manifest
from mixstyleflow_monai.data import EpochOrder, ProcessSampler, SliceDataset, TrainingLoader, augmentation
from mixstyleflow_monai.engines import (
    DualDecoderTrainer,
    EpochSeeding,
    HardPass,
    StyleFlowTrainer,
    end_processes,
    fine_tuning,
    save_state_dict,
)
from mixstyleflow_monai.engines.distributed import average_buffers, average_gradients, begin_together
from mixstyleflow_monai.engines.lineage import copy_network
from mixstyleflow_monai.losses import SegmentationLoss
from mixstyleflow_monai.networks import DualDecoderNet, untracked_batch_norm
from mixstyleflow_monai.processes import alone, gather_objects, rank, sum_over_processes, world_size

CASES = 8


class Disc:
    """Transform of {"number": n} to an image with a disc, and the disc."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Tensor]:
        number = int(data["number"])
        grid = torch.arange(32.0) - 15.5
        disc = ((grid[:, None] - number) ** 2 + grid[None] ** 2 < (4 + number) ** 2).float()[None]
        return {"image": 0.2 + 0.07 * number * disc, "label": disc.to(torch.uint8)}


class FrozenNorms(DualDecoderNet):
    """A network whose batch norms stay in eval mode."""

    def train(self, mode: bool = True) -> FrozenNorms:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.training = False
        return self


def make_network(kind: type[DualDecoderNet] = DualDecoderNet, seed: int = 0) -> DualDecoderNet:
    torch.manual_seed(seed)
    return kind(1, 1)


def make_loader(batch_size: int, *, augment: bool = False, epoch_length: int | None = None) -> TrainingLoader:
    recipe = augmentation("prostate", (32, 32)) if augment else None
    slices = SliceDataset(
        [{"number": n} for n in range(CASES)], Compose([Disc()]), augmentation=recipe, progress=False, num_workers=1
    )
    return TrainingLoader(slices, batch_size, seed=5, epoch_length=epoch_length)


def make_trainer(network: DualDecoderNet, loader: TrainingLoader, **settings: Any) -> DualDecoderTrainer:
    return DualDecoderTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), lr=1e-3),
        loss_function=SegmentationLoss(),
        train_handlers=[EpochSeeding()],
        **settings,
    )


def gradients_of_three_steps(batch_size: int) -> dict[str, Any]:
    """Losses and gradients of three steps with frozen batch norms and without noise."""
    network = make_network(FrozenNorms)
    trainer = make_trainer(network, make_loader(batch_size, epoch_length=3), noise_std=0.0)
    gradients: list[dict[str, Tensor]] = []
    losses: list[dict[str, float]] = []
    trainer.add_event_handler(
        IterationEvents.BACKWARD_COMPLETED,
        lambda: gradients.append({name: p.grad.clone() for name, p in network.named_parameters()}),
    )
    trainer.add_event_handler(
        "ITERATION_COMPLETED",
        lambda: losses.append({str(k): float(v) for k, v in trainer.state.output[0].items() if k.startswith("loss")}),
    )
    trainer.run()
    return {"losses": losses, "gradients": gradients, "weights": network.state_dict()}


def equivalence() -> dict[str, Any]:
    return gradients_of_three_steps(2)


def ordinary_training() -> dict[str, Any]:
    """Batch norm on each process's own batches, noise and augmentation."""
    network = make_network()
    trainer = make_trainer(network, make_loader(2, augment=True, epoch_length=2))
    noises: list[Tensor] = []
    own: list[Tensor] = []
    trainer.add_event_handler("ITERATION_STARTED", lambda: noises.append(trainer.noise_generator.get_state()))
    trainer.add_event_handler(
        IterationEvents.MODEL_COMPLETED, lambda: own.append(network.stem[0][1].running_mean.clone())
    )
    trainer.run()
    return {"weights": network.state_dict(), "noise": noises[0], "own": own[-1]}


def styles_of_their_own() -> dict[str, Tensor]:
    """Hard examples by a stylizer that asks for the loss, and its gradient, in the first process alone."""

    def stylizer(network: DualDecoderNet, images: Tensor, latent: Tensor, objective: Callable[..., Tensor]) -> Tensor:
        if rank() > 0:
            return 1.0 - images
        changed = images.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(objective(changed), changed)
        return images + 0.1 * gradient.sign()

    stylizer.needs_objective = True  # type: ignore[attr-defined]
    network = make_network()
    make_trainer(network, make_loader(2, epoch_length=2), hard_pass=HardPass(stylizer)).run()
    return network.state_dict()


def non_finite_in_the_second() -> dict[str, Any]:
    """Images that are not finite in the second process."""
    network = make_network()
    hard = HardPass(lambda network, images, latent: images * (math.nan if rank() == 1 else 1.0))
    trainer = make_trainer(network, make_loader(2, epoch_length=4), hard_pass=hard, max_skipped_steps=3)
    try:
        trainer.run()
    except ValueError as error:
        return {"error": str(error), "steps": trainer.state.iteration, "weights": dict(network.named_parameters())}
    return {}


def shares() -> dict[str, Any]:
    """Which slices and cases, and in what augmentation."""
    loader = make_loader(2, augment=True)
    batches = []
    for epoch in (1, 2, 1):
        loader.set_epoch(epoch)
        batches.append(torch.cat([batch["image"] for batch in loader]))
    loader.order.epoch = 1
    whole = EpochOrder(CASES, 5)
    return {
        "steps": len(loader),
        "order": list(loader.order),
        "whole": list(whole),
        "batches": batches,
        "cases": [list(ProcessSampler(range(n))) for n in (5, 2, 1)],
    }


def means() -> dict[str, Any]:
    """Gradients, also missing ones, buffers, and a network that differs."""
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.full((2,), float(rank() + 1))
    if rank() == 1:
        parameters[1].grad = torch.ones(2)
    average_gradients(parameters)
    network = make_network(seed=rank())
    network.stem[0][1].running_mean.fill_(float(rank()))
    average_buffers(network)
    mean = network.stem[0][1].running_mean.clone()
    begin_together(network, 3)
    try:
        begin_together(network, rank())
    except ValueError as error:
        message = str(error)
    return {
        "gradients": [p.grad for p in parameters],
        "running_mean": mean,
        "weights": network.state_dict(),
        "message": message,
    }


def sums() -> dict[str, Any]:
    """A sum with gradient, and none inside `alone`."""
    x = torch.tensor([1.0 + rank()], requires_grad=True)
    total = sum_over_processes(x)
    (total**2).backward()
    with alone():
        inside = world_size(), sum_over_processes(x) is x
    return {"total": total.detach(), "gradient": x.grad, "alone": inside, "after": world_size()}


def norms_over_processes() -> dict[str, Any]:
    """SyncBatchNorm on a CPU: refused, but not where it uses the batch of this process."""
    network = make_network().train()
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(rank()))
    with torch.no_grad(), untracked_batch_norm(network):
        expected = network(images)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    with torch.no_grad(), alone(), untracked_batch_norm(synchronised):
        found = synchronised(images)
    try:
        with untracked_batch_norm(synchronised):
            synchronised(images)
    except ValueError as error:
        message = str(error)
    names = list(network.state_dict())
    return {"expected": expected, "found": found, "message": message, "names": names == list(synchronised.state_dict())}


def flows() -> str:
    """Flows in two processes."""
    try:
        StyleFlowTrainer._initialise_flows(None)
    except ValueError as error:
        return str(error)
    return ""


def kept_network() -> dict[str, Any]:
    """The network before a fine-tuning, and one that is not there."""
    folder = Path(gather_objects(tempfile.mkdtemp() if rank() == 0 else "")[0])
    if rank() == 0:
        save_state_dict(make_network(), folder / "model.pt")
        write_manifest(folder / "model.pt", "segmentation_network")
    gather_objects("written")
    copies = 0

    def counted(*paths: Any) -> str:
        nonlocal copies
        copies += 1
        return copy_network(*paths)

    with mock.patch.object(fine_tuning, "copy_network", counted):
        kept = fine_tuning.keep_previous(folder / "model.pt")
        there = read_manifest(kept)["kind"]
        try:
            fine_tuning.keep_previous(folder / "nowhere.pt")
        except FileNotFoundError as error:
            message = str(error)
    gather_objects("read")
    if rank() == 0:
        shutil.rmtree(folder)
    return {"kept": kept, "kind": there, "copies": copies, "message": message}


JOBS: tuple[Callable[[], Any], ...] = (
    equivalence,
    ordinary_training,
    styles_of_their_own,
    non_finite_in_the_second,
    shares,
    means,
    sums,
    norms_over_processes,
    flows,
    kept_network,
)


def main(number: int, processes: int, folder: str) -> None:
    """Do all jobs as one of several processes and save what they return."""
    torch.set_num_threads(1)
    place = Path(folder)
    dist.init_process_group(
        "gloo", init_method=f"file://{place}/store", rank=number, world_size=processes, timeout=timedelta(minutes=3)
    )
    results = {job.__name__: job() for job in JOBS}
    results["gathered"] = gather_objects({"rank": number})
    end_processes()
    results["afterwards"] = world_size(), rank()
    torch.save(results, place / f"{number}.pt")
