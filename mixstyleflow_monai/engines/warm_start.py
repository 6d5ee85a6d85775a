"""Loading the weights of a network into one that has further layers."""

from __future__ import annotations

import os

from mixstyleflow_monai.engines.handlers import load_weights, read_weights
from mixstyleflow_monai.networks import DualDecoderNet

ADDED = "normalization"
"""Attribute of a network that a file may lack: the layers that a method adds to those of Phase I."""


def load_earlier_network(
    network: DualDecoderNet, path: str | os.PathLike[str], *, keep_added: bool = True
) -> DualDecoderNet:
    """Load a bare state dict into a network and return it, strictly but for a normalization that the file has not.

    Args:
        network: may have a normalization.
        path: weights of the same network, or of one without normalization, such as Phase I's.
        keep_added: leave a normalization that the file lacks in the network, with the weights it has; False takes it
            out, so that the network is the one in the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see `load_network`.
    """
    state = read_weights(path)
    added = network.normalization
    if added is None or any(str(name).startswith(f"{ADDED}.") for name in state):
        load_weights(network, state, path)
        return network
    network.normalization = None
    try:
        load_weights(network, state, path)
    finally:
        if keep_added:
            network.normalization = added
    return network
