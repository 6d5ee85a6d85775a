"""Stylizers made of stylizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from mixstyleflow_monai.networks import DualDecoderNet, untracked_batch_norm
from mixstyleflow_monai.styles.sampling import draw_seeds

Objective = Callable[[Tensor], Tensor]


class CombinedStylizer(nn.Module):
    """Base: several stylizers, each with a random state of its own. Identity in eval mode.

    Args:
        stylizers: at least one.
        seed: of the seeds of the parts.

    Raises:
        ValueError: no stylizer.
    """

    def __init__(self, stylizers: Sequence[nn.Module], *, seed: int = 0) -> None:
        super().__init__()
        if not stylizers:
            raise ValueError("stylizers=[]: expected at least one.")
        self.stylizers = nn.ModuleList(stylizers)
        self.needs_objective: Final = any(getattr(part, "needs_objective", False) for part in stylizers)
        self.generator = torch.Generator()
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Start all generators anew; no part draws the numbers of another."""
        self.generator.manual_seed(seed)
        for part, own in zip(self.stylizers, draw_seeds(len(self.stylizers), self.generator), strict=True):
            part.reseed(own)  # type: ignore[operator]

    @staticmethod
    def _run(
        part: nn.Module, network: DualDecoderNet, images: Tensor, latent: Tensor, objective: Objective | None
    ) -> Tensor:
        more = (objective,) if getattr(part, "needs_objective", False) else ()
        result: Tensor = part(network, images, latent, *more)
        return result


class ChainedStylizer(CombinedStylizer):
    """One stylizer after the other, each on what the one before has made.

    A part that uses the latent gets the one of its own input. Those that use images alone, with ``needs_latent`` False,
    cost no encoding when they come last.
    """

    def forward(
        self, network: DualDecoderNet, images: Tensor, latent: Tensor, objective: Objective | None = None
    ) -> Tensor:
        """Apply the parts in their order."""
        if not self.training:
            return images
        encoded = images
        for part in self.stylizers:
            if encoded is not images and getattr(part, "needs_latent", True):
                with torch.no_grad(), untracked_batch_norm(network):
                    latent, encoded = network.encode(images), images
            images = self._run(part, network, images, latent, objective)
        return images


class RandomStylizer(CombinedStylizer):
    """One stylizer for each image, chosen at random.

    Every part sees the whole batch, since styles and batch norms depend on it, so the cost is that of all parts.

    Args:
        stylizers: at least one.
        weights: chances, up to a factor; None for equal ones.
        seed: of the choice and of the seeds of the parts.

    Raises:
        ValueError: no stylizer, another number of weights, a negative one, or all zero.
    """

    def __init__(
        self, stylizers: Sequence[nn.Module], weights: Sequence[float] | None = None, *, seed: int = 0
    ) -> None:
        super().__init__(stylizers, seed=seed)
        chosen = [1.0] * len(stylizers) if weights is None else [float(weight) for weight in weights]
        if len(chosen) != len(stylizers) or not all(weight >= 0.0 for weight in chosen) or not sum(chosen) > 0.0:
            raise ValueError(
                f"weights={chosen} for {len(stylizers)} stylizers: expected one number of at least 0 for each, not all "
                "zero."
            )
        self.weights = tuple(chosen)

    def draw(self, batch_size: int) -> Tensor:
        """Draw the number of the stylizer of each image, (B,)."""
        chances = torch.tensor(self.weights, dtype=torch.float64)
        return torch.multinomial(chances, batch_size, replacement=True, generator=self.generator)

    def forward(
        self, network: DualDecoderNet, images: Tensor, latent: Tensor, objective: Objective | None = None
    ) -> Tensor:
        """Apply all parts and take for each image the one that was drawn."""
        if not self.training:
            return images
        chosen = self.draw(len(images)).to(images.device)[:, None, None, None]
        result = images
        for number, part in enumerate(self.stylizers):
            result = torch.where(chosen == number, self._run(part, network, images, latent, objective), result)
        return result

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"weights={list(self.weights)}"
