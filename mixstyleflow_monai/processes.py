"""One program in several processes, as ``torchrun`` starts it: which one this is, and what they compute together.

Without a process group every function answers for the one process there is, so that callers need no second path.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function

SEED_STRIDE = 100_003
"""Between the seeds of two processes. Runs with seeds below it share none with another process of another run."""

_alone_depth = 0


def world_size() -> int:
    """Return the number of processes; 1 inside `alone`."""
    return dist.get_world_size() if _alone_depth == 0 and _has_group() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if _has_group() else 0


def is_first() -> bool:
    """Tell whether this process is the one that writes files and logs."""
    return rank() == 0


def process_seed(seed: int) -> int:
    """Return the seed of what differs between processes (noise, styles, augmentation); ``seed`` in the first one."""
    return seed + SEED_STRIDE * rank()


@contextmanager
def alone() -> Iterator[None]:
    """Let nothing inside the block wait for the other processes.

    For work that only some processes do, or that takes another path in each: a random style is not drawn in all of
    them, and one that waited for the others inside it would wait forever.
    """
    global _alone_depth
    _alone_depth += 1
    try:
        yield
    finally:
        _alone_depth -= 1


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes, with gradient.

    The gradient is summed as well: each process gets what the losses of all processes together owe to its tensor. So
    a loss that every process computes from such sums, its gradients averaged over the processes, is trained as in one
    process.
    """
    if world_size() == 1:
        return tensor
    total: Tensor = _Sum.apply(tensor)
    return total


def mean_over_processes(tensor: Tensor) -> Tensor:
    """Return the mean of a tensor over the processes, without gradient."""
    size = world_size()
    if size == 1:
        return tensor.detach()
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total / size


def gather_objects(item: Any) -> list[Any]:
    """Return the objects of all processes in the order of their ranks."""
    size = world_size()
    if size == 1:
        return [item]
    gathered: list[Any] = [None] * size
    dist.all_gather_object(gathered, item)
    return gathered


def _has_group() -> bool:
    return dist.is_available() and dist.is_initialized()


class _Sum(Function):
    """A sum over the processes whose backward is one too.

    ``torch.distributed.nn.functional.all_reduce`` does the same, with a deprecation warning from torch 2.13 on.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
