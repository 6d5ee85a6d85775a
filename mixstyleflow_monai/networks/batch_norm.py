"""Batch-norm behaviour for passes that must not leave a trace in the running statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from mixstyleflow_monai.processes import world_size

STYLE_BATCH_NORMS = ("batch", "running")
_RUNNING = ("running_mean", "running_var")
_ASIDE = "_running_statistics_put_aside"


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
    buffers = [(norm, name, norm._buffers[name]) for norm in norms for name in _RUNNING]
    outermost = [norm for norm in norms if _ASIDE not in norm.__dict__]
    affine = [p for norm in norms for p in (norm.weight, norm.bias) if p is not None and p.requires_grad]
    try:
        for norm in norms:
            norm.train()
            # With this flag off, a norm in train mode neither reads nor writes its running buffers.
            norm.track_running_stats = False
            if isinstance(norm, nn.SyncBatchNorm) and world_size() == 1:
                # In eval mode and without buffers it uses batch statistics, and does not wait for other processes.
                norm.eval()
                norm.__dict__.setdefault(_ASIDE, {name: norm._buffers[name] for name in _RUNNING})
                norm._buffers.update(dict.fromkeys(_RUNNING))
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
        for norm in outermost:
            norm.__dict__.pop(_ASIDE, None)
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
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    before = [(norm, norm.training, {name: norm._buffers[name] for name in _RUNNING}) for norm in norms]
    try:
        for norm in norms:
            norm.eval()
            # Those that an enclosing `untracked_batch_norm` took away.
            norm._buffers.update(norm.__dict__.get(_ASIDE, {}))
        yield
    finally:
        for norm, training, buffers in before:
            norm.training = training
            norm._buffers.update(buffers)


@contextmanager
def instance_norm(network: nn.Module) -> Iterator[None]:
    """Have every batch norm of ``network`` normalise each image by its own statistics, with its buffers untouched.

    Weights and biases are those of the batch norms, with gradient. For a batch of one image this is
    `untracked_batch_norm`; in several processes nothing is shared. Feature maps of a single pixel have no statistics of
    their own: torch refuses them (`DualDecoderNet` has them at images of 16 pixels).

    Args:
        network: module whose batch norms are replaced; they are themselves again on leaving.

    References:
        Ulyanov et al., Instance Normalization, arXiv 1607.08022
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    # A block inside another one has to leave the outer one's.
    before = [(norm, norm.__dict__.get("forward")) for norm in norms]

    def normalise(norm: _BatchNorm, images: Tensor) -> Tensor:
        return functional.instance_norm(images, weight=norm.weight, bias=norm.bias, eps=norm.eps)

    try:
        for norm in norms:
            norm.__dict__["forward"] = partial(normalise, norm)
        yield
    finally:
        for norm, forward in before:
            del norm.__dict__["forward"]
            if forward is not None:
                norm.__dict__["forward"] = forward


class SeparateAffine(nn.Module):
    """A weight and a bias of its own for every batch norm of a network, used inside `attached` alone.

    An auxiliary batch norm as in AdvProp: hard examples are scaled and shifted by their own parameters, and those of
    the network, which is all that is deployed, by clean examples alone. They start as copies of the network's. They
    are not part of the network, so that its weights are saved, averaged and exported as ever. AdvProp's auxiliary
    running statistics are not kept, since nothing is ever normalised with them.

    Args:
        network: whose batch norms, where it computes; it is not part of this module.
        enabled: False for a module without parameters whose `attached` does nothing.

    References:
        Xie et al., Adversarial Examples Improve Image Recognition, CVPR 2020

    Raises:
        ValueError: enabled in several processes, which average the gradients of the network alone.
    """

    def __init__(self, network: nn.Module, *, enabled: bool = True) -> None:
        super().__init__()
        if enabled and world_size() > 1:
            raise ValueError(
                f"hard_batch_norm='separate' in {world_size()} processes: works in one. Start one or use another."
            )
        self.enabled = enabled
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.affine]
        # A tuple hides them from nn.Module.
        self._norms = (norms if enabled else [],)
        self.weights = nn.ParameterList(nn.Parameter(norm.weight.detach().clone()) for norm in self._norms[0])
        self.biases = nn.ParameterList(nn.Parameter(norm.bias.detach().clone()) for norm in self._norms[0])

    @property
    def checkpointed(self) -> dict[str, nn.Module]:
        """What a checkpoint must hold; nothing when not enabled."""
        return {"hard_affine": self} if self.enabled else {}

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Put these parameters in the place of the network's."""
        own: list[dict[str, Tensor | None]] = [dict(norm._parameters) for norm in self._norms[0]]
        try:
            for norm, weight, bias in zip(self._norms[0], self.weights, self.biases, strict=True):
                norm.weight, norm.bias = weight, bias
            yield
        finally:
            for norm, parameters in zip(self._norms[0], own, strict=True):
                norm._parameters.update(parameters)  # type: ignore[arg-type]
