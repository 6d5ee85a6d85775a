"""When stylised images are likely to be other anatomy, and not the same anatomy in another style."""

from __future__ import annotations

import math
from collections.abc import Mapping

POOR_PSNR = 14.0
"""Reconstructions below this many dB are reported as too poor to stylise. The lowest value at which the Phase I network
was still seen to find the anatomy in its own reconstructions is 14.3 dB (docs/results.md)."""
POOR_DICE_RATIO = 0.7
"""Stylised images on which the Phase I network keeps less than this share of its Dice are reported. The lowest
share measured is 0.79, of a training that gained on unseen domains (docs/results.md); nothing was measured below."""


def poor_styles(numbers: Mapping[str, float | None]) -> list[tuple[str, str]]:
    """Return what is wrong with styles, and what to do about it; nothing where nothing was seen.

    Args:
        numbers: ``reconstruction_psnr`` in dB, ``plain_dice`` and ``stylised_dice`` of the Phase I network in percent,
            those that are known.
    """
    found = []
    psnr = numbers.get("reconstruction_psnr")
    if psnr is not None and math.isnan(psnr):
        found.append(("the reconstruction is not finite: training diverged", "lower the learning rate"))
    elif psnr is not None and psnr < POOR_PSNR:
        found.append(
            (
                f"reconstruction PSNR {psnr:.1f} dB is below {POOR_PSNR:.0f} dB, worse than any that was measured: the "
                "image decoder may lose the anatomy that stylised images should keep",
                "train phase 1 longer or at a larger image_size",
            )
        )
    plain, stylised = numbers.get("plain_dice"), numbers.get("stylised_dice")
    if plain is not None and stylised is not None and stylised < POOR_DICE_RATIO * plain:
        found.append(
            (
                f"the Phase I network reaches a Dice of {stylised:.1f} on stylised images and {plain:.1f} on the "
                "images themselves, less than any that was measured: styles may hide or destroy the anatomy",
                "lower the temperatures, or train phase 1 longer",
            )
        )
    return found
