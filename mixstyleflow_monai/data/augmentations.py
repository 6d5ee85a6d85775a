"""Random augmentation of training slices, with MONAI's transforms.

Both recipes follow the published training code of MixStyleFlow (prostate) and of TriD (fundus), expressed with MONAI
transforms, on images in [0, 1]. Items hold ``image`` (C, H, W) and ``label`` (K, H, W), both float32 tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from monai.transforms import (
    Compose,
    Rand2DElasticd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
    ScaleIntensityd,
    ScaleIntensityRanged,
    SpatialPadd,
)

KEYS = ("image", "label")
MODES = ("bilinear", "nearest")
ELASTIC_HEIGHT = 96
"""Pixels; in higher images elastic displacements do not grow in proportion."""


def prostate_augmentation(image_size: Sequence[int]) -> Compose:
    """Affine, elastic, crop, flips, contrast and brightness for grey slices, then each slice to [0, 1].

    Rotation within 15 degrees, shift within 10 %, scale 0.8 to 1.2, zero fill, always; elastic deformation with a
    chance of 0.5; a random crop of a field zero-padded by 9/7 (288 to 224 pixels in the paper); both flips with 0.5;
    contrast x U(0.8, 1.2) and brightness U(-0.1, 0.1) with 0.5 each.

    Deviations: the published code pads first, so that its affine and its crop bring in tissue from outside the
    network's field where the volume has any, and draws contrast and brightness together; here the field is what was
    cached, and zeros come in from outside it. Elastic displacements are of 4 pixels (5 at 384) in place of 3.
    """
    height, width = (int(n) for n in image_size)
    padded = (round(height * 9 / 7), round(width * 9 / 7))
    return Compose(
        [
            RandAffined(
                KEYS,
                prob=1.0,
                rotate_range=math.radians(15),
                translate_range=(0.1 * height, 0.1 * width),
                scale_range=(0.2, 0.2),
                mode=MODES,
                padding_mode="zeros",
            ),
            _elastic(height, prob=0.5),
            SpatialPadd(KEYS, padded),
            RandSpatialCropd(KEYS, (height, width), random_size=False),
            RandFlipd(KEYS, prob=0.5, spatial_axis=0),
            RandFlipd(KEYS, prob=0.5, spatial_axis=1),
            RandScaleIntensityd("image", factors=0.2, prob=0.5),
            RandShiftIntensityd("image", offsets=0.1, prob=0.5),
            _clip(),
            ScaleIntensityd("image", minv=0.0, maxv=1.0, channel_wise=True),
        ]
    )


def fundus_augmentation(image_size: Sequence[int]) -> Compose:
    """Mild geometry, mirrors, brightness a channel and noise for colour images, clipped to [0, 1].

    Elastic deformation, rotation within 15 degrees and scale 0.75 to 1.25 with a chance of 0.1 each; both flips with
    0.5; brightness x U(0.7, 1.5) a channel and Gaussian noise of a variance up to 0.05 with 0.15 each. The images are
    not re-normalised afterwards, which would cancel the brightness.
    """
    height = int(image_size[0])
    return Compose(
        [
            _elastic(height, prob=0.1),
            RandAffined(KEYS, prob=0.1, rotate_range=math.radians(15), mode=MODES, padding_mode="zeros"),
            RandAffined(KEYS, prob=0.1, scale_range=(0.25, 0.25), mode=MODES, padding_mode="zeros"),
            RandFlipd(KEYS, prob=0.5, spatial_axis=0),
            RandFlipd(KEYS, prob=0.5, spatial_axis=1),
            RandScaleIntensityd("image", factors=(-0.3, 0.5), prob=0.15, channel_wise=True),
            RandGaussianNoised("image", prob=0.15, std=math.sqrt(0.05), sample_std=True),
            _clip(),
        ]
    )


AUGMENTATIONS = {"prostate": prostate_augmentation, "fundus": fundus_augmentation}


def augmentation(name: str, image_size: Sequence[int], channels: int = 1) -> Compose:
    """Return a recipe by name: "prostate", "fundus", or "auto" (prostate for one channel, fundus for more)."""
    if name == "auto":
        name = "prostate" if channels == 1 else "fundus"
    if name not in AUGMENTATIONS:
        raise ValueError(f"augmentation={name!r}: expected 'auto' or one of {sorted(AUGMENTATIONS)}.")
    return AUGMENTATIONS[name](image_size)


def _elastic(height: int, *, prob: float) -> Rand2DElasticd:
    # The published field is uniform noise smoothed by sigma = H U(.1, .2) .75 and multiplied by H U(1.5, 2). H cancels
    # in its height: displacements near 3 pixels (root mean square a direction) at any H, varying over about a quarter
    # of it. These are of 3.6 pixels at 96, 4 at 224 and 5 at 384, with a ripple of about 1 % of H in them that MONAI's
    # interpolation of the grid makes. In proportion to H they would fold images.
    pixels = min(height, ELASTIC_HEIGHT)
    return Rand2DElasticd(
        KEYS,
        spacing=(0.25 * height, 0.25 * height),
        magnitude_range=(0.035 * pixels, 0.055 * pixels),
        prob=prob,
        mode=MODES,
        padding_mode="zeros",
    )


def _clip() -> ScaleIntensityRanged:
    return ScaleIntensityRanged("image", a_min=0.0, a_max=1.0, b_min=0.0, b_max=1.0, clip=True)
