"""The training loop of Phase I and Phase III: the same one, with or without a pass on hard examples."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn

from mixstyleflow_monai.data import epoch_seed
from mixstyleflow_monai.engines.computation import autocast_type, compiled
from mixstyleflow_monai.engines.distributed import OwnStyles, average_buffers, average_gradients, begin_together
from mixstyleflow_monai.engines.hard_pass import HardPass
from mixstyleflow_monai.engines.semantic_losses import SemanticLosses
from mixstyleflow_monai.losses import reconstruction_loss
from mixstyleflow_monai.processes import mean_over_processes, process_seed, world_size

logger = logging.getLogger(__name__)


def denoising_input(images: Tensor, std: float, generator: torch.Generator | None = None) -> Tensor:
    """Return x~ = clamp(x + std N(0, 1), min(x), max(x)), minimum and maximum over the whole batch."""
    if std == 0:
        return images
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return (images + std * noise).clamp(float(images.min()), float(images.max()))


class DualDecoderTrainer(SupervisedTrainer):
    """MONAI trainer of a `DualDecoderNet`: segmentation and reconstruction, on images and on hard examples.

    A step is: a clean pass on the noisy input, L = L_seg + w_rec * 0.5 MSE to the clean image; with a `HardPass`, a
    second pass on hard examples with batch norm on batch statistics and its buffers untouched, whose reconstruction
    target is the clean image; one backward for both (MixStyleFlow, MICCAI 2025).

    In several processes (`mixstyleflow_monai.engines.distributed`) each has its own images, noise and hard examples;
    gradients, running statistics of batch norm and the losses reported are means over the processes.

    Mixed precision is that of the network's forward passes. Losses, noise and stylizers compute in float32.

    Args:
        hard_pass: makes hard examples and their losses; or `SemanticLosses` on the clean pass; or None for Phase I and
            for the baseline.
        noise_std: standard deviation of the denoising noise, for images in [0, 1].
        reconstruction_weight: w_rec, of both passes.
        max_skipped_steps: steps in a row with non-finite gradients after which training stops with an error.
        seed: of the noise and, with a hard pass, of its examples; both start anew every epoch and differ between
            processes.
        amp: mixed precision, see `autocast_type`; gradients are scaled where it is float16.
        compile: ``torch.compile`` of the forward pass, see `compile_backend`.
        **kwargs: of `monai.engines.SupervisedTrainer`.
    """

    def __init__(
        self,
        *,
        hard_pass: HardPass | SemanticLosses | None = None,
        noise_std: float = 0.05,
        reconstruction_weight: float = 1.0,
        max_skipped_steps: int = 10,
        seed: int = 0,
        amp: bool | str = False,
        compile: bool | str = False,
        **kwargs: Any,
    ) -> None:
        self.hard_pass = hard_pass
        if hard_pass is not None and hard_pass.stylizer is not None and world_size() > 1:
            hard_pass.stylizer = OwnStyles(hard_pass.stylizer)
        self.noise_std = noise_std
        self.reconstruction_weight = reconstruction_weight
        self.max_skipped_steps = max_skipped_steps
        self.seed = seed
        self.skipped_steps = 0
        device = torch.device(kwargs["device"])
        self.noise_generator = torch.Generator(device=device).manual_seed(process_seed(seed))
        self.autocast_type = autocast_type(amp, device)
        self.gradient_scaler = torch.amp.GradScaler("cuda") if self.autocast_type is torch.float16 else None
        self._compiled_pass = compiled(self._pass, compile, device)
        # Curves need no decollated copies of every training image.
        super().__init__(**{"decollate": False, **kwargs})
        self.add_event_handler(Events.STARTED, lambda engine: begin_together(engine.network, engine.state.epoch))
        # Before the epoch is validated and saved.
        self.add_event_handler(Events.ITERATION_COMPLETED, self._end_epoch_together)

    def set_epoch(self, epoch: int) -> None:
        """Seed noise, hard examples, slice order and augmentation for an epoch, counted from 1."""
        seed = epoch_seed(process_seed(self.seed), epoch)
        self.noise_generator.manual_seed(seed)
        for part, method in ((self.hard_pass, "reseed"), (self.data_loader, "set_epoch")):
            if hasattr(part, method):
                getattr(part, method)(epoch if method == "set_epoch" else seed)

    def state_dict(self) -> OrderedDict[str, Any]:
        """Return ignite's state of an engine and, with float16, that of the gradient scaler."""
        state: OrderedDict[str, Any] = super().state_dict()
        if self.gradient_scaler is not None:
            state["gradient_scaler"] = self.gradient_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore `state_dict`; the scaler starts anew where a checkpoint has none."""
        super().load_state_dict(state_dict)
        if self.gradient_scaler is not None and state_dict.get("gradient_scaler"):
            self.gradient_scaler.load_state_dict(state_dict["gradient_scaler"])

    def _iteration(  # type: ignore[override]
        self, engine: Any, batchdata: dict[str, Tensor]
    ) -> list[dict[str, Any]]:
        images, target = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        network = engine.network
        network.train()
        engine.optimizer.zero_grad(set_to_none=True)
        statistics = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        before = [buffer.clone() for buffer in statistics]
        output = self._losses(network, images, target)
        engine.state.output = output
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        if not self._step(engine, output[Keys.LOSS]):
            # A forward pass that overflowed would stay in the running statistics of batch norm for good.
            for buffer, kept in zip(statistics, before, strict=True):
                if not bool(buffer.isfinite().all()):
                    buffer.copy_(kept)
        names = [name for name in output if name.startswith("loss")]
        means = mean_over_processes(torch.stack([output[name].detach() for name in names]))
        output.update(zip(names, means, strict=True))
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        # A list, as MONAI's engines leave it after decollating: its handlers and trackers look for the first item.
        return [output]

    def _losses(self, network: nn.Module, images: Tensor, target: Tensor) -> dict[str, Any]:
        noisy = denoising_input(images, self.noise_std, self.noise_generator)
        latent, logits, clean = self._run(network, noisy)
        segmentation = self.loss_function(logits, target)
        reconstruction = reconstruction_loss(clean, images)
        total = segmentation + self.reconstruction_weight * reconstruction
        losses = {"loss_segmentation": segmentation, "loss_reconstruction": reconstruction}
        if self.hard_pass is not None:
            batch = {"images": images, "noisy": noisy, "target": target, "latent": latent, "logits": logits}
            hard, parts = self.hard_pass.losses(
                self._run, network, batch, self.loss_function, self.reconstruction_weight
            )
            losses.update(parts)
            total = total + hard
        return {Keys.IMAGE: images, Keys.LABEL: target, Keys.PRED: logits.detach(), Keys.LOSS: total, **losses}

    def _run(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return latent, logits and reconstruction, computed in the precision asked for and returned in float32."""
        if self.autocast_type is None:
            latent, logits, clean = self._compiled_pass(network, images)
            return latent, logits, clean
        with torch.autocast(images.device.type, dtype=self.autocast_type):
            latent, logits, clean = self._compiled_pass(network, images)
        return latent.float(), logits.float(), clean.float()

    @staticmethod
    def _pass(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        latent = network.encode(images)  # type: ignore[operator]
        logits = network.decode_segmentation(latent)  # type: ignore[operator]
        return latent, logits, network.decode_image(latent)  # type: ignore[operator]

    def _step(self, engine: Any, loss: Tensor) -> bool:
        """Backward and update; a step with non-finite gradients is skipped, in all processes, and counted.

        Returns:
            False for a skipped one.
        """
        scaler = self.gradient_scaler
        (loss if scaler is None else scaler.scale(loss)).backward()
        average_gradients(engine.network.parameters())
        if scaler is not None:
            scaler.unscale_(engine.optimizer)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        gradients = [p.grad for p in engine.network.parameters() if p.grad is not None]
        finite = bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients)))
        if scaler is not None:
            # The scaler skips non-finite steps itself and lowers its scale.
            scaler.step(engine.optimizer)
            scaler.update()
        elif finite:
            engine.optimizer.step()
        if finite:
            self.skipped_steps = 0
            return True
        self._step_without_gradients(engine)
        self.skipped_steps += 1
        logger.warning(
            "step %d: non-finite gradients, skipped (%d in a row)", engine.state.iteration, self.skipped_steps
        )
        if self.skipped_steps >= self.max_skipped_steps:
            raise ValueError(
                f"{self.skipped_steps} steps in a row had non-finite gradients, the last with loss {loss.item()}. "
                "Lower the learning rate or the temperatures, or check the images for non-finite values."
            )
        return False

    @staticmethod
    def _end_epoch_together(engine: Any) -> None:
        if engine.state.iteration % engine.state.epoch_length == 0:
            average_buffers(engine.network)

    @staticmethod
    def _step_without_gradients(engine: Any) -> None:
        """Let a skipped step count: no weight changes, and a learning-rate schedule expects a step before its own."""
        engine.optimizer.zero_grad(set_to_none=True)
        engine.optimizer.step()
