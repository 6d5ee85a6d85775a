"""Tests of figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mixstyleflow_monai.report import save_panel
from mixstyleflow_monai.report.figures import displayable


def test_panel_shows_the_images_and_contours(tmp_path: Path) -> None:
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(3, 1, 16, 16)
    mask[:, :, 4:10, 4:10] = 1
    save_panel(tmp_path / "a.png", {"grey": images, "colour": images.repeat(1, 3, 1, 1)[:2]})
    save_panel(tmp_path / "b.png", {"grey": images, "colour": images.repeat(1, 3, 1, 1)[:2]}, contours={"grey": mask})
    with Image.open(tmp_path / "a.png") as plain, Image.open(tmp_path / "b.png") as outlined:
        first, second = (np.asarray(image.convert("RGB")).astype(int) for image in (plain, outlined))
    assert first.std() > 20
    assert first.shape == second.shape
    yellow = (second[..., 0] > 200) & (second[..., 1] > 150) & (second[..., 2] < 80)
    assert yellow.any()


def test_any_name_is_shown_as_it_is(tmp_path: Path) -> None:
    """Two dollar signs would be a formula, and letters that the font lacks a warning."""
    name = "cost$5_$6 \N{CJK UNIFIED IDEOGRAPH-4E00}"
    save_panel(tmp_path / "a.png", {name: torch.zeros(1, 1, 16, 16)}, title=name, column_titles=[name])
    assert (tmp_path / "a.png").is_file()


def test_images_are_shown_upright() -> None:
    image = torch.zeros(3, 5, 7)
    image[0, 4, 0] = 1.0  # x = 4, y = 0: the right end of the top row of a 5 x 7 (width x height) image
    shown = displayable(image)
    assert shown.shape == (7, 5, 3)
    assert shown[0, 4, 0] == 1.0
