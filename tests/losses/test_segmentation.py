"""Losses against the formulas written out in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from monai.losses import DiceLoss
from torch import Tensor

from mixstyleflow_monai.losses import SegmentationLoss, peak_signal_to_noise_ratio, reconstruction_loss


def example(channels: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, channels, 6, 5, generator=generator, dtype=torch.float64)
    return logits, (torch.rand(3, channels, 6, 5, generator=generator) > 0.7).double()


def pooled_dice_loss(p: Tensor, y: Tensor) -> float:
    return 1 - (2 * float((p * y).sum()) + 1) / (float(p.sum()) + float(y.sum()) + 1)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_bce_dice_is_the_formula_of_the_paper(channels: int) -> None:
    logits, target = example(channels)
    p = 1 / (1 + torch.exp(-logits))
    cross_entropy = -float((target * p.log() + (1 - target) * (1 - p).log()).mean())
    expected = cross_entropy + pooled_dice_loss(p, target)
    assert float(SegmentationLoss()(logits, target)) == pytest.approx(expected, abs=1e-9)
    assert float(SegmentationLoss()(logits.float(), target)) == pytest.approx(expected, abs=1e-5)


def test_dice_pools_batch_and_channels_which_monai_alone_averages() -> None:
    logits, target = example()
    target[:, 1] = 0  # an absent region tells the two apart
    dice = float(SegmentationLoss().dice(logits.reshape(1, 1, -1), target.reshape(1, 1, -1)))
    assert dice == pytest.approx(pooled_dice_loss(torch.sigmoid(logits), target), abs=1e-9)
    averaged = float(DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)(logits, target))
    assert abs(averaged - dice) > 0.01
    one_channel = SegmentationLoss().dice(logits[:, :1].reshape(1, 1, -1), target[:, :1].reshape(1, 1, -1))
    monai = DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)(logits[:, :1], target[:, :1])
    torch.testing.assert_close(one_channel, monai)


def test_loss_does_not_depend_on_the_order_of_the_images() -> None:
    logits, target = example()
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(SegmentationLoss()(logits[order], target[order]), SegmentationLoss()(logits, target))


@pytest.mark.parametrize(("value", "expected"), [(0.0, 0.0), (1.0, 0.0)])
def test_right_and_certain_predictions_cost_nothing_even_if_empty(value: float, expected: float) -> None:
    target = torch.full((2, 2, 4, 4), value)
    assert float(SegmentationLoss()(40 * (2 * target - 1), target)) == pytest.approx(expected, abs=1e-6)


def test_wrong_predictions_on_empty_targets_are_finite_and_have_a_gradient() -> None:
    logits = torch.full((2, 1, 4, 4), 2.0, requires_grad=True)
    loss = SegmentationLoss()(logits, torch.zeros(2, 1, 4, 4))
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert bool((logits.grad > 0).all())


def test_integer_targets_are_taken() -> None:
    logits, target = example()
    assert torch.equal(SegmentationLoss()(logits, target.to(torch.uint8)), SegmentationLoss()(logits, target))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_lose_nothing_in_the_sums(dtype: torch.dtype) -> None:
    logits, target = example()
    # So many pixels that a sum in half precision would overflow or stop growing.
    logits, target = (t.repeat(1, 1, 40, 40).float() for t in (logits, target))
    loss = SegmentationLoss()(logits.to(dtype), target)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(SegmentationLoss()(logits.to(dtype).float(), target)), rel=1e-6)


def test_cross_entropy_is_minus_the_mean_log_probability_of_the_right_class() -> None:
    logits, _ = example(3)
    classes = torch.randint(3, (3, 6, 5), generator=torch.Generator().manual_seed(1))
    target = torch.nn.functional.one_hot(classes, 3).movedim(-1, 1)
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    expected = -float(p.gather(1, classes[:, None]).log().mean())
    loss = SegmentationLoss("softmax", "cross_entropy")
    assert float(loss(logits, target)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tanh", "bce_dice"), "activation='tanh': expected one of"),
        (("sigmoid", "focal"), "loss='focal': expected one of"),
        (("softmax", "bce_dice"), "loss='bce_dice' with activation='softmax'.*Change one of the two keys"),
        (("sigmoid", "cross_entropy"), "loss='cross_entropy' with activation='sigmoid'"),
    ],
)
def test_unknown_names_and_combinations_are_refused(arguments: tuple[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentationLoss(*arguments)


def test_other_shapes_name_both_and_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"logits \(1, 2, 4, 4\) and target \(1, 1, 4, 4\).*number of regions"):
        SegmentationLoss()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))


def test_reconstruction_loss_is_half_the_mean_squared_error() -> None:
    x, y = (torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert float(reconstruction_loss(x, y)) == pytest.approx(0.5 * float(((x - y) ** 2).mean()))


def test_psnr_is_20_decibels_at_a_tenth_and_finite_for_equal_images() -> None:
    image = torch.zeros(3, 1, 4, 4)
    error = torch.tensor([0.1, 0.01, 0.0])[:, None, None, None]
    psnr = peak_signal_to_noise_ratio(image + error, image)
    torch.testing.assert_close(psnr, torch.tensor([20.0, 40.0, 100.0]), atol=1e-3, rtol=0)
