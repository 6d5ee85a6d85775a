"""MaxStyle: image-decoder styles searched for the largest segmentation loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from mixstyleflow_monai.networks import DualDecoderNet, untracked_batch_norm
from mixstyleflow_monai.styles.feature_perturbation import restyle, spatial_statistics
from mixstyleflow_monai.styles.images import scale_to_unit_range
from mixstyleflow_monai.styles.sampling import check_positive, check_probability, draw_beta

LEVELS = (3, 4, 5)
Objective = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LevelStart:
    """Where the search starts at a level: permutation (B,), weight (B, 1) in [0, 1], noises (B, C)."""

    permutation: Tensor
    weight: Tensor
    mean_noise: Tensor
    std_noise: Tensor


@dataclass(frozen=True)
class DrawnSearch:
    """A `LevelStart` for each level that is active; inactive levels are absent."""

    levels: Mapping[int, LevelStart]


class MaxStyle(nn.Module):
    """Mix image-decoder styles with another image's and with noise, both trained against the segmentation.

    At each active level x' = (sigma_m + e_s S_s) (x - mu) / sigma + mu_m + e_m S_m, where (mu_m, sigma_m) are mixed
    with those of a fixed partner by a weight w clipped to [0, 1], S_m and S_s are the standard deviations of mu and
    sigma over the batch (Eq. 3), fixed at the first pass. w, e_m and e_s start from Beta(alpha, alpha) and N(0, 1) and
    take ``steps`` Adam steps that raise the segmentation loss of the decoded image. The hard example is the decoded
    image, scaled to [0, 1] an image and channel; without an active level the plain reconstruction. Identity in eval
    mode and at probability 0; a batch of one has no partner and no active level.

    The network is frozen meanwhile and gets no gradient; its batch norms use batch statistics and keep their buffers.
    The search runs in single precision, since half precision loses gradients without a scaler.

    Args:
        probability: chance in [0, 1] that a level is active, drawn once a level and batch.
        alpha: parameter of the Beta law, > 0.
        steps: of the inner loop, >= 0.
        learning_rate: of its Adam, > 0.
        seed: seed of the module's own generator; global random state is neither read nor changed.

    References:
        Chen et al., MaxStyle: Adversarial Style Composition for Robust Medical Image Segmentation, MICCAI 2022

    Raises:
        ValueError: a setting out of its range.
    """

    needs_objective: Final = True

    def __init__(
        self,
        *,
        probability: float = 0.5,
        alpha: float = 0.1,
        steps: int = 5,
        learning_rate: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if steps < 0:
            raise ValueError(f"steps={steps}: expected at least 0.")
        self.probability = check_probability(probability)
        self.alpha = check_positive("alpha", alpha)
        self.steps = steps
        self.learning_rate = check_positive("learning_rate", learning_rate)
        self.generator = torch.Generator().manual_seed(seed)

    def reseed(self, seed: int) -> None:
        """Start the generator anew, so that an epoch's draws depend on its number alone."""
        self.generator.manual_seed(seed)

    def draw(self, batch_size: int, channels: int) -> DrawnSearch:
        """Draw where a batch's search starts.

        Args:
            batch_size: number of images B.
            channels: of the images.
        """
        sizes = {level: DualDecoderNet.level_channels[level] for level in (3, 4)} | {5: channels}
        levels: dict[int, LevelStart] = {}
        for level in LEVELS:
            active = float(torch.rand((), generator=self.generator)) < self.probability
            if not active or batch_size < 2:
                continue
            weight = draw_beta((batch_size, 1), self.alpha, self.generator)
            noise = torch.randn(2, batch_size, sizes[level], generator=self.generator)
            levels[level] = LevelStart(self._draw_partners(batch_size), weight, noise[0], noise[1])
        return DrawnSearch(levels)

    def stylize(
        self, network: DualDecoderNet, images: Tensor, latent: Tensor, objective: Objective, drawn: DrawnSearch
    ) -> Tensor:
        """Search from where ``drawn`` starts and return the hard examples (B, c, H, W) in [0, 1]. No randomness.

        Args:
            network: its image decoder decodes.
            images: (B, c, H, W) in [0, 1].
            latent: z_i of the images, (B, 128, H/16, W/16).
            objective: segmentation loss of images, with gradient towards them.
            drawn: what `draw` returned.
        """
        styles = {level: _LevelStyle(start, images.device) for level, start in drawn.levels.items()}
        exact = torch.autocast(images.device.type, enabled=False)
        with exact, torch.enable_grad(), untracked_batch_norm(network), _frozen(network):
            latent = latent.detach().float()
            if styles:
                parameters = [value for style in styles.values() for value in style.parameters()]
                optimizer = torch.optim.Adam(parameters, lr=self.learning_rate, maximize=True)
                for _ in range(self.steps):
                    loss = objective(_decode(network, latent, styles))
                    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                        parameter.grad = gradient
                    optimizer.step()
            with torch.no_grad():
                hard = _decode(network, latent, styles)
        return scale_to_unit_range(hard).to(images.dtype)

    def forward(self, network: DualDecoderNet, images: Tensor, latent: Tensor, objective: Objective) -> Tensor:
        """Draw and search; the images themselves in eval mode or at probability 0."""
        if not self.training or self.probability == 0.0:
            return images
        return self.stylize(network, images, latent, objective, self.draw(images.shape[0], images.shape[1]))

    def extra_repr(self) -> str:
        """Show the settings."""
        return (
            f"probability={self.probability}, alpha={self.alpha}, steps={self.steps}, "
            f"learning_rate={self.learning_rate}"
        )

    def _draw_partners(self, batch_size: int) -> Tensor:
        """Draw a permutation that is not the identity."""
        identity = torch.arange(batch_size)
        while True:
            permutation = torch.randperm(batch_size, generator=self.generator)
            if not torch.equal(permutation, identity):
                return permutation


class _LevelStyle(nn.Module):
    """The trained style of a level."""

    def __init__(self, start: LevelStart, device: torch.device) -> None:
        super().__init__()
        self.partner = start.permutation.to(device)
        self.weight = nn.Parameter(start.weight.to(device, copy=True))
        self.mean_noise = nn.Parameter(start.mean_noise.to(device, copy=True))
        self.std_noise = nn.Parameter(start.std_noise.to(device, copy=True))
        self.spreads: tuple[Tensor, Tensor] | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Restyle features (B, C, H, W), which have at least 8 x 8 pixels at these levels."""
        mean, std = own = spatial_statistics(features.detach())
        if self.spreads is None:
            self.spreads = mean.std(dim=0, keepdim=True), std.std(dim=0, keepdim=True)
        weight = self.weight.clamp(0.0, 1.0)
        mixed_mean = (1.0 - weight) * mean + weight * mean[self.partner]
        mixed_std = (1.0 - weight) * std + weight * std[self.partner]
        return restyle(
            features,
            own,
            mixed_mean + self.mean_noise * self.spreads[0],
            mixed_std + self.std_noise * self.spreads[1],
        )


def _decode(network: DualDecoderNet, latent: Tensor, styles: Mapping[int, _LevelStyle]) -> Tensor:
    """Decode an image with styles at the levels that have one; level 5 is the image itself."""

    def hook(level: int, features: Tensor) -> Tensor:
        styled: Tensor = styles[level](features) if level in styles else features
        return styled

    return hook(5, network.decode_image(latent, hook))


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Take the network's parameters out of the graph for a while."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
