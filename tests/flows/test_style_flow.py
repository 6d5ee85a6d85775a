from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from mixstyleflow_monai.flows import MaskedAffineCoupling, StyleActNorm, StyleFlow

CHANNELS = 6
LIMITS = pytest.mark.parametrize("clamp", [None, 25.0], ids=["bounded", "clamped"])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors here are too small for threads, and timings should not depend on the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlated(n: int, channels: int = CHANNELS, seed: int = 0) -> tuple[Tensor, MultivariateNormal]:
    """Samples of a Gaussian with a full covariance, and the Gaussian."""
    generator = seeded(seed)
    factor = torch.randn(channels, channels, generator=generator) / channels**0.5 + 0.5 * torch.eye(channels)
    mean = 2 * torch.randn(channels, generator=generator)
    x = torch.randn(n, channels, generator=generator) @ factor.T + mean
    return x, MultivariateNormal(mean, factor @ factor.T)


def fresh_flow(channels: int = CHANNELS, clamp: float | None = None) -> StyleFlow:
    flow = StyleFlow(channels, clamp=clamp)
    flow.initialize(correlated(500, channels)[0])
    return flow


def shaken_flow(channels: int = CHANNELS, clamp: float | None = None, weight_std: float = 0.2) -> StyleFlow:
    """An initialised flow with all weights moved off their special starting values."""
    flow, generator = fresh_flow(channels, clamp), seeded(1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(weight_std * torch.randn(parameter.shape, generator=generator))
    return flow


def train(flow: StyleFlow, x: Tensor, steps: int, lr: float = 1e-2, batch: int = 512) -> None:
    optimizer = torch.optim.Adam(flow.parameters(), lr=lr)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    generator = seeded(2)
    for _ in range(steps):
        loss = -flow.log_prob(x[torch.randint(len(x), (batch,), generator=generator)]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
        optimizer.step()
        scheduler.step()


@pytest.fixture(scope="module", params=[None, 25.0], ids=["bounded", "clamped"])
def trained(request: pytest.FixtureRequest) -> tuple[StyleFlow, MultivariateNormal]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, gaussian = correlated(8192, channels=8)
    flow = StyleFlow(8, clamp=request.param)
    flow.initialize(x)
    train(flow, x, steps=400)
    torch.set_num_threads(threads)
    return flow, gaussian


@LIMITS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("channels", [2, 5, 32])
def test_noise_and_data_map_to_each_other(
    clamp: float | None, dtype: torch.dtype, tolerance: float, channels: int
) -> None:
    # Random weights add up over the inputs, so wider flows get smaller ones; trained weights do the same.
    flow = shaken_flow(channels, clamp, weight_std=0.4 / channels**0.5).to(dtype)
    x = correlated(50, channels)[0].to(dtype)
    noise, log_det = flow.transform(x)
    back, log_det_back = flow.transform.inverse(noise)
    assert (back - x).abs().max() < tolerance
    assert (log_det + log_det_back).abs().max() < tolerance


@LIMITS
def test_log_det_matches_autograd(clamp: float | None) -> None:
    flow = shaken_flow(clamp=clamp).double()
    for row in correlated(4)[0].double():
        jacobian = torch.autograd.functional.jacobian(lambda x: flow.transform(x[None])[0][0], row)
        log_det = flow.transform(row[None])[1].item()
        assert torch.linalg.slogdet(jacobian).logabsdet.item() == pytest.approx(log_det, abs=1e-9)


@LIMITS
def test_density_integrates_to_one(clamp: float | None) -> None:
    flow = StyleFlow(2, clamp=clamp)
    flow.initialize(torch.randn(500, 2, generator=seeded()))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=seeded(1)))
    axis = torch.linspace(-12, 12, 601)
    with torch.no_grad():
        density = flow.log_prob(torch.cartesian_prod(axis, axis)).exp()
    assert density.sum().item() * (axis[1] - axis[0]).item() ** 2 == pytest.approx(1, abs=0.01)


