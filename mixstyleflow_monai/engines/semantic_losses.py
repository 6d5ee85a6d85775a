"""The further losses of a training with SAN-SAW: they stand where other methods have a pass on hard examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixstyleflow_monai.data import RegionEncoding, Task
from mixstyleflow_monai.losses.whitening import whitening_penalty
from mixstyleflow_monai.networks.semantic_normalization import NormalizedFeatures, SemanticNormalization


def class_masks(encoding: RegionEncoding, target: Tensor) -> Tensor:
    """Return the exclusive classes of training targets, background first.

    Nested regions become rings: of ``disc`` and the ``cup`` inside it, background, disc without cup, and cup.

    Args:
        encoding: of the targets.
        target: (B, out_channels, H, W), in {0, 1}.

    Returns:
        (B, classes, H, W) in {0, 1}. A pixel that no class describes, such as cup outside the disc, has none.
    """
    if encoding.activation == "softmax":
        return target
    membership = encoding.membership.to(target.device)[None, :, :, None, None]
    return ((target > 0)[:, None] == membership).all(dim=2).to(target.dtype)


def balanced_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the softmax cross-entropy in which a class weighs one minus its share of the batch's pixels.

    Args:
        logits: (B, classes, H, W).
        masks: one-hot classes, (B, classes, H, W).

    Returns:
        Scalar, a weighted mean over pixels; 0 for a batch of a single class.
    """
    weights = 1.0 - masks.mean(dim=(0, 2, 3))
    weighted = masks * weights[:, None, None]
    loss = -(weighted * logits.log_softmax(dim=1)).sum()
    return loss / weighted.sum().clamp_min(torch.finfo(loss.dtype).eps)


class SemanticLosses:
    """Losses on what the network's semantic-aware normalization made in the clean pass; there is no second pass.

    Of every stage of the normalization, with features x and y, its output times the number of classes (Peng et al.,
    CVPR 2022; the norm's weight starts at one over that number and not at 1 as published, and the parts are for the
    published scale: at the smaller one the whitening of three classes stays below its margin and is always 0):

    - ``loss_semantic_target``: smooth L1 between y and ReLU(sum_c IN(x G_c)), the same norm with the true classes G,
      times that number as well;
    - ``loss_whitening``: `whitening_penalty` of y by the weights of the stage's classifier;
    - ``loss_auxiliary_segmentation``: `balanced_cross_entropy` of that classifier, its logits resized to the image.

    Parts are sums over stages. In several processes each computes them on its own images.

    Args:
        task: of the network; its normalization must be "san_saw".
        target_weight: of the first part.
        whitening_weight: of the second.
        classifier_weight: of the third.

    Raises:
        ValueError: a task without this normalization, or a negative weight.
    """

    stylizer = None

    def __init__(
        self,
        task: Task,
        *,
        target_weight: float = 0.1,
        whitening_weight: float = 0.1,
        classifier_weight: float = 0.1,
    ) -> None:
        if task.normalization != "san_saw":
            raise ValueError(
                f"normalization={task.normalization!r}: these losses are on the layers of 'san_saw'. Give "
                "--normalization san_saw, or leave the overlay methods/san_saw.json out."
            )
        self.weights = {
            "target_weight": target_weight,
            "whitening_weight": whitening_weight,
            "classifier_weight": classifier_weight,
        }
        for name, value in self.weights.items():
            if not value >= 0:
                raise ValueError(f"{name}={value}: expected a number of at least 0.")
        self.encoding = task.encoding

    def __repr__(self) -> str:
        """Show the settings."""
        return f"SemanticLosses({', '.join(f'{name}={value}' for name, value in self.weights.items())})"

    def reseed(self, seed: int) -> None:
        """Do nothing: nothing here is random."""

    def losses(
        self,
        run: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor, Tensor]],
        network: nn.Module,
        batch: dict[str, Tensor],
        loss_function: Callable[[Tensor, Tensor], Tensor],
        reconstruction_weight: float = 1.0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum and its parts.

        Args:
            run: not used.
            network: whose last forward pass in train mode was the clean pass.
            batch: ``target`` (B, out_channels, H, W).
            loss_function: not used.
            reconstruction_weight: not used.

        Raises:
            RuntimeError: the network's normalization has seen no training pass since the last call.
        """
        classes = class_masks(self.encoding, batch["target"])
        stages: Any = getattr(network, "normalization", None) or ()
        found = [self._of_stage(stage, self._kept(stage), classes) for stage in stages]
        if not found:
            raise RuntimeError("SemanticLosses: the network has no normalization; build it from the task.")
        target, whitening, auxiliary = (torch.stack(values).sum() for values in zip(*found, strict=True))
        parts = {
            "loss_semantic_target": target,
            "loss_whitening": whitening,
            "loss_auxiliary_segmentation": auxiliary,
        }
        total = sum(weight * part for weight, part in zip(self.weights.values(), parts.values(), strict=True))
        return torch.as_tensor(total), parts

    @staticmethod
    def _kept(stage: SemanticNormalization) -> NormalizedFeatures:
        kept = stage.take()
        if kept is None:
            raise RuntimeError("SemanticLosses: the network was not run in train mode since the last step.")
        return kept

    @staticmethod
    def _of_stage(stage: SemanticNormalization, kept: NormalizedFeatures, classes: Tensor) -> list[Tensor]:
        """Return the three parts of one stage, unweighted."""
        classes = classes.to(kept.features.dtype)
        masks = F.interpolate(classes, size=kept.features.shape[2:], mode="nearest")
        normalized = stage.classes * kept.normalized
        wanted = stage.classes * stage.normalize(kept.features, masks)
        logits = F.interpolate(kept.class_logits, size=classes.shape[2:], mode="bilinear", align_corners=True)
        return [
            F.smooth_l1_loss(normalized, wanted),
            whitening_penalty(normalized, stage.classifier.weight.flatten(1)),
            balanced_cross_entropy(logits, classes),
        ]
