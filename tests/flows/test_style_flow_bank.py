from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.flows import StyleFlowBank

CHANNELS = {2: 6, 3: 4}
TEMPERATURES = {2: 3.5, 3: 1.5}
SPREADS = pytest.mark.parametrize("spread", ["std", "var", "log_std"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def statistics(n: int = 100, seed: int = 0) -> dict[int, tuple[Tensor, Tensor]]:
    generator = seeded(seed)
    return {
        level: (torch.randn(n, c, generator=generator), 0.5 + torch.rand(n, c, generator=generator))
        for level, c in CHANNELS.items()
    }


def fresh_bank(**options: Any) -> StyleFlowBank:
    bank = StyleFlowBank(CHANNELS, TEMPERATURES, **options)
    bank.initialize(statistics())
    return bank


def trained_bank(**options: Any) -> StyleFlowBank:
    torch.manual_seed(0)
    bank = fresh_bank(**options)
    optimizer = torch.optim.Adam(bank.parameters(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        torch.stack(list(bank.negative_log_likelihood(statistics()).values())).sum().backward()
        optimizer.step()
    return bank


def assert_same_bank(bank: StyleFlowBank, other: StyleFlowBank) -> None:
    for level, (mean, std) in statistics(seed=1).items():
        for a, b in zip(bank.log_prob(level, mean, std), other.log_prob(level, mean, std), strict=True):
            assert torch.equal(a, b)
        for a, b in zip(
            bank.sample(level, 7, generator=seeded()), other.sample(level, 7, generator=seeded()), strict=True
        ):
            assert torch.equal(a, b)


def test_defaults_are_the_three_levels_of_the_paper() -> None:
    bank = StyleFlowBank()
    assert bank.levels == (2, 3, 4)
    assert bank.channels == {2: 32, 3: 16, 4: 16}
    assert bank.temperatures == {2: 3.5, 3: 2.5, 4: 1.5}
    assert not bank.is_initialized


def test_keys_may_be_strings_as_in_json() -> None:
    bank = StyleFlowBank({"3": 4, "2": 6}, {"2": 3.5, "3": 1.5})
    assert bank.levels == (2, 3)
    assert bank.config == StyleFlowBank(CHANNELS, TEMPERATURES).config
    bank.initialize({str(level): pair for level, pair in statistics().items()})  # type: ignore[misc]
    assert bank.sample("2", 3)[0].shape == (3, 6)


@SPREADS
def test_samples_are_means_and_stds_whatever_is_modelled(spread: Any) -> None:
    bank = fresh_bank(spread=spread)
    for level, (mean, std) in statistics().items():
        means, stds = bank.sample(level, 2000, temperature=1.0, generator=seeded())
        assert means.shape == stds.shape == (2000, CHANNELS[level])
        torch.testing.assert_close(means.mean(dim=0), mean.mean(dim=0), atol=0.15, rtol=0)
        torch.testing.assert_close(stds.mean(dim=0), std.mean(dim=0), atol=0.15, rtol=0)


@SPREADS
def test_spread_conversion_is_undone(spread: Any) -> None:
    bank, std = StyleFlowBank(spread=spread), torch.tensor([0.0, 1e-7, 0.01, 3.0])
    torch.testing.assert_close(bank.to_std(bank.to_spread(std)), std.clamp_min(1e-6))


@SPREADS
def test_log_prob_is_the_density_of_the_modelled_spread(spread: Any) -> None:
    bank = trained_bank(spread=spread)
    mean, std = statistics()[2]
    of_mean, of_spread = bank.log_prob(2, mean, std)
    modelled = {"std": std, "var": std**2, "log_std": std.log()}[spread]
    assert torch.equal(of_mean, bank.flow(2, "mean").log_prob(mean))
    torch.testing.assert_close(of_spread, bank.flow(2, "spread").log_prob(modelled))


@SPREADS
@pytest.mark.parametrize("clamp", [None, 25.0], ids=["bounded", "clamped"])
def test_stds_keep_the_floor_and_everything_is_finite(spread: Any, clamp: float | None) -> None:
    bank = StyleFlowBank(CHANNELS, TEMPERATURES, spread=spread, clamp=clamp, std_floor=1e-3)
    bank.initialize({level: (mean, 0.01 * std * (std > 0.8)) for level, (mean, std) in statistics().items()})
    for level in bank.levels:
        means, stds = bank.sample(level, 500, generator=seeded())
        assert torch.isfinite(means).all()
        assert torch.isfinite(stds).all()
        assert stds.min() >= 0.999e-3


@pytest.mark.parametrize("n", [1, 30])
def test_constant_statistics_and_a_single_image_stay_finite(n: int) -> None:
    bank = StyleFlowBank(CHANNELS, TEMPERATURES)
    constant = {level: (torch.full((n, c), -2.0), torch.zeros(n, c)) for level, c in CHANNELS.items()}
    bank.initialize(constant)
    assert all(torch.isfinite(loss) for loss in bank.negative_log_likelihood(constant).values())
    for level in bank.levels:
        means, stds = bank.sample(level, 20)
        torch.testing.assert_close(means, torch.full_like(means, -2.0))
        assert stds.min() >= 0.99e-6


def test_no_temperature_is_the_level_s_own() -> None:
    bank = fresh_bank(clip_to_envelope=False)
    for level, temperature in TEMPERATURES.items():
        own = bank.sample(level, 50, generator=seeded())[0]
        assert torch.equal(own, bank.sample(level, 50, temperature=temperature, generator=seeded())[0])
        in_domain = bank.sample(level, 50, temperature=1.0, generator=seeded())[0]
        torch.testing.assert_close(own.std(dim=0), temperature * in_domain.std(dim=0))


def test_envelope_can_be_switched_off() -> None:
    wide, clipped = fresh_bank(clip_to_envelope=False), fresh_bank()
    mean, _ = statistics()[2]
    limit = (mean.amax(dim=0) + 3.5 * mean.std(dim=0)).max() + 1e-4
    assert wide.sample(2, 2000, generator=seeded())[0].max() > limit
    assert clipped.sample(2, 2000, generator=seeded())[0].max() <= limit


def test_means_are_clamped_only_on_request() -> None:
    assert fresh_bank().sample(2, 100, generator=seeded())[0].min() < 0
    assert fresh_bank(clamp_means=True).sample(2, 100, generator=seeded())[0].min() == pytest.approx(1e-8)


def test_same_seed_gives_same_styles_and_leaves_the_global_state() -> None:
    bank, state = trained_bank(), torch.get_rng_state()
    first, second = (bank.sample(3, 5, generator=seeded(4)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(state, torch.get_rng_state())


def test_levels_and_statistics_share_no_parameter() -> None:
    bank = fresh_bank()
    bank.negative_log_likelihood({2: statistics()[2]})[2, "mean"].backward()
    reached = {name for name, parameter in bank.named_parameters() if parameter.grad is not None}
    assert reached == {name for name, _ in bank.named_parameters() if name.startswith("mean_flows.2.")}


def test_nll_names_every_flow_and_forward_is_the_same() -> None:
    bank = trained_bank()
    losses, called = bank.negative_log_likelihood(statistics()), bank(statistics())
    assert set(losses) == {(2, "mean"), (2, "spread"), (3, "mean"), (3, "spread")}
    assert all(loss.ndim == 0 and torch.equal(loss, called[key]) for key, loss in losses.items())
    mean, std = statistics()[3]
    assert torch.equal(losses[3, "spread"], -bank.log_prob(3, mean, std)[1].mean())


@pytest.mark.parametrize(
    "options",
    [{}, {"spread": "var", "clamp": 25.0, "clamp_means": True, "clip_to_envelope": False, "std_floor": 1e-4}],
    ids=["default", "official"],
)
def test_saved_bank_is_identical_after_load(tmp_path: Path, options: dict[str, Any]) -> None:
    bank = trained_bank(**options)
    bank.save(tmp_path / "style_flows.pt")
    loaded = StyleFlowBank.load(tmp_path / "style_flows.pt")
    assert loaded.config == bank.config
    assert not loaded.training
    assert_same_bank(bank, loaded)
    assert [path.name for path in tmp_path.iterdir()] == ["style_flows.pt"]


def test_saved_file_holds_only_tensors_and_plain_values(tmp_path: Path) -> None:
    trained_bank().save(tmp_path / "style_flows.pt")
    content = torch.load(tmp_path / "style_flows.pt", weights_only=True)
    assert set(content) == {"format", "config", "state_dict"}
    assert content["format"] == 1


def test_double_bank_keeps_its_dtype_through_a_file(tmp_path: Path) -> None:
    bank = trained_bank().double()
    bank.save(tmp_path / "style_flows.pt")
    loaded = StyleFlowBank.load(tmp_path / "style_flows.pt")
    assert loaded.sample(2, 3)[0].dtype == torch.float64
    assert_same_bank(bank, loaded)


def test_config_survives_json_and_rebuilds_the_bank() -> None:
    bank = StyleFlowBank(CHANNELS, TEMPERATURES, spread="log_std", clamp=25.0, num_couplings=2, hidden_factor=3)
    config = json.loads(json.dumps(bank.config))
    rebuilt = StyleFlowBank(**config)
    assert rebuilt.config == bank.config == config
    assert {n: p.shape for n, p in rebuilt.named_parameters()} == {n: p.shape for n, p in bank.named_parameters()}


def test_no_float64_in_a_float32_bank() -> None:
    assert not [name for name, value in fresh_bank().state_dict().items() if value.dtype == torch.float64]


def test_missing_file_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such file.*style flow phase"):
        StyleFlowBank.load(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": torch.zeros(2)}, r"not a style flow bank, it holds \['weight'\]"),
        ([1, 2], "not a style flow bank, it holds list"),
        ({"format": 7, "config": {}, "state_dict": {}}, "format 7, this version reads 1"),
        ({"format": 1, "config": {}}, r"\['state_dict'\] missing"),
        ({"format": 1, "config": {}, "state_dict": {}}, "do not make a style flow bank"),
        ({"format": 1, "config": {"depth": 3}, "state_dict": {}}, "do not make a style flow bank.*depth"),
        (
            {"format": 1, "config": {}, "state_dict": {"a": torch.zeros(1)}},
            "do not make a style flow bank.*Missing key",
        ),
    ],
    ids=["bare weights", "list", "other format", "missing key", "no weights", "unknown option", "other weights"],
)
def test_foreign_files_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(ValueError, match=rf"(?s)file\.pt: .*{message}"):
        StyleFlowBank.load(tmp_path / "file.pt")


@pytest.mark.parametrize("content", [b"", b"not torch at all"])
def test_files_that_torch_cannot_read_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.pt: not a style flow bank, torch cannot read it"):
        StyleFlowBank.load(tmp_path / "file.pt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": {2: 0}}, "channels is 0"),
        ({"channels": {}}, "expected at least one"),
        ({"channels": {"two": 4}}, "channels: level 'two'"),
        ({"channels": {2: 4, "2": 4}}, "each named once"),
        ({"channels": {1: 64}}, r"temperatures has levels \[2, 3, 4\] but not \[1\]"),
        ({"temperatures": {2: 3.5, 3: -1, 4: 1}}, "level 3 has -1,"),
        ({"temperatures": {2: 3.5, 3: "hot", 4: 1}}, "level 3 has 'hot'"),
        ({"std_floor": "x"}, "std_floor is 'x'"),
        ({"spread": "sd"}, "spread is 'sd', allowed are 'std', 'var', 'log_std'"),
        ({"std_floor": 0.0}, "std_floor is 0.0"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StyleFlowBank(**options)


def test_bad_statistics_leave_the_bank_untouched() -> None:
    bank = StyleFlowBank(CHANNELS, TEMPERATURES)
    good = statistics()
    for bad, message in [
        ({2: good[2]}, r"levels \[2\], this bank needs exactly \[2, 3\]"),
        ({**good, 3: (good[3][0], good[3][1] * float("nan"))}, "standard deviations of level 3: nan or inf"),
        ({**good, 3: good[2]}, r"means of level 3: shape \(100, 6\), expected \(N, 4\)"),
        ({**good, 3: (good[3][0], -good[3][1])}, "std >= 0"),
        ({**good, 3: (good[3][0][:5], good[3][1])}, "5 means and 100 standard deviations"),
    ]:
        with pytest.raises(ValueError, match=message):
            bank.initialize(bad)
    bank.initialize(good)
    assert bank.is_initialized


def test_unknown_level_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"Level 5 has no style flows, this bank has levels \[2, 3\]"):
        fresh_bank().sample(5, 1)
