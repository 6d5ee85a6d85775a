"""The second pass of a training step, on hard examples: what Phase III has and Phase I has not.

A compared method of single-source generalization is a `HardPass` with another stylizer (hard images), another
perturbation (hard features), or other weights; nothing else of a training changes. The one exception is SAN-SAW, which
has layers of its own and `mixstyleflow_monai.engines.SemanticLosses` in the place of this pass.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mixstyleflow_monai.losses import prediction_divergence, reconstruction_loss
from mixstyleflow_monai.networks import DualDecoderNet, running_batch_norm, untracked_batch_norm
from mixstyleflow_monai.networks.batch_norm import SeparateAffine, instance_norm
from mixstyleflow_monai.styles import BigAug, MaxStyle

BATCH_NORMS = ("batch", "running", "tracked", "separate", "instance")

PERTURBATION_SEED_OFFSET = 1_000_000_007
"""Keeps a perturbation's random numbers apart from the stylizer's."""

Stylizer = Callable[..., Tensor]
"""(network, images, latent) -> hard examples of the same shape, without gradient. One with a true attribute
``needs_objective`` is called with a fourth argument: images -> segmentation loss of this batch, a scalar with gradient
towards the images."""


class Perturbation(Protocol):
    """Changes features inside the encoder during the hard pass."""

    def attached(self, network: DualDecoderNet) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which the network's forward passes are perturbed."""
        ...


