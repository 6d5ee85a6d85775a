"""Strong classical augmentation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.styles import BigAug
from mixstyleflow_monai.styles.big_aug import intensity_stack


def test_an_image_depends_on_its_own_seed_and_not_on_its_batch(make_images: Callable[..., Tensor]) -> None:
    images, stylizer = make_images(5, 3), BigAug()
    seeds = stylizer.draw(5)
    whole = stylizer.stylize(images, seeds)
    for number in (3, 0):
        torch.testing.assert_close(
            stylizer.stylize(images[number : number + 1], seeds[number : number + 1])[0], whole[number]
        )
    same = images[:1].expand(5, -1, -1, -1)
    assert len(stylizer.stylize(same, seeds).unique(dim=0)) == 5


def test_every_transform_changes_images_and_keeps_their_size(make_images: Callable[..., Tensor]) -> None:
    image = make_images(1, 3)[0]
    transforms = intensity_stack(1.0).transforms
    assert len(transforms) == 9
    for transform in transforms:
        changed = transform.set_random_state(0)(image)
        assert changed.shape == image.shape
        assert not torch.allclose(changed.as_tensor(), image, atol=1e-3), type(transform).__name__


def test_channels_of_a_colour_image_change_their_ratio() -> None:
    grey = torch.linspace(0.2, 0.8, 1024).reshape(1, 1, 32, 32).expand(6, 3, -1, -1)
    means = BigAug(probability=1.0)(None, grey, None).mean((2, 3))  # type: ignore[arg-type]
    assert float(means.std(1).min()) > 0.01


def test_anatomy_stays_where_it_is() -> None:
    """A bright half stays brighter than the dark one: contrast changes, and nothing is moved or inverted."""
    images = torch.full((40, 1, 32, 32), 0.3)
    images[..., 16:] = 0.7
    hard = BigAug()(None, images, None)  # type: ignore[arg-type]
    assert float((hard[..., 20:].mean((1, 2, 3)) > hard[..., :12].mean((1, 2, 3))).float().mean()) >= 0.95
    edge = (hard.mean(2)[:, 0, 1:] - hard.mean(2)[:, 0, :-1]).argmax(1)
    assert float(((edge - 15).abs() <= 1).float().mean()) >= 0.9


def test_constant_images_stay(make_images: Callable[..., Tensor]) -> None:
    images = make_images(2)
    images[0] = 0.4
    hard = BigAug(probability=1.0)(None, images, None)  # type: ignore[arg-type]
    assert torch.equal(hard[0], images[0])
    assert not torch.allclose(hard[1], images[1], atol=1e-2)


def test_another_number_of_seeds_is_refused(make_images: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match="3 seeds for 2 images"):
        BigAug().stylize(make_images(2), BigAug().draw(3))
