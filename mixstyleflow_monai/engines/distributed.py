"""Training in several processes, one a GPU: starting them, and keeping their networks the same.

The training loop calls parts of the network, several times a step and with hooks, where
``DistributedDataParallel`` watches one call of ``forward``. Gradients are averaged here instead, in one message after
backward; the network itself stays unwrapped, and so do the names of its weights.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import ignite.distributed as idist
import torch
import torch.distributed as dist
from torch import Tensor, nn

from mixstyleflow_monai.processes import alone, gather_objects, is_first, world_size

logger = logging.getLogger(__name__)

TIMEOUT = timedelta(hours=1)
"""How long a process waits for the others. They load their images before their first step, and not equally fast."""


def process_device() -> torch.device:
    """Return the device of this process: GPU number ``LOCAL_RANK``, or the CPU where torch finds no CUDA.

    Raises:
        ValueError: more processes than GPUs on this machine.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if number >= gpus:
        raise ValueError(
            f"LOCAL_RANK={number}: this machine has {gpus} GPUs, one for each process. Give torchrun at most "
            f"--nproc_per_node={gpus}."
        )
    return torch.device("cuda", number)


def start_processes(device: str | torch.device) -> None:
    """Join the processes that ``torchrun`` started, over NCCL on GPUs and gloo on CPUs; rank 0 alone logs from here on.

    A program started without ``torchrun`` is one process, and nothing is done; nor is it where they are joined already.

    Args:
        device: of this process.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        logger.info("one process; start several with torchrun --nproc_per_node")
        return
    if dist.is_initialized():
        return
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) if device.index is None else device.index)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=TIMEOUT, device_id=device if on_gpu else None)
    # Ignite learns of the processes at its first question, and all of them must ask it at the same time.
    idist.get_world_size()
    if not is_first():
        logging.disable(logging.INFO)
    logger.info("%d processes, each on one %s", world_size(), device.type)


def end_processes() -> None:
    """Wait for the others and leave them."""
    if dist.is_initialized():
        dist.barrier()
        idist.finalize()
        if dist.is_initialized():
            dist.destroy_process_group()
        logging.disable(logging.NOTSET)


def leave_to_first_process() -> None:
    """End this process, successfully, unless it is the first: for work that one process does as fast as many."""
    number = int(os.environ.get("RANK", 0))
    if number > 0:
        print(f"rank {number}: this phase is done by rank 0 alone, nothing to do here")
        raise SystemExit(0)


def begin_together(network: nn.Module, epoch: int) -> None:
    """Give every process the network of the first one.

    Args:
        network: initialised, or loaded from a checkpoint.
        epoch: that training goes on from, 0 for a new one.

    Raises:
        ValueError: the processes are at different epochs.
    """
    if world_size() == 1:
        return
    epochs = gather_objects(epoch)
    if len(set(epochs)) > 1:
        raise ValueError(
            f"the processes would go on from epochs {epochs}: they do not see the same checkpoints. Put output_dir on "
            "a file system that all nodes share."
        )
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            value = tensor.detach().contiguous()
            dist.broadcast(value, 0)
            tensor.copy_(value)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their mean over the processes. One that is not finite anywhere is not finite everywhere.

    A parameter that has no gradient in any process keeps none, so that the optimizer passes it over as in one process.
    """
    size = world_size()
    if size == 1:
        return
    trained = [p for p in parameters if p.requires_grad]
    present = torch.tensor([float(p.grad is not None) for p in trained], device=trained[0].device)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    present, *means = _averaged([present, *gradients], size)
    for parameter, mean, share in zip(trained, means, present.tolist(), strict=True):
        if share > 0:
            parameter.grad = mean if parameter.grad is None else parameter.grad.copy_(mean)


def average_buffers(network: nn.Module) -> None:
    """Replace floating-point buffers by their mean over the processes.

    Each process's batch norm follows its own batches. A running statistic is linear in them, so the mean of the
    processes' is what following the mean of their batches' statistics at every step would have given.
    """
    size = world_size()
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    if size == 1 or not buffers:
        return
    for buffer, mean in zip(buffers, _averaged(buffers, size), strict=True):
        buffer.copy_(mean)


def _averaged(tensors: list[Tensor], size: int) -> list[Tensor]:
    """Return the means over the processes of tensors of one type and device, in one message."""
    flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    parts = (flat / size).split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


class OwnStyles:
    """A stylizer that never waits for other processes: each draws its own styles, and not all draw one.

    Args:
        stylizer: see `mixstyleflow_monai.engines.hard_pass.Stylizer`.
    """

    def __init__(self, stylizer: Callable[..., Tensor]) -> None:
        self.stylizer = stylizer

    def __call__(self, *args: Any) -> Tensor:
        """Return the stylizer's images."""
        with alone():
            return self.stylizer(*args)

    def __getattr__(self, name: str) -> Any:
        """Answer for the stylizer (``reseed``, ``needs_objective``)."""
        return getattr(self.__dict__["stylizer"], name)
