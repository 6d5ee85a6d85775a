"""Flows of means and spreads together: what independent flows cannot draw, and all that must stay the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.flows.joint import join_statistics, split_statistics
from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.styles import FlowStyleMix

CHANNELS = {2: 4, 5: 1}
TEMPERATURES = {2: 2.0, 5: 1.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlated(n: int = 1000, seed: int = 0) -> dict[int, tuple[Tensor, Tensor]]:
    """Spreads that go with the means of their channels, correlation 0.95; channels are independent."""
    generator = seeded(seed)
    result = {}
    for level, c in CHANNELS.items():
        common, own = torch.randn(2, n, c, generator=generator)
        result[level] = (3 + common, 2 + 0.3 * (0.95 * common + 0.3122 * own))
    return {level: (mean, std.clamp_min(0.1)) for level, (mean, std) in result.items()}


def fitted(*, joint: bool, steps: int = 120, **options: Any) -> StyleFlowBank:
    torch.manual_seed(0)
    bank = StyleFlowBank(CHANNELS, TEMPERATURES, joint_statistics=joint, **options)
    bank.initialize(correlated())
    optimizer = torch.optim.Adam(bank.parameters(), lr=8e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack(list(bank.negative_log_likelihood(correlated()).values())).sum().backward()
        optimizer.step()
    return bank


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Of each channel over the rows, (C,)."""
    return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(first.T, second.T, strict=True)])


@pytest.fixture(scope="module")
def joint() -> StyleFlowBank:
    return fitted(joint=True)


@pytest.fixture(scope="module")
def independent() -> StyleFlowBank:
    return fitted(joint=False)


@pytest.mark.parametrize("channels", [1, 2, 3, 16])
def test_joined_statistics_can_be_taken_apart_again(channels: int) -> None:
    mean, spread = torch.randn(2, 5, channels, generator=seeded())
    joined = join_statistics(mean, spread)
    assert joined.shape == (5, 2 * channels)
    again = split_statistics(joined)
    assert torch.equal(again[0], mean)
    assert torch.equal(again[1], spread)


@pytest.mark.parametrize("channels", [1, 4, 5])
def test_mean_and_spread_of_a_channel_are_on_different_sides_of_a_coupling(channels: int) -> None:
    numbers = torch.arange(channels)[None]
    means, spreads = join_statistics(numbers, numbers + 100)[0].view(-1, 2).unbind(1)
    both = torch.stack([means, spreads])  # first row even places, second row odd ones
    assert ((both % 100)[0] == (both % 100)[1]).all()
    assert ((both[0] >= 100) != (both[1] >= 100)).all()
    assert set(both[0].tolist()) == {k if k % 2 == 0 else k + 100 for k in range(channels)}


def test_statistics_of_different_shapes_are_not_joined() -> None:
    with pytest.raises(ValueError, match=r"means of shape \(5, 2\) and spreads of \(5, 3\)"):
        join_statistics(torch.zeros(5, 2), torch.zeros(5, 3))


@pytest.mark.parametrize("level", CHANNELS)
def test_joint_samples_keep_the_correlation_and_independent_ones_lose_it(
    level: int, joint: StyleFlowBank, independent: StyleFlowBank
) -> None:
    real = correlation(*correlated()[level])
    assert (real > 0.9).all()
    samples = [bank.sample(level, 2000, temperature=1.0, generator=seeded()) for bank in (joint, independent)]
    assert (correlation(*samples[0]) > 0.8).all()
    assert (correlation(*samples[1]).abs() < 0.1).all()
    for means, stds in samples:
        for drawn, given in zip((means, stds), correlated()[level], strict=True):
            assert ((drawn.mean(0) - given.mean(0)).abs() < 0.25 * given.std(0)).all()
            torch.testing.assert_close(drawn.std(0), given.std(0), rtol=0.2, atol=0)


def test_correlation_raises_the_likelihood_of_unseen_rows(joint: StyleFlowBank, independent: StyleFlowBank) -> None:
    """Two Gaussians of correlation 0.95 hold 1.16 nats a pair about each other."""
    unseen = correlated(seed=1)
    for level, channels in CHANNELS.items():
        with torch.no_grad():
            together = joint.log_prob(level, *unseen[level])
            apart = independent.log_prob(level, *unseen[level])
        assert (len(together), len(apart)) == (1, 2)
        gain = (together[0] - sum(apart)).mean() / channels
        assert 0.8 < float(gain) < 1.3


