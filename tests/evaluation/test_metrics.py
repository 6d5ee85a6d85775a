"""Tests of the metrics of one case."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from mixstyleflow_monai.evaluation import dice_percent, surface_distance


def random_blobs(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    noise = np.random.default_rng(seed).normal(size=shape)
    return torch.from_numpy(ndimage.gaussian_filter(noise, 2) > 0.02)


def reference_distance(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    """Mean distance of border voxels of either mask to the border of the other, by scipy's distance transform."""
    borders = [mask & ~ndimage.binary_erosion(mask, border_value=0) for mask in (a, b)]
    distances = [ndimage.distance_transform_edt(~border, sampling=spacing) for border in borders]
    return float(np.concatenate([distances[1][borders[0]], distances[0][borders[1]]]).mean())


@pytest.mark.parametrize("seed", range(3))
def test_dice_against_its_definition(seed: int) -> None:
    a, b = random_blobs(seed, (20, 30)), random_blobs(seed + 10, (20, 30))
    expected = 200 * int((a.numpy() & b.numpy()).sum()) / (int(a.sum()) + int(b.sum()))
    assert dice_percent(a, b) == pytest.approx(float(expected))
    assert dice_percent(a, a) == 100.0


def test_dice_of_empty_masks() -> None:
    empty, full = torch.zeros(4, 4, dtype=torch.bool), torch.ones(4, 4, dtype=torch.bool)
    assert dice_percent(empty, empty) == 100.0
    assert dice_percent(empty, full) == 0.0


@pytest.mark.parametrize(("shape", "spacing"), [((24, 30), (1.0, 1.0)), ((16, 18, 6), (0.6, 0.7, 3.6))])
def test_surface_distance_against_scipy(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    a, b = random_blobs(1, shape), random_blobs(2, shape)
    expected = reference_distance(a.numpy(), b.numpy(), spacing)
    assert surface_distance(a, b, spacing) == pytest.approx(expected, rel=0.02)


def test_surface_distance_of_a_shift_scales_with_the_spacing() -> None:
    a = torch.zeros(20, 20, dtype=torch.bool)
    a[5:10, 5:10] = True
    b = a.roll(3, dims=0)
    assert surface_distance(a, a) == 0.0
    assert surface_distance(a, b, (2.0, 2.0)) == pytest.approx(2 * surface_distance(a, b))


def test_surface_distance_to_nothing_is_not_a_number() -> None:
    mask = torch.ones(4, 4, dtype=torch.bool)
    assert math.isnan(surface_distance(mask, ~mask))


@pytest.mark.parametrize("axis", range(3))
def test_surface_distance_in_a_single_slice_is_that_of_the_outlines(axis: int) -> None:
    a, b, spacing = random_blobs(0, (24, 20)), random_blobs(1, (24, 20)), [0.5, 2.0]
    volume_spacing = [*spacing[:axis], 9.0, *spacing[axis:]]
    found = surface_distance(a.unsqueeze(axis), b.unsqueeze(axis), volume_spacing)
    assert found == pytest.approx(surface_distance(a, b, spacing))
    assert surface_distance(a.unsqueeze(axis), b.unsqueeze(axis)) == pytest.approx(surface_distance(a, b))
