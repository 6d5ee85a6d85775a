"""Augmentation recipes: what they must keep, and what they must change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from mixstyleflow_monai.data import augmentation
from mixstyleflow_monai.data.augmentations import _elastic

RECIPES = pytest.mark.parametrize(("name", "channels"), [("prostate", 1), ("fundus", 3)])
SIZE = (48, 32)


def item(channels: int, seed: int = 0) -> dict[str, Tensor]:
    """Return a bright ellipse on a darker ground, with nested masks of it."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIZE[0]), torch.linspace(-1, 1, SIZE[1]), indexing="ij")
    radius = (x / 0.7).square() + (y / 0.5).square()
    noise = torch.rand(channels, *SIZE, generator=torch.Generator().manual_seed(seed))
    image = 0.2 + 0.6 * (radius < 1) + 0.2 * noise
    return {"image": image, "label": torch.stack([radius < 1, radius < 0.3]).float()}


@RECIPES
def test_shape_range_and_labels_are_kept(name: str, channels: int) -> None:
    recipe = augmentation(name, SIZE)
    recipe.set_random_state(0)
    for seed in range(20):
        plain = item(channels, seed)
        result = recipe(dict(plain))
        assert result["image"].shape == (channels, *SIZE)
        assert result["label"].shape == (2, *SIZE)
        assert result["image"].dtype == result["label"].dtype == torch.float32
        assert float(result["image"].min()) >= 0
        assert float(result["image"].max()) <= 1
        assert set(result["label"].unique().tolist()) <= {0.0, 1.0}
        assert not bool((result["label"][1] > result["label"][0]).any())  # nested regions stay nested


@RECIPES
def test_same_seed_repeats_and_another_one_differs(name: str, channels: int) -> None:
    recipe = augmentation(name, SIZE)
    runs = []
    for seed in (1, 1, 2):
        recipe.set_random_state(seed)
        runs.append(torch.stack([recipe(item(channels))["image"].as_tensor() for _ in range(6)]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert len(runs[0].flatten(1).unique(dim=0)) > 1


@pytest.mark.parametrize("height", [96, 224])
def test_elastic_displacements_are_near_the_published_ones(height: int) -> None:
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(height)), indexing="ij")
    places, margin = torch.stack([y, x]), height // 5  # zeros come in at the border
    elastic, generator = _elastic(height, prob=1.0), np.random.default_rng(0)
    own, published, folded = [], [], []
    for seed in range(20):
        elastic.set_random_state(seed)
        moved = elastic({"image": places.clone(), "label": places.clone()})["image"].as_tensor()
        inside = (moved - places)[:, margin:-margin, margin:-margin]
        own.append(float(inside.square().mean()))
        down, right = torch.diff(moved, dim=1)[:, :, :-1], torch.diff(moved, dim=2)[:, :-1]
        area = (down[0] * right[1] - down[1] * right[0])[margin:-margin, margin:-margin]
        folded.append(float((area <= 0).float().mean()))
        sigma, factor = height * generator.uniform(0.1, 0.2) * 0.75, height * generator.uniform(1.5, 2.0)
        field = factor * gaussian_filter(generator.uniform(-1.0, 1.0, (height, height)), sigma)
        published.append(float(np.square(field).mean()))
    assert 1.0 <= np.sqrt(np.mean(own) / np.mean(published)) <= 1.5
    # The published field folds as often at 96 pixels, and never at 224.
    assert np.mean(np.array(folded) > 0) <= (0.35 if height == 96 else 0.0)


@RECIPES
def test_input_is_not_changed(name: str, channels: int) -> None:
    plain = item(channels)
    before = {key: value.clone() for key, value in plain.items()}
    recipe = augmentation(name, SIZE)
    recipe.set_random_state(0)
    for _ in range(10):
        recipe(dict(plain))
    assert all(torch.equal(plain[key], before[key]) for key in plain)


@RECIPES
def test_image_and_label_move_together(name: str, channels: int) -> None:
    recipe = augmentation(name, SIZE)
    recipe.set_random_state(0)
    agreement = []
    for _ in range(20):
        result = recipe(item(channels))
        bright, mask = result["image"].mean(0) > 0.5 * float(result["image"].max()), result["label"][0] > 0
        agreement.append(2.0 * float((bright & mask).sum()) / float(bright.sum() + mask.sum()))
    assert sum(agreement) / len(agreement) > 0.85


def test_grey_slices_are_scaled_to_their_full_range_again() -> None:
    recipe = augmentation("prostate", SIZE)
    recipe.set_random_state(0)
    for _ in range(5):
        image = recipe(item(1))["image"]
        assert float(image.min()) == pytest.approx(0.0, abs=1e-6)
        assert float(image.max()) == pytest.approx(1.0, abs=1e-6)


def test_brightness_of_colour_images_is_not_normalised_away() -> None:
    recipe = augmentation("fundus", SIZE)
    recipe.set_random_state(0)
    flat = {"image": torch.full((3, *SIZE), 0.4), "label": torch.zeros(1, *SIZE)}
    means = {round(float(recipe(dict(flat))["image"].mean()), 2) for _ in range(40)}
    assert len(means) > 2


def test_constant_slice_does_not_become_nan() -> None:
    recipe = augmentation("prostate", SIZE)
    recipe.set_random_state(0)
    for _ in range(10):
        assert bool(recipe({"image": torch.zeros(1, *SIZE), "label": torch.zeros(1, *SIZE)})["image"].isfinite().all())


@pytest.mark.parametrize(("channels", "same"), [(1, "prostate"), (3, "fundus"), (4, "fundus")])
def test_auto_takes_the_recipe_by_channels(channels: int, same: str) -> None:
    chosen, named = augmentation("auto", SIZE, channels), augmentation(same, SIZE)
    assert [type(t) for t in chosen.transforms] == [type(t) for t in named.transforms]


def test_unknown_recipes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"augmentation='strong': expected 'auto' or one of \['fundus', 'prostate'\]"):
        augmentation("strong", SIZE)
