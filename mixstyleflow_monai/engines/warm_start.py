"""Loading the weights of a network into one that has further layers."""

from __future__ import annotations

import os

import torch

from mixstyleflow_monai.engines.handlers import load_network
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
    added = network.normalization
    if added is None or not os.path.isfile(path) or _has_normalization(path):
        load_network(network, path)
        return network
    network.normalization = None
    try:
        load_network(network, path)
    finally:
        if keep_added:
            network.normalization = added
    return network


def _has_normalization(path: str | os.PathLike[str]) -> bool:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        return True  # `load_network` tells what is wrong with the file.
    state = state.get("model", state) if isinstance(state, dict) else {}
    return any(str(name).startswith(f"{ADDED}.") for name in state)
