"""What a training step of each compared method costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.method_cost import hard_pass_of, main, method_names
from mixstyleflow_monai.engines import HardPass, SemanticLosses


@pytest.fixture
def statistics() -> dict[int, tuple[Tensor, Tensor]]:
    """Statistics to start flows from."""
    generator = torch.Generator().manual_seed(0)
    return {
        level: (torch.randn(9, size, generator=generator), 0.5 + torch.rand(9, size, generator=generator))
        for level, size in ((2, 32), (3, 16), (4, 16), (5, 1))
    }


@pytest.mark.parametrize("method", method_names())
def test_hard_pass_of_every_overlay_is_built(method: str, statistics: dict[int, tuple[Tensor, Tensor]]) -> None:
    hard_pass = hard_pass_of(method, statistics)
    assert (hard_pass is None) == (method == "no_stylizer")
    if method == "san_saw":
        assert isinstance(hard_pass, SemanticLosses)
    elif hard_pass is not None:
        assert isinstance(hard_pass, HardPass)
        assert (hard_pass.views == 3) == (method == "rand_conv")
        assert (hard_pass.stylizer is None) == (method in ("mix_style", "dsu", "efd_mix", "tri_d"))


def test_unknown_method_is_told(statistics: dict[int, tuple[Tensor, Tensor]]) -> None:
    with pytest.raises(ValueError, match="'nonsense', expected some of"):
        hard_pass_of("nonsense", statistics)


def test_table_has_a_row_a_method_and_the_baseline_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        main("tri_d,rand_conv,san_saw,flow_and_image_styles", image_size=16, batch_size=2, steps=1, rounds=2)
    finally:
        torch.set_num_threads(threads)
    rows = {
        line.split("│")[1].strip(): line.split("│") for line in capsys.readouterr().out.splitlines() if "│ " in line
    }
    assert set(rows) == {"no_stylizer", "tri_d", "rand_conv", "san_saw", "flow_and_image_styles"}
    assert rows["no_stylizer"][3].strip() == "1.00"
