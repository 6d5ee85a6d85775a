"""Regions: named, possibly nested sets of label values, and their forms.

On disk a label is one integer map. The network sees one channel a region (sigmoid) or background plus exclusive
classes (softmax). Metrics see one binary mask a region. Here are the ways between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RegionEncoding:
    """Translate between label maps, network channels and region masks.

    Label values that belong to exactly the same regions cannot be told apart by those regions; they form one *class*,
    written as the smallest of its values. Class 0 is the background; so are label values that no region has.

    Args:
        regions: name -> label values from 1 to 255, for example ``{"disc": [1, 2], "cup": [2]}``.
        activation: "sigmoid" for a channel a region, "softmax" for a channel a class.

    Raises:
        ValueError: no region, a region without values, a value out of range or an unknown activation.
    """

    regions: Mapping[str, Sequence[int]]
    activation: str = "sigmoid"

    def __post_init__(self) -> None:
        """Check the arguments."""
        if not self.regions or any(not values for values in self.regions.values()):
            raise ValueError(f"regions={dict(self.regions)}: expected at least one region with at least one value.")
        if any(not 1 <= value <= 255 for values in self.regions.values() for value in values):
            raise ValueError(
                f"regions={dict(self.regions)}: label values must be from 1 to 255; 0 is the background, and label "
                "maps have 8 bits. Give the regions other values."
            )
        if self.activation not in ("sigmoid", "softmax"):
            raise ValueError(f"activation={self.activation!r}: expected 'sigmoid' or 'softmax'.")

    @property
    def names(self) -> tuple[str, ...]:
        """Region names in channel order."""
        return tuple(self.regions)

    @property
    def classes(self) -> tuple[tuple[int, ...], ...]:
        """Label values of every class, background first, then by smallest value."""
        members: dict[tuple[str, ...], list[int]] = {}
        for value in sorted({value for values in self.regions.values() for value in values}):
            signature = tuple(name for name, values in self.regions.items() if value in values)
            members.setdefault(signature, []).append(value)
        return ((0,), *(tuple(values) for values in members.values()))

    @property
    def membership(self) -> Tensor:
        """(classes, regions) booleans: does a class lie in a region."""
        return torch.tensor([[c[0] in values for values in self.regions.values()] for c in self.classes])

    @property
    def out_channels(self) -> int:
        """Channels of the network's output."""
        return len(self.regions) if self.activation == "sigmoid" else len(self.classes)

    def masks(self, label: Tensor) -> Tensor:
        """Return region masks, bool (K, ...), of an integer label map (1, ...)."""
        flat = _as_integers(label)
        return torch.stack([_is_in(flat, values) for values in self.regions.values()])

    def target(self, label: Tensor) -> Tensor:
        """Return the training target, uint8 (out_channels, ...), of an integer label map (1, ...)."""
        if self.activation == "sigmoid":
            return self.masks(label).to(torch.uint8)
        flat = _as_integers(label)
        foreground = [_is_in(flat, values) for values in self.classes[1:]]
        background = ~torch.stack(foreground).any(0)
        return torch.stack([background, *foreground]).to(torch.uint8)

    def masks_of_target(self, target: Tensor) -> Tensor:
        """Return region masks, float (B, K, ...), of training targets (B, out_channels, ...)."""
        if self.activation == "sigmoid":
            return target.float()
        return torch.einsum("bc...,ck->bk...", target.float(), self.membership.to(target.device).float())

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return region probabilities (B, K, ...) of logits (B, out_channels, ...)."""
        if self.activation == "sigmoid":
            return torch.sigmoid(logits)
        classes = torch.softmax(logits, dim=1)
        # A tensor product over the channel dimension: a region's probability is the sum of its classes'.
        return torch.einsum("bc...,ck->bk...", classes, self.membership.to(classes))

    def channel_probabilities(self, logits: Tensor) -> Tensor:
        """Return a probability for each channel (B, out_channels, ...) of logits: of regions, or of exclusive classes.

        This is what `label_map` takes. From region probabilities alone those of classes cannot be had back.
        """
        return torch.sigmoid(logits) if self.activation == "sigmoid" else torch.softmax(logits, dim=1)

    def label_map(self, probabilities: Tensor) -> Tensor:
        """Return the most probable label map, uint8 (1, ...), of `channel_probabilities` (out_channels, ...).

        Exclusive classes (softmax): the most probable one. Regions (sigmoid): each class is scored by the product of p
        over the regions it lies in and 1 - p over the others, so nested regions are resolved without a rule of their
        own. With one region this is p > 0.5.

        Raises:
            ValueError: probabilities that are not numbers, whose label map would be background without a word.
        """
        if not bool(torch.isfinite(probabilities).all()):
            raise ValueError(
                "label map: the network's output is not finite. Look for NaN or infinite values in the image and in "
                "the weights; half precision (amp) may overflow as well."
            )
        if self.activation == "softmax":
            return self._values(probabilities)[probabilities.argmax(0)][None]
        p = probabilities.float().clamp(1e-6, 1 - 1e-6)
        inside, outside = p.log(), (1 - p).log()
        member = self.membership.to(p)
        score = torch.einsum("ck,k...->c...", member, inside) + torch.einsum("ck,k...->c...", 1 - member, outside)
        return self._values(p)[score.argmax(0)][None]

    def _values(self, like: Tensor) -> Tensor:
        """Return the label value of each class, on the device of a tensor."""
        return torch.tensor([c[0] for c in self.classes], dtype=torch.uint8, device=like.device)


def _as_integers(label: Tensor) -> Tensor:
    return (label[0].round() if label.is_floating_point() else label[0]).long()


def _is_in(label: Tensor, values: Sequence[int]) -> Tensor:
    return torch.isin(label, torch.tensor(list(values), device=label.device))
