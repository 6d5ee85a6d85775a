"""Stylizers that decode images with other channel statistics at some levels of the image decoder.

Two steps, kept apart: ``draw`` makes a style from random numbers, ``stylize`` uses one without any randomness. A drawn
style can so be recorded, replayed and tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mixstyleflow_monai.networks import DualDecoderNet, style_batch_norm
from mixstyleflow_monai.styles.images import as_images_of, low_pass, makes_z_scored_images, scale_to_unit_range
from mixstyleflow_monai.styles.sampling import check_positive, check_probability, draw_beta
from mixstyleflow_monai.styles.statistics import mix_statistics

IMAGE_LEVEL = 5
"""The image itself, after the levels 0 to 4 of the image decoder."""

NO_IMAGE_LEVEL = "z-scored images all have the same statistics, so there is no style in them. Leave this level out."
"""Why `IMAGE_LEVEL` does not go with z-scored images."""


def check_level_list(levels: Any) -> None:
    """Refuse a single number or a word in place of a list of levels.

    Raises:
        ValueError: no list.
    """
    if isinstance(levels, int | float | str):
        raise ValueError(f"style_levels={levels!r}: expected a list of levels, such as [2,3,4].")


@dataclass(frozen=True)
class LevelStyle:
    """A style for one level: mean and std (B, C), weight (B, 1) or (B, C) in [0, 1]."""

    mean: Tensor
    std: Tensor
    weight: Tensor


@dataclass(frozen=True)
class DrawnStyle:
    """What was drawn for a batch: a `LevelStyle` for each level that is active; inactive levels are absent."""

    levels: Mapping[int, LevelStyle]

    def state(self) -> dict[str, Tensor]:
        """Return plain tensors, to be saved with ``torch.save`` and read with ``weights_only=True``."""
        return {
            f"{level}.{name}": getattr(style, name)
            for level, style in self.levels.items()
            for name in ("mean", "std", "weight")
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> DrawnStyle:
        """Rebuild a style from `state`."""
        levels = sorted({int(key.split(".")[0]) for key in state})
        return cls({k: LevelStyle(state[f"{k}.mean"], state[f"{k}.std"], state[f"{k}.weight"]) for k in levels})


class LevelStyleMix(nn.Module):
    """Base: settings of drawing and mixing, and the hard examples of a drawn style.

    Args:
        probability: chance in [0, 1] that a level is active, drawn once a level and batch.
        alpha: parameter of the Beta law, > 0.
        style_per: "image" for a style an image, "batch" for one style a batch.
        weight_per: "image" for one weight w an image; "channel" for w ~ Bernoulli(lambda) a channel, lambda drawn an
            image.
        weight_law: "beta", or "uniform" for U(0, 1).
        output: "detail" adds the decoder's lost detail back, x + decode(styled) - decode(plain), clipped to [0, 1];
            "low_frequency" adds the slow part of that change alone, x + blur(decode(styled) - decode(plain)), clipped
            likewise, so that fine structure stays the image's own (ours); "decoded" is the decoded image scaled to
            [0, 1] an image and channel.
        blur_sigma: standard deviation of the Gaussian blur of "low_frequency" in pixels of the network's input, > 0.
            With 4, patterns of up to 8 pixels a period, which three of the decoder's four upsamplings can leave as
            checkerboards, keep less than 1 %, and those of 64 pixels, regions and illumination, more than 90 %.
        seed: seed of the module's own generator; global random state is neither read nor changed.

    Raises:
        ValueError: a setting out of its range.
    """

    batch_norm = "batch"
    """How batch norm is set while styles are read and replaced, see `mixstyleflow_monai.networks.style_batch_norm`."""

    def __init__(
        self,
        *,
        probability: float = 0.5,
        alpha: float = 0.1,
        style_per: str = "image",
        weight_per: str = "image",
        weight_law: str = "beta",
        output: str = "detail",
        blur_sigma: float = 4.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        allowed = {
            "style_per": (style_per, ("image", "batch")),
            "weight_per": (weight_per, ("image", "channel")),
            "weight_law": (weight_law, ("beta", "uniform")),
            "output": (output, ("detail", "low_frequency", "decoded")),
        }
        for name, (value, choices) in allowed.items():
            if value not in choices:
                raise ValueError(f"{name}={value!r}: expected one of {choices}.")
        self.probability = check_probability(probability)
        self.alpha = check_positive("alpha", alpha)
        self.style_per = style_per
        self.weight_per = weight_per
        self.weight_law = weight_law
        self.output = output
        self.blur_sigma = check_positive("blur_sigma", blur_sigma)
        self.generator = torch.Generator().manual_seed(seed)

    def reseed(self, seed: int) -> None:
        """Start the generator anew, so that an epoch's draws depend on its number alone."""
        self.generator.manual_seed(seed)

    def draw(self, batch_size: int, *, probability: float | None = None) -> Any:
        """Draw a style for a batch: what `stylize` takes.

        Args:
            batch_size: number of images B.
            probability: chance of a level in [0, 1], in place of the module's own.

        Raises:
            ValueError: ``probability`` out of its range.
        """
        raise NotImplementedError

    def stylize(self, network: DualDecoderNet, images: Tensor, latent: Tensor, style: DrawnStyle) -> Tensor:
        """Return the hard examples (B, c, H, W) in [0, 1] of ``images`` for a drawn style. No randomness.

        A style of `IMAGE_LEVEL` moves the channel statistics of the finished image. A network of z-scored images gets
        hard examples that are z-scored once more, in place of clipping and scaling to [0, 1].

        Args:
            network: its image decoder decodes; its batch norms keep their buffers.
            images: (B, c, H, W) in [0, 1].
            latent: z_i of the images, (B, 128, H/16, W/16), by batch statistics; encoded anew for running ones.
            style: what `draw` returned.

        Raises:
            ValueError: a style of `IMAGE_LEVEL` for a network of z-scored images, whose statistics are all the same.
        """

        def hook(level: int, features: Tensor) -> Tensor:
            chosen = style.levels.get(level)
            if chosen is None:
                return features
            return mix_statistics(features, chosen.mean, chosen.std, chosen.weight)

        of_image = style.levels.get(IMAGE_LEVEL)
        if of_image is not None:
            inner = DrawnStyle({level: part for level, part in style.levels.items() if level != IMAGE_LEVEL})
            if makes_z_scored_images(network):
                raise ValueError(f"level {IMAGE_LEVEL}: {NO_IMAGE_LEVEL}")
            hard = self.stylize(network, images, latent, inner)
            return mix_statistics(hard, of_image.mean, of_image.std, of_image.weight).clamp(0.0, 1.0)
        if self.output != "decoded" and not style.levels:
            return images
        with torch.no_grad(), style_batch_norm(network, self.batch_norm):
            latent = latent.detach() if self.batch_norm == "batch" else network.encode(images)
            styled = network.decode_image(latent, hook)
            if self.output == "decoded":
                hard = styled if makes_z_scored_images(network) else scale_to_unit_range(styled)
                return hard.to(images.dtype)
            plain = network.decode_image(latent)
            if self.output == "low_frequency":
                hard = images + low_pass(styled - plain, self.blur_sigma)
            else:
                hard = images + styled - plain
            return as_images_of(network, hard).to(images.dtype)

    def forward(self, network: DualDecoderNet, images: Tensor, latent: Tensor) -> Tensor:
        """Draw and apply; the images themselves in eval mode or at probability 0."""
        if not self.training or self.probability == 0.0:
            return images
        return self.stylize(network, images, latent, self.draw(images.shape[0]))

    def extra_repr(self) -> str:
        """Show the settings."""
        blur = f", blur_sigma={self.blur_sigma}" if self.output == "low_frequency" else ""
        return (
            f"probability={self.probability}, alpha={self.alpha}, style_per={self.style_per!r}, "
            f"weight_per={self.weight_per!r}, weight_law={self.weight_law!r}, output={self.output!r}{blur}"
        )

    def _is_active(self, probability: float) -> bool:
        return float(torch.rand((), generator=self.generator)) < probability

    def _draw_weight(self, batch_size: int, channels: int) -> Tensor:
        if self.weight_law == "uniform":
            weight = torch.rand(batch_size, 1, generator=self.generator)
        else:
            weight = draw_beta((batch_size, 1), self.alpha, self.generator)
        if self.weight_per == "channel":
            return torch.bernoulli(weight.expand(-1, channels).contiguous(), generator=self.generator)
        return weight
