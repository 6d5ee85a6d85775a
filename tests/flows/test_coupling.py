from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.flows import MaskedAffineCoupling

CHANNELS = 5
LIMITS = pytest.mark.parametrize(
    "limits",
    [{"log_scale_bound": 2.0}, {"clamp": 25.0}, {"log_scale_bound": None}],
    ids=["bounded", "clamped", "free"],
)


def trained_coupling(keep_even: bool = True, weight_std: float = 0.5, **limits: Any) -> MaskedAffineCoupling:
    """A coupling with all weights away from their zero start."""
    coupling = MaskedAffineCoupling(CHANNELS, keep_even=keep_even, **limits)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter.copy_(weight_std * torch.randn(parameter.shape, generator=generator))
    return coupling


def vectors(n: int = 20) -> Tensor:
    return torch.randn(n, CHANNELS, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("keep_even", [True, False])
@LIMITS
def test_new_coupling_is_identity(keep_even: bool, limits: dict[str, Any]) -> None:
    outputs, log_det = MaskedAffineCoupling(CHANNELS, keep_even=keep_even, **limits)(vectors())
    assert torch.equal(outputs, vectors())
    assert torch.equal(log_det, torch.zeros(20))


@pytest.mark.parametrize("keep_even", [True, False])
@LIMITS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_inverse_undoes_forward(keep_even: bool, limits: dict[str, Any], dtype: torch.dtype, tolerance: float) -> None:
    coupling, x = trained_coupling(keep_even, **limits).to(dtype), vectors().to(dtype)
    noise, log_det = coupling(x)
    back, log_det_back = coupling.inverse(noise)
    assert (back - x).abs().max() < tolerance
    assert (log_det + log_det_back).abs().max() < tolerance


@LIMITS
def test_log_det_matches_autograd(limits: dict[str, Any]) -> None:
    coupling = trained_coupling(**limits).double()
    for row in vectors(5).double():
        jacobian = torch.autograd.functional.jacobian(lambda x: coupling(x[None])[0][0], row)
        assert torch.linalg.slogdet(jacobian).logabsdet.item() == pytest.approx(coupling(row[None])[1].item(), abs=1e-9)


@pytest.mark.parametrize(("keep_even", "kept"), [(True, [0, 2, 4]), (False, [1, 3])])
def test_kept_channels_pass_and_the_others_change(keep_even: bool, kept: list[int]) -> None:
    x = vectors()
    generated, _ = trained_coupling(keep_even).inverse(x)
    same = (generated == x).all(dim=0)
    assert same.nonzero().flatten().tolist() == kept


def test_generative_direction_is_scale_then_shift() -> None:
    coupling, noise = trained_coupling(log_scale_bound=None), vectors()
    kept = noise[:, [0, 2, 4]]
    net = coupling.transform_net
    expected = noise[:, [1, 3]] * net.scale(kept).exp() + net.shift(kept)
    generated, log_det = coupling.inverse(noise)
    torch.testing.assert_close(generated[:, [1, 3]], expected)
    torch.testing.assert_close(log_det, net.scale(kept).sum(dim=1))


@pytest.mark.parametrize(("limits", "largest"), [({"log_scale_bound": 1.5}, 1.5), ({"clamp": 3.0}, 3.0)])
def test_log_scale_stays_within_its_limit(limits: dict[str, Any], largest: float) -> None:
    coupling = trained_coupling(weight_std=30.0, **limits)
    per_channel = coupling.inverse(vectors())[1].abs() / 2
    assert per_channel.max() <= largest + 1e-6
    assert per_channel.max() > 0.9 * largest


def test_clamp_limits_the_shift_too() -> None:
    coupling = trained_coupling(weight_std=100.0, clamp=25.0)
    generated, _ = coupling.inverse(torch.zeros(1, CHANNELS))
    assert generated.abs().max() <= 25.0


def test_scale_and_shift_have_their_own_layers() -> None:
    net = MaskedAffineCoupling(6, keep_even=True).transform_net
    shapes = [tuple(parameter.shape) for parameter in net.scale.parameters()]
    assert shapes == [tuple(parameter.shape) for parameter in net.shift.parameters()]
    assert shapes == [(12, 3), (12,), (3, 12), (3,)]
    assert not {id(p) for p in net.scale.parameters()} & {id(p) for p in net.shift.parameters()}


def test_repr_names_kept_channels_and_limit() -> None:
    assert "kept=even, log_scale_bound=2.0" in repr(MaskedAffineCoupling(4, keep_even=True))
    assert "kept=odd, clamp=25.0" in repr(MaskedAffineCoupling(4, keep_even=False, clamp=25.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 1}, "channels is 1.*at least 2"),
        ({"hidden_factor": 0}, "hidden_factor is 0"),
        ({"log_scale_bound": 0.0}, "log_scale_bound is 0.0.*above 0"),
        ({"clamp": float("nan")}, "clamp is nan.*above 0"),
    ],
)
def test_bad_values_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskedAffineCoupling(**{"channels": 4, "keep_even": True, **options})
