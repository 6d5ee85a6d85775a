"""Batch-norm behaviour for passes that must not leave a trace in the running statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mixstyleflow_monai.processes import world_size

STYLE_BATCH_NORMS = ("batch", "running")


@contextmanager
def untracked_batch_norm(network: nn.Module, *, freeze_affine: bool = False) -> Iterator[None]:
    """Run every batch norm of ``network`` on batch statistics, with its buffers untouched.

    Used for the pass on hard examples and for reading styles, where the official code does the same: stylised images
    must not shift the running statistics that inference uses.

    A ``SyncBatchNorm`` uses the batches of all processes, or, inside `mixstyleflow_monai.processes.alone`, that of this
    process.

    Args:
        network: module whose batch norms are switched; its mode is restored on leaving.
        freeze_affine: if True, the batch norms' weight and bias get no gradient inside the block (official code).
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    before = [(norm, norm.training, norm.track_running_stats) for norm in norms]
    buffers = [(norm, name, norm._buffers[name]) for norm in norms for name in ("running_mean", "running_var")]
    affine = [p for norm in norms for p in (norm.weight, norm.bias) if p is not None and p.requires_grad]
    try:
        for norm in norms:
            norm.train()
            # With this flag off, a norm in train mode neither reads nor writes its running buffers.
            norm.track_running_stats = False
            if isinstance(norm, nn.SyncBatchNorm) and world_size() == 1:
                # In eval mode and without buffers it uses batch statistics, and does not wait for other processes.
                norm.eval()
                norm._buffers.update(running_mean=None, running_var=None)
        if freeze_affine:
            for parameter in affine:
                parameter.requires_grad_(False)
        yield
    finally:
        for norm, training, tracking in before:
            norm.training = training
            norm.track_running_stats = tracking
        for norm, name, buffer in buffers:
            norm._buffers[name] = buffer
        if freeze_affine:
            for parameter in affine:
                parameter.requires_grad_(True)


def style_batch_norm(network: nn.Module, statistics: str) -> AbstractContextManager[None]:
    """Return the context in which styles are read and replaced.

    Args:
        network: module whose batch norms are switched.
        statistics: "batch" for those of the batch, as in the official code; "running" for the running ones, as at
            inference.

    Raises:
        ValueError: another word.
    """
    if statistics not in STYLE_BATCH_NORMS:
        raise ValueError(f"style_batch_norm={statistics!r}: expected one of {STYLE_BATCH_NORMS}.")
    return running_batch_norm(network) if statistics == "running" else untracked_batch_norm(network)


@contextmanager
def running_batch_norm(network: nn.Module) -> Iterator[None]:
    """Run every batch norm of ``network`` on its running statistics, as inference does, with gradients as in training.

    Args:
        network: module whose batch norms are switched; their mode is restored on leaving.
    """
    before = [(module, module.training) for module in network.modules() if isinstance(module, _BatchNorm)]
    try:
        for norm, _ in before:
            norm.eval()
        yield
    finally:
        for norm, training in before:
            norm.training = training