@LIMITS
def test_gradient_reaches_every_parameter(clamp: float | None) -> None:
    flow = shaken_flow(clamp=clamp)
    flow.log_prob(correlated(50)[0]).mean().backward()
    without = [name for name, p in flow.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_every_parameter_moves_from_its_start() -> None:
    flow = fresh_flow()
    before = {name: parameter.clone() for name, parameter in flow.named_parameters()}
    train(flow, correlated(200)[0], steps=3)
    assert [name for name, parameter in flow.named_parameters() if torch.equal(parameter, before[name])] == []


def test_nll_of_a_correlated_gaussian_reaches_its_entropy(trained: tuple[StyleFlow, MultivariateNormal]) -> None:
    flow, gaussian = trained
    covariance_factor = torch.linalg.cholesky(gaussian.covariance_matrix)
    held_out = gaussian.loc + torch.randn(20000, 8, generator=seeded(99)) @ covariance_factor.T
    with torch.no_grad():
        gap = (-flow.log_prob(held_out).mean() - gaussian.entropy()) / 8
    assert -0.01 < gap.item() < 0.05


def test_samples_have_the_moments_of_the_data(trained: tuple[StyleFlow, MultivariateNormal]) -> None:
    flow, gaussian = trained
    x = flow.sample(20000, generator=seeded())
    std = gaussian.variance.sqrt()
    torch.testing.assert_close(x.mean(dim=0) / std, gaussian.loc / std, atol=0.1, rtol=0)
    assert ((x.std(dim=0) / std).log().abs() < 0.1).all()
    expected = gaussian.covariance_matrix / std[:, None] / std
    assert (torch.corrcoef(x.T) - expected).abs().max() < 0.1


def test_temperature_is_the_factor_of_spread_in_a_fresh_flow() -> None:
    flow = fresh_flow()
    plain = flow.sample(100, generator=seeded(), clip_to_envelope=False)
    for temperature in (0.5, 1.5, 3.5):
        wide = flow.sample(100, generator=seeded(), temperature=temperature, clip_to_envelope=False)
        torch.testing.assert_close(wide.std(dim=0) / plain.std(dim=0), torch.full((CHANNELS,), temperature))


def test_temperature_widens_a_trained_flow(trained: tuple[StyleFlow, MultivariateNormal]) -> None:
    flow, _ = trained
    spreads = [flow.sample(2000, generator=seeded(), temperature=t).std(dim=0).mean() for t in (0.5, 1.0, 2.0, 3.5)]
    assert spreads == sorted(spreads)
    assert spreads[3] > 1.5 * spreads[1]


def test_temperature_zero_gives_the_centre() -> None:
    x = shaken_flow().sample(5, temperature=0.0, clip_to_envelope=False)
    assert torch.equal(x, x[:1].expand(5, -1))


@LIMITS
@pytest.mark.parametrize("temperature", [1.0, 3.5])
def test_samples_stay_in_the_widened_envelope(clamp: float | None, temperature: float) -> None:
    flow, (x, _) = shaken_flow(clamp=clamp, weight_std=1.0), correlated(500)
    samples = flow.sample(500, temperature=temperature, generator=seeded())
    margin = temperature * x.std(dim=0)
    assert (samples >= x.amin(dim=0) - margin - 1e-4).all()
    assert (samples <= x.amax(dim=0) + margin + 1e-4).all()
    # This wild flow leaves the envelope, so the limits themselves are reached.
    assert torch.isclose(samples.amax(dim=0), x.amax(dim=0) + margin).any()
    assert torch.isclose(samples.amin(dim=0), x.amin(dim=0) - margin).any()


def test_bounded_scales_stay_sane_where_clamped_ones_explode() -> None:
    largest = {}
    for clamp in (None, 25.0):
        flow = fresh_flow(clamp=clamp)
        with torch.no_grad():
            for module in flow.modules():
                if isinstance(module, MaskedAffineCoupling):
                    module.transform_net.scale[-1].bias.fill_(20.0)
        samples = flow.sample(200, temperature=3.5, generator=seeded(), clip_to_envelope=False)
        largest[clamp] = samples.abs().max().item()
    assert largest[None] < 1e4
    assert largest[25.0] > 1e12


def test_constant_channel_is_scaled_once_not_in_every_act_norm() -> None:
    x = correlated(100)[0]
    x[:, 2] = -1.5
    flow = StyleFlow(CHANNELS, act_norm_floor=1e-3)
    flow.initialize(x)
    x[:, 2] += 1e-3
    torch.testing.assert_close(flow.transform(x)[0][:, 2], torch.ones(100), atol=1e-2, rtol=0)


@LIMITS
@pytest.mark.parametrize("case", ["one constant channel", "all constant", "batch of one"])
def test_data_without_spread_stay_finite(clamp: float | None, case: str) -> None:
    x = correlated(1 if case == "batch of one" else 100)[0]
    if case == "all constant":
        x[:] = 3.0
    x[:, 2] = -1.5
    flow = StyleFlow(CHANNELS, clamp=clamp)
    flow.initialize(x)
    for _ in range(2):
        assert torch.isfinite(flow.log_prob(x)).all()
        for temperature in (1.0, 3.5):
            assert torch.isfinite(flow.sample(50, temperature=temperature, generator=seeded())).all()
        train(flow, x, steps=100, lr=1e-3, batch=20)


def test_same_seed_gives_same_samples_and_leaves_the_global_state() -> None:
    flow, state = shaken_flow(), torch.get_rng_state()
    first = flow.sample(10, generator=seeded(5))
    assert torch.equal(first, flow.sample(10, generator=seeded(5)))
    assert not torch.equal(first, flow.sample(10, generator=seeded(6)))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("training", [True, False])
def test_sampling_and_density_are_the_same_in_both_modes(training: bool) -> None:
    flow, x = shaken_flow(), correlated(10)[0]
    expected, state = flow.log_prob(x), {name: value.clone() for name, value in flow.state_dict().items()}
    flow.train(training)
    assert torch.equal(flow.log_prob(x), expected)
    samples = flow.sample(4)
    assert not samples.requires_grad
    assert all(torch.equal(value, state[name]) for name, value in flow.state_dict().items())


def test_autocast_does_not_coarsen_the_flow() -> None:
    flow, x = shaken_flow(), correlated(10)[0]
    expected, samples = flow.log_prob(x), flow.sample(10, generator=seeded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(flow.log_prob(x), expected)
        assert torch.equal(flow.sample(10, generator=seeded()), samples)


def test_parities_alternate_from_even_in_the_generative_direction() -> None:
    layers = next(iter(StyleFlow(CHANNELS).transform.children()))
    generative = list(layers)[::-1]
    assert [type(layer) for layer in generative] == [MaskedAffineCoupling, StyleActNorm] * 4
    kept = [layer.identity_features.tolist() for layer in generative[::2]]
    assert kept == [[0, 2, 4], [1, 3, 5]] * 2


def test_initialize_standardises_the_whole_matrix_and_records_its_range() -> None:
    flow, (x, _) = StyleFlow(CHANNELS), correlated(500)
    assert not flow.is_initialized
    flow.initialize(x)
    noise, _ = flow.transform(x)
    assert flow.is_initialized
    torch.testing.assert_close(noise.std(dim=0), torch.ones(CHANNELS), atol=1e-4, rtol=0)
    assert torch.equal(flow.channel_min, x.amin(dim=0))
    assert torch.equal(flow.channel_max, x.amax(dim=0))
    torch.testing.assert_close(flow.channel_std, x.std(dim=0))


def test_no_float64_in_a_float32_flow_even_with_float64_data() -> None:
    flow = StyleFlow(CHANNELS)
    flow.initialize(correlated(50)[0].double())
    assert not [name for name, value in flow.state_dict().items() if value.dtype == torch.float64]
    assert flow.log_prob(correlated(5)[0].double()).dtype == torch.float32


def test_double_keeps_state_and_density() -> None:
    flow, x = shaken_flow(), correlated(20)[0]
    expected = flow.log_prob(x)
    flow.double()
    assert flow.is_initialized
    assert flow.channel_std.dtype == torch.float64
    torch.testing.assert_close(flow.log_prob(x.double()).float(), expected, atol=1e-3, rtol=1e-4)
    assert flow.sample(3).dtype == torch.float64


def test_state_dict_carries_everything() -> None:
    flow, other = shaken_flow(), StyleFlow(CHANNELS)
    other.load_state_dict(flow.state_dict())
    assert torch.equal(other.sample(5, generator=seeded()), flow.sample(5, generator=seeded()))


def test_use_before_initialize_is_refused() -> None:
    flow = StyleFlow(CHANNELS)
    with pytest.raises(RuntimeError, match=r"not initialised\. Call `initialize`"):
        flow.sample(1)
    with pytest.raises(RuntimeError, match="not initialised"):
        flow.log_prob(correlated(5)[0])
    assert not flow.is_initialized


def test_second_initialize_is_refused() -> None:
    with pytest.raises(RuntimeError, match="initialised already"):
        fresh_flow().initialize(correlated(5)[0])


def test_nan_is_refused_at_the_start_and_passed_on_later() -> None:
    x = correlated(5)[0]
    x[0, 1] = float("nan")
    flow = StyleFlow(CHANNELS)
    with pytest.raises(ValueError, match=r"nan or inf in channels \[1\]"):
        flow.initialize(x)
    assert not flow.is_initialized
    log_prob = fresh_flow().log_prob(x)
    assert torch.isnan(log_prob).tolist() == [True, False, False, False, False]


def test_flow_of_one_channel_is_a_gaussian_of_its_data() -> None:
    x = 0.3 + 0.05 * torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))
    flow = StyleFlow(1)
    flow.initialize(x)
    expected = torch.distributions.Normal(x.mean(), x.std()).log_prob(x[:, 0])
    torch.testing.assert_close(flow.log_prob(x), expected, atol=1e-3, rtol=1e-3)
    drawn = flow.sample(4000, temperature=2.0, generator=torch.Generator().manual_seed(1))
    assert drawn.std().item() == pytest.approx(0.1, rel=0.08)
    assert drawn.mean().item() == pytest.approx(0.3, abs=0.01)


def test_flow_without_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"channels is 0, allowed are integers from 1 on"):
        StyleFlow(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n is 0"),
        ({"n": 2, "temperature": -1.0}, "temperature is -1.0"),
        ({"n": 2, "temperature": float("nan")}, "temperature is nan"),
    ],
)
def test_bad_sampling_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fresh_flow().sample(**options)


def test_bad_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="num_couplings is 0"):
        StyleFlow(4, num_couplings=0)
    with pytest.raises(ValueError, match=r"shape \(3, 4\), this flow expects \(N, 6\)"):
        fresh_flow().log_prob(torch.zeros(3, 4))


def test_repr_shows_size_and_state() -> None:
    assert "channels=6, num_couplings=4, initialized=False" in repr(StyleFlow(6))
    assert "initialized=True" in repr(fresh_flow())
