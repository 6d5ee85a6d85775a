"""What becomes of the change that a style makes: added, blurred and added, or the decoded image alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.networks import DualDecoderNet, LevelHook
from mixstyleflow_monai.styles import IMAGE_LEVEL, DrawnStyle, FlowStyleMix, LevelStyle, LevelStyleMix, PermutedStyleMix
from mixstyleflow_monai.styles.images import low_pass

SIZE = 64
Make = Callable[..., Any]


class Painter(DualDecoderNet):
    """Network whose image decoder adds a given change to grey wherever a style is put in."""

    def __init__(self, change: Tensor) -> None:
        super().__init__(in_channels=change.shape[1])
        self.change = change

    def decode_image(self, latent: Tensor, hook: LevelHook | None = None) -> Tensor:
        grey = torch.full_like(self.change, 0.5)
        return grey if hook is None else grey + self.change


STYLE = DrawnStyle({2: LevelStyle(torch.zeros(1, 32), torch.ones(1, 32), torch.ones(1, 1))})


def hard(change: Tensor, image: Tensor, **settings: Any) -> Tensor:
    return LevelStyleMix(**settings).stylize(Painter(change), image, torch.zeros(1, 128, 4, 4), STYLE)


def grating(period: int, amplitude: float = 0.2) -> Tensor:
    """Stripes (1, 1, SIZE, SIZE) of a period in pixels, extrema at the borders."""
    phase = 2 * math.pi * torch.arange(float(SIZE)) / period
    return amplitude * phase.cos().expand(1, 1, SIZE, SIZE)


@pytest.fixture
def image() -> Tensor:
    return 0.4 + 0.2 * torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("period", [2, 4, 8])
def test_checkerboards_of_the_decoder_do_not_reach_the_image(period: int, image: Tensor) -> None:
    change = grating(period)
    kept = (hard(change, image, output="low_frequency") - image)[..., SIZE // 4 : -SIZE // 4]
    assert float(kept.abs().max()) < 0.01 * 0.2
    assert float((hard(change, image, output="detail") - image).abs().max()) > 0.19


def test_slow_changes_stay(image: Tensor) -> None:
    kept = hard(grating(64), image, output="low_frequency") - image
    centre = kept[..., SIZE // 2]
    torch.testing.assert_close(centre, torch.full_like(centre, -0.2), rtol=0.1, atol=0)


def test_high_frequencies_of_the_image_are_untouched(image: Tensor) -> None:
    """Whatever the change, above 1/8 cycle a pixel the spectrum is the image's own up to 1 % of the change's."""
    change = 0.2 * torch.randn(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    window = torch.hann_window(SIZE)[:, None] * torch.hann_window(SIZE)
    added = torch.fft.fft2((hard(change, image, output="low_frequency") - image) * window)
    given = torch.fft.fft2(change * window)
    frequency = torch.fft.fftfreq(SIZE)
    fast = (frequency[:, None].square() + frequency.square()).sqrt() > 1 / 8
    assert float(added[..., fast].abs().mean()) < 0.01 * float(given[..., fast].abs().mean())
    assert float(added[..., ~fast].abs().mean()) > 0.1 * float(given[..., ~fast].abs().mean())


def test_constant_shift_passes_up_to_the_border(image: Tensor) -> None:
    shift = torch.full_like(image, 0.15)
    torch.testing.assert_close(hard(shift, image, output="low_frequency"), image + 0.15)


@pytest.mark.parametrize("output", ["detail", "low_frequency"])
def test_result_is_clipped(output: str, image: Tensor) -> None:
    assert torch.equal(hard(torch.full_like(image, 0.9), image, output=output), torch.ones_like(image))
    assert torch.equal(hard(torch.full_like(image, -0.9), image, output=output), torch.zeros_like(image))


@pytest.mark.parametrize("make", [FlowStyleMix, PermutedStyleMix])
def test_ever_smaller_blur_is_the_detail(
    make: type[LevelStyleMix], make_network: Make, make_images: Make, encode: Make, make_bank: Make
) -> None:
    network, images = make_network(3), make_images(channels=3)
    latent = encode(network, images)
    bank = [make_bank({2: 32, 3: 16, 4: 16})] if make is FlowStyleMix else []
    detail, tiny, wide = (
        make(*bank, probability=1.0, **settings)(network, images, latent)
        for settings in (
            {"output": "detail"},
            {"output": "low_frequency", "blur_sigma": 1e-3},
            {"output": "low_frequency"},
        )
    )
    torch.testing.assert_close(tiny, detail, atol=1e-6, rtol=1e-5)
    assert float((wide - detail).abs().max()) > 1e-3
    assert float((wide - images).abs().max()) > 1e-3


def test_blurred_change_of_each_channel_is_its_own(image: Tensor) -> None:
    change = torch.cat([grating(64), torch.zeros(1, 1, SIZE, SIZE), grating(2)], dim=1)
    images = image.expand(-1, 3, -1, -1)
    kept = (hard(change, images, output="low_frequency") - images).abs().amax((0, 2, 3))
    assert float(kept[0]) > 0.18
    assert float(kept[1]) == 0.0
    assert float(kept[2]) < 0.01 * 0.2  # at the border as well


def test_images_without_an_active_level_stay_and_the_image_level_works(image: Tensor) -> None:
    stylizer = LevelStyleMix(output="low_frequency")
    network = Painter(torch.zeros_like(image))
    assert stylizer.stylize(network, image, torch.zeros(1), DrawnStyle({})) is image
    outer = LevelStyle(torch.full((1, 1), 0.5), torch.full((1, 1), 0.05), torch.ones(1, 1))
    moved = stylizer.stylize(network, image, torch.zeros(1), DrawnStyle({IMAGE_LEVEL: outer}))
    assert float(moved.mean()) == pytest.approx(0.5, abs=1e-3)
    assert float(moved.std()) == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize("size", [(16, 16), (17, 40)])
def test_blur_takes_images_smaller_than_its_kernel_and_keeps_their_range(size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    blurred = low_pass(images, 9.0)
    assert blurred.shape == images.shape
    assert blurred.dtype == images.dtype
    assert float(blurred.min()) >= float(images.min())
    assert float(blurred.max()) <= float(images.max())
    torch.testing.assert_close(low_pass(images.double(), 9.0), blurred.double(), atol=1e-5, rtol=0)


def test_blur_is_part_of_the_description_only_where_it_is_used() -> None:
    assert "blur_sigma=2.0" in repr(LevelStyleMix(output="low_frequency", blur_sigma=2.0))
    assert "blur_sigma" not in repr(LevelStyleMix())


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_blur_out_of_range_is_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match=r"blur_sigma=.*expected a finite number above 0"):
        LevelStyleMix(blur_sigma=sigma)