Pass = Callable[[nn.Module, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(network, images) -> (latent, logits, reconstruction)."""


class HardPass:
    """Losses of a network on hard examples of its batch, whose labels and reconstruction targets are the clean ones.

    L_hard = weight * mean over views of (w_seg L_seg + w_rec 0.5 MSE) + w_con JS, where JS is the Jensen-Shannon
    divergence between the predictions on the clean images and on all views.

    Batch norm uses the hard batch's own statistics and leaves its buffers untouched (MixStyleFlow, MICCAI 2025). An
    image of an unseen site, though, is normalised with the running statistics of the source; with
    ``batch_norm="running"`` hard examples are shown to the network in the same way.

    Args:
        stylizer: makes the hard images; None leaves the images of the clean pass, noise included.
        perturbation: changes features of the hard pass; None leaves them.
        views: hard examples of each image, each in a pass of its own.
        weight: of the segmentation and reconstruction losses.
        segmentation_weight: w_seg, 0 for methods that train on consistency alone.
        consistency_weight: w_con.
        freeze_affine: no gradient for batch-norm weight and bias from the hard pass (official code).
        batch_norm: statistics that batch norm uses in the hard pass: "batch" for the hard batch's own (paper);
            "running" for the running ones, as inference does; "tracked" for the batch's own, which then enter the
            running ones; "separate" for the batch's own, with weight and bias of ``affine``; "instance" for those of
            each image.
        affine: weights and biases of the batch norms for "separate", which the optimizer has as well.
        image_activation: of the network, see `DualDecoderNet`.

    Raises:
        ValueError: neither stylizer nor perturbation, no view, a negative weight, an unknown ``batch_norm``, or a
            stylizer for images in [0, 1] with a network of z-scored ones.
    """

    def __init__(
        self,
        stylizer: Stylizer | None = None,
        perturbation: Perturbation | None = None,
        *,
        views: int = 1,
        weight: float = 1.0,
        segmentation_weight: float = 1.0,
        consistency_weight: float = 0.0,
        freeze_affine: bool = False,
        batch_norm: str = "batch",
        affine: SeparateAffine | None = None,
        image_activation: str = "sigmoid",
    ) -> None:
        if stylizer is None and perturbation is None:
            raise ValueError("hard pass: neither a stylizer nor a perturbation, so its examples would not be hard.")
        if isinstance(views, bool) or not isinstance(views, int) or views < 1:
            raise ValueError(f"views={views!r}: expected a whole number of at least 1.")
        weights = {
            "hard_weight": weight,
            "hard_segmentation_weight": segmentation_weight,
            "consistency_weight": consistency_weight,
        }
        for name, value in weights.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"{name}={value!r}: expected a number of at least 0.")
        check_range(stylizer, image_activation)
        self.stylizer = stylizer
        self.perturbation = perturbation
        self.views = views
        self.weight = weight
        self.segmentation_weight = segmentation_weight
        self.consistency_weight = consistency_weight
        if batch_norm not in BATCH_NORMS:
            raise ValueError(f"hard_batch_norm={batch_norm!r}: expected one of {BATCH_NORMS}.")
        if freeze_affine and batch_norm != "batch":
            raise ValueError(f"freeze_hard_affine with hard_batch_norm={batch_norm!r}: goes with 'batch' alone.")
        if batch_norm == "separate" and (affine is None or not affine.enabled):
            raise ValueError("hard_batch_norm='separate': needs parameters of its own, a `SeparateAffine`.")
        self.affine = affine
        self.freeze_affine = freeze_affine
        self.batch_norm = batch_norm

    def reseed(self, seed: int) -> None:
        """Start the random generators of stylizer and perturbation anew, so that an epoch depends on its number.

        The two get different seeds: with one seed, both would draw the same numbers.
        """
        for part, own in ((self.stylizer, seed), (self.perturbation, seed + PERTURBATION_SEED_OFFSET)):
            reseed = getattr(part, "reseed", None)
            if reseed is not None:
                reseed(own)

    def losses(
        self,
        run: Pass,
        network: nn.Module,
        batch: dict[str, Tensor],
        loss_function: Callable[[Tensor, Tensor], Tensor],
        reconstruction_weight: float = 1.0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum and its parts.

        Args:
            run: a forward pass.
            network: in train mode.
            batch: ``images`` (B, c, H, W) clean, ``noisy`` the same as the clean pass saw them, ``target``, and of the
                clean pass ``latent`` and ``logits``.
            loss_function: (logits, target) -> segmentation loss.
            reconstruction_weight: w_rec.
        """
        images, target = batch["images"], batch["target"]
        segmentation, reconstruction, logits = [], [], [batch["logits"]]
        for _ in range(self.views):
            hard = self.hard_images(network, batch, loss_function)
            with self._batch_norm(network), self._perturbed(network):
                _, hard_logits, hard_clean = run(network, hard)
            segmentation.append(loss_function(hard_logits, target))
            reconstruction.append(reconstruction_loss(hard_clean, images))
            logits.append(hard_logits)
        parts = {
            "loss_hard_segmentation": torch.stack(segmentation).mean(),
            "loss_hard_reconstruction": torch.stack(reconstruction).mean(),
        }
        total = self.weight * (
            self.segmentation_weight * parts["loss_hard_segmentation"]
            + reconstruction_weight * parts["loss_hard_reconstruction"]
        )
        if self.consistency_weight:
            activation = getattr(loss_function, "activation", "sigmoid")
            parts["loss_consistency"] = prediction_divergence(logits, activation)
            total = total + self.consistency_weight * parts["loss_consistency"]
        return total, parts

    def hard_images(
        self,
        network: nn.Module,
        batch: dict[str, Tensor],
        loss_function: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """Return the images of the hard pass, (B, c, H, W), without gradient."""
        if self.stylizer is None:
            return batch["noisy"]
        if not getattr(self.stylizer, "needs_objective", False):
            return self.stylizer(network, batch["images"], batch["latent"])

        def objective(images: Tensor) -> Tensor:
            # Without the image decoder, which adds nothing to this loss.
            with self._batch_norm(network, leave_buffers=True):
                return loss_function(network(images), batch["target"])

        return self.stylizer(network, batch["images"], batch["latent"], objective)

    def _batch_norm(
        self, network: nn.Module, *, leave_buffers: bool = False
    ) -> contextlib.AbstractContextManager[None]:
        if self.batch_norm == "running":
            return running_batch_norm(network)
        if self.batch_norm == "tracked" and not leave_buffers:
            return contextlib.nullcontext()
        if self.batch_norm == "separate":
            return self._separate(network)
        if self.batch_norm == "instance":
            return instance_norm(network)
        return untracked_batch_norm(network, freeze_affine=self.freeze_affine)

    @contextlib.contextmanager
    def _separate(self, network: nn.Module) -> Iterator[None]:
        assert self.affine is not None  # for the type checker: checked at the start
        with untracked_batch_norm(network), self.affine.attached():
            yield

    @contextlib.contextmanager
    def _perturbed(self, network: nn.Module) -> Iterator[None]:
        if self.perturbation is None:
            yield
            return
        # Compiled code passes by hooks that were not there when it was compiled, without a word.
        with torch.compiler.set_stance("force_eager"), self.perturbation.attached(network):  # type: ignore[arg-type]
            yield


def check_range(stylizer: Any, image_activation: str) -> None:
    """Refuse a stylizer for images of another range than the network's.

    Args:
        stylizer: or None.
        image_activation: of the network, see `DualDecoderNet`.

    Raises:
        ValueError: it makes images in [0, 1], and those of the network are z-scored.
    """
    parts = stylizer.modules() if isinstance(stylizer, nn.Module) else ()
    wrong = sorted({type(part).__name__ for part in parts if isinstance(part, BigAug | MaxStyle)})
    if wrong and image_activation == "instance_norm":
        raise ValueError(
            f"{', '.join(wrong)} with intensity='z_score': makes images in [0, 1], and the network is trained on "
            "z-scored ones. Use another method, or another intensity in phase 1."
        )
