"""Batch-norm behaviour for passes that must not leave a trace in the running statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def untracked_batch_norm(network: nn.Module, *, freeze_affine: bool = False) -> Iterator[None]:
    """Run every batch norm of ``network`` on batch statistics, with its buffers untouched.

    Used for the pass on hard examples and for reading styles, where the official code does the same: stylised images
    must not shift the running statistics that inference uses.

    Args:
        network: module whose batch norms are switched; its mode is restored on leaving.
        freeze_affine: if True, the batch norms' weight and bias get no gradient inside the block (official code).
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    before = [(norm, norm.training, norm.track_running_stats) for norm in norms]
    affine = [p for norm in norms for p in (norm.weight, norm.bias) if p is not None and p.requires_grad]
    try:
        for norm in norms:
            norm.train()
            # With this flag off, a norm in train mode neither reads nor writes its running buffers.
            norm.track_running_stats = False
        if freeze_affine:
            for parameter in affine:
                parameter.requires_grad_(False)
        yield
    finally:
        for norm, training, tracking in before:
            norm.training = training
            norm.track_running_stats = tracking
        if freeze_affine:
            for parameter in affine:
                parameter.requires_grad_(True)
