"""RandConv against its formula."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d

from mixstyleflow_monai.styles import RandConv
from mixstyleflow_monai.styles.rand_conv import DrawnConvolution


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_images_are_those_of_the_formula(channels: int, size: int, share: float) -> None:
    random = np.random.default_rng(0)
    images, kernel = random.uniform(0.1, 0.8, (2, channels, 9, 8)), random.normal(size=(channels, channels, size, size))
    expected = np.empty_like(images)
    for b in range(2):
        for o in range(channels):
            convolved = sum(correlate2d(images[b, i], kernel[o, i], mode="same") for i in range(channels))
            expected[b, o] = share * convolved + (1 - share) * images[b, o]
        low, high = images[b].min(), images[b].max()
        scaled = (expected[b] - expected[b].min()) / (expected[b].max() - expected[b].min())
        expected[b] = scaled * (high - low) + low
    drawn = DrawnConvolution(torch.from_numpy(kernel), share)
    hard = RandConv().stylize(torch.from_numpy(images).float(), drawn)
    np.testing.assert_allclose(hard.numpy(), expected, atol=2e-6)


def test_share_zero_changes_nothing() -> None:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = RandConv().draw(3)
    assert drawn is not None
    torch.testing.assert_close(RandConv().stylize(images, DrawnConvolution(drawn.kernel, 0.0)), images)


@pytest.mark.parametrize("value", [0.0, 0.4])
def test_constant_images_stay(value: float) -> None:
    images, stylizer = torch.full((2, 1, 8, 8), value), RandConv()
    for _ in range(8):
        torch.testing.assert_close(stylizer(None, images, None), images)  # type: ignore[arg-type]


def test_kernels_have_the_law_of_the_paper() -> None:
    stylizer = RandConv()
    drawn = [stylizer.draw(3) for _ in range(2000)]
    sizes = Counter(d.kernel.shape[-1] for d in drawn if d is not None)
    assert set(sizes) == {1, 3, 5, 7}
    assert min(sizes.values()) > 500 - 4 * 19.4
    for size in sizes:
        kernels = torch.stack([d.kernel for d in drawn if d is not None and d.kernel.shape[-1] == size])
        assert kernels.shape[1:3] == (3, 3)
        assert float(kernels.std()) == pytest.approx((3 * size * size) ** -0.5, rel=0.05)
        assert float(kernels.mean()) == pytest.approx(0.0, abs=0.02)
    shares = torch.tensor([d.share for d in drawn if d is not None], dtype=torch.float64)
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.026)
    assert float(shares.var()) == pytest.approx(1 / 12, rel=0.08)


def test_without_mixing_the_convolved_images_alone_are_taken_and_some_batches_kept() -> None:
    stylizer = RandConv(mix=False, probability=0.5)
    drawn = [stylizer.draw(1) for _ in range(400)]
    assert sum(d is None for d in drawn) == pytest.approx(200, abs=40)
    assert {d.share for d in drawn if d is not None} == {1.0}


@pytest.mark.parametrize("sizes", [[2], [], [0], [3, -1]])
def test_kernel_sizes_must_be_odd(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"kernel_sizes=.*odd number"):
        RandConv(sizes)
