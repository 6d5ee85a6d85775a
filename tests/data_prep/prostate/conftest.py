"""The two prostate releases, small, and single cases of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_prep.prostate.cases import ReleaseCase
from tests.data_prep.prostate.prostate_releases import (
    SHAPE,
    SITE_NUMBERS,
    label_of,
    save,
    write_decathlon,
    write_sites,
)

FEW = {site: list(numbers)[:2] for site, numbers in SITE_NUMBERS.items()}


@pytest.fixture
def flat(tmp_path: Path) -> ReleaseCase:
    """A 3-D case as in the six-site release."""
    case = ReleaseCase("HK", "Case38", tmp_path / "Case38.nii.gz", tmp_path / "Case38_segmentation.nii.gz", "HK/x")
    save(case.image, np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16))
    save(case.label, label_of(1))
    return case


@pytest.fixture
def deep(flat: ReleaseCase) -> ReleaseCase:
    """A 4-D case as in the Decathlon."""
    save(flat.image, np.random.default_rng(0).uniform(0, 1500, (*SHAPE, 2)).astype(np.float32))
    return replace(flat, domain="decathlon", channels=("T2", "ADC"), channel=0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Folder of small releases: six Decathlon cases, two cases a site."""
    write_decathlon(tmp_path / "data", range(6))
    write_sites(tmp_path / "data" / "sites", FEW)
    return tmp_path / "data"