def test_density_of_a_joint_flow_at_its_start_is_that_of_the_two(independent: StyleFlowBank) -> None:
    """Before training both are Gaussians a channel, so the sum of the two log-densities is the joint one."""
    start = [fitted(joint=joint, steps=0) for joint in (True, False)]
    for level, pair in correlated(seed=1).items():
        together, apart = (bank.log_prob(level, *pair) for bank in start)
        torch.testing.assert_close(together[0], apart[0] + apart[1], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("spread", ["std", "var", "log_std"])
def test_samples_are_means_and_stds_whatever_is_modelled(spread: Any) -> None:
    bank = fitted(joint=True, steps=0, spread=spread)
    for level, (mean, std) in correlated().items():
        means, stds = bank.sample(level, 2000, temperature=1.0, generator=seeded())
        assert means.shape == stds.shape == (2000, CHANNELS[level])
        torch.testing.assert_close(means.mean(0), mean.mean(0), atol=0.15, rtol=0)
        torch.testing.assert_close(stds.mean(0), std.mean(0), atol=0.15, rtol=0)


def test_envelope_is_of_means_and_of_spreads_each(joint: StyleFlowBank) -> None:
    means, stds = joint.sample(2, 5000, temperature=3.0, generator=seeded())
    for drawn, given in zip((means, stds), correlated()[2], strict=True):
        margin = 3.0 * given.std(0)
        assert (drawn >= (given.amin(0) - margin) - 1e-4).all()
        assert (drawn <= (given.amax(0) + margin) + 1e-4).all()
        assert (drawn.std(0) > 1.5 * given.std(0)).all()


def test_temperature_floor_and_clamp_hold_as_with_two_flows() -> None:
    bank = fitted(joint=True, steps=0, clip_to_envelope=False, clamp_means=True, std_floor=1.9)
    own = bank.sample(2, 300, generator=seeded())
    given = bank.sample(2, 300, temperature=TEMPERATURES[2], generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(own, given, strict=True))
    means, stds = bank.sample(2, 2000, temperature=4.0, generator=seeded())
    assert float(means.min()) == pytest.approx(1e-8)
    assert float(stds.min()) == pytest.approx(1.9)


def test_saved_joint_bank_is_identical_after_load_and_holds_plain_values(joint: StyleFlowBank, tmp_path: Path) -> None:
    joint.save(tmp_path / "style_flows.pt")
    content = torch.load(tmp_path / "style_flows.pt", weights_only=True)
    assert content["config"]["joint_statistics"] is True
    assert {name.split(".")[0] for name in content["state_dict"]} == {"joint_flows"}
    loaded = StyleFlowBank.load(tmp_path / "style_flows.pt")
    assert loaded.config == joint.config
    assert loaded.is_initialized
    for drawn, again in zip(
        joint.sample(2, 5, generator=seeded()), loaded.sample(2, 5, generator=seeded()), strict=True
    ):
        assert torch.equal(drawn, again)


def test_file_without_the_option_is_of_two_flows_a_level(independent: StyleFlowBank, tmp_path: Path) -> None:
    independent.save(tmp_path / "style_flows.pt")
    content = torch.load(tmp_path / "style_flows.pt", weights_only=True)
    del content["config"]["joint_statistics"]
    torch.save(content, tmp_path / "style_flows.pt")
    loaded = StyleFlowBank.load(tmp_path / "style_flows.pt")
    assert loaded.statistic_names == ("mean", "spread")
    assert torch.equal(loaded.sample(2, 5, generator=seeded())[1], independent.sample(2, 5, generator=seeded())[1])


@pytest.mark.parametrize("joint", [True, False])
def test_flow_of_another_statistic_names_those_there_are(joint: bool) -> None:
    bank = StyleFlowBank(CHANNELS, TEMPERATURES, joint_statistics=joint)
    assert len(bank.flows()) == len(CHANNELS) * (1 if joint else 2)
    with pytest.raises(ValueError, match=rf"No flow of '{'mean' if joint else 'joint'}', this bank has flows of \['"):
        bank.flow(2, "mean" if joint else "joint")


def test_stylizer_draws_from_joint_flows() -> None:
    sizes = {2: 32, 3: 16, 4: 16, 5: 1}
    bank = StyleFlowBank(sizes, dict.fromkeys(sizes, 1.5), joint_statistics=True)
    generator = seeded()
    bank.initialize(
        {
            k: (torch.randn(30, c, generator=generator), 0.5 + torch.rand(30, c, generator=generator))
            for k, c in sizes.items()
        }
    )
    torch.manual_seed(0)
    network, images = DualDecoderNet(1), torch.rand(3, 1, 32, 32, generator=generator)
    hard = FlowStyleMix(bank, probability=1.0)(network, images, network.encode(images))
    assert hard.shape == images.shape
    assert ((hard >= 0) & (hard <= 1)).all()
    assert not torch.allclose(hard, images, atol=1e-2)
