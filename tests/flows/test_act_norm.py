from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.flows import StyleActNorm


def data(n: int = 200) -> Tensor:
    noise = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    return noise * torch.tensor([0.1, 1.0, 20.0]) + torch.tensor([-4.0, 0.0, 7.0])


@pytest.mark.parametrize("start", ["initialize", "first forward in training mode"])
def test_start_standardises_the_data(start: str) -> None:
    norm = StyleActNorm(3)
    if start == "initialize":
        norm.initialize(data())
    outputs, _ = norm(data())
    torch.testing.assert_close(outputs.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(outputs.std(dim=0), torch.ones(3), atol=1e-4, rtol=0)
    assert bool(norm.initialized)


def test_later_batches_do_not_start_it_again() -> None:
    norm = StyleActNorm(3)
    norm(data())
    before = norm.log_scale.clone()
    norm(5 * data())
    assert torch.equal(norm.log_scale, before)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_inverse_undoes_forward(dtype: torch.dtype, tolerance: float) -> None:
    norm, x = StyleActNorm(3).to(dtype), data().to(dtype)
    norm.initialize(x)
    outputs, log_det = norm(x)
    back, log_det_back = norm.inverse(outputs)
    assert (back - x).abs().max() < tolerance
    torch.testing.assert_close(log_det, -log_det_back)


def test_log_det_matches_autograd() -> None:
    norm, x = StyleActNorm(3).double(), data().double()
    norm.initialize(x)
    jacobian = torch.autograd.functional.jacobian(lambda row: norm(row[None])[0][0], x[0])
    assert torch.linalg.slogdet(jacobian).logabsdet.item() == pytest.approx(norm(x[:1])[1].item(), abs=1e-9)


@pytest.mark.parametrize("x", [torch.full((10, 3), 2.5), data(1)], ids=["constant", "batch of one"])
def test_no_spread_falls_back_to_the_floor(x: Tensor) -> None:
    norm = StyleActNorm(3, std_floor=0.01)
    norm.initialize(x)
    outputs, log_det = norm(x)
    torch.testing.assert_close(norm.scale, torch.full((3,), 100.0))
    assert torch.isfinite(outputs).all()
    assert torch.isfinite(log_det).all()


def test_start_keeps_dtype_of_the_module() -> None:
    norm = StyleActNorm(3)
    norm.initialize(data().double())
    assert norm.log_scale.dtype == norm.shift.dtype == torch.float32


def test_start_is_saved_with_the_state() -> None:
    norm, other = StyleActNorm(3), StyleActNorm(3)
    norm.initialize(data())
    other.load_state_dict(norm.state_dict())
    assert torch.equal(other(5 * data())[0], norm(5 * data())[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_data_are_refused_with_the_channel(value: float) -> None:
    x = data()
    x[3, 1] = value
    norm = StyleActNorm(3)
    with pytest.raises(ValueError, match=r"nan or inf in channels \[1\] of 3"):
        norm.initialize(x)
    assert not bool(norm.initialized)


@pytest.mark.parametrize("shape", [(5, 4), (0, 3), (3,)])
def test_wrong_shape_names_both(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape \(.*\), expected \(N, 3\)"):
        StyleActNorm(3).initialize(torch.zeros(shape))


@pytest.mark.parametrize("floor", [0.0, -1.0, float("inf")])
def test_bad_floor_is_named(floor: float) -> None:
    with pytest.raises(ValueError, match=f"std_floor is {floor}"):
        StyleActNorm(3, std_floor=floor)
