"""MixStyleFlow's stylizer: what it draws, and what it makes of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.networks import DualDecoderNet, LevelHook, untracked_batch_norm
from mixstyleflow_monai.styles import PRESETS, DrawnStyle, FlowStyleMix, LevelStyle, mix_statistics

CHANNELS = {2: 32, 3: 16, 4: 16}
TINY = {2: 3, 3: 2, 4: 2}
MakeBank = Callable[..., StyleFlowBank]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def bank(make_bank: MakeBank) -> StyleFlowBank:
    return make_bank(TINY)


@pytest.fixture(scope="module")
def full_bank(make_bank: MakeBank) -> StyleFlowBank:
    return make_bank(CHANNELS)


@pytest.fixture(scope="module")
def network() -> DualDecoderNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = DualDecoderNet(in_channels=3).train()
        with torch.no_grad():
            net.reconstruct(images(seed=5))
    return net


def images(n: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, 32, 48, generator=seeded(seed))


def encode(network: DualDecoderNet, x: Tensor) -> Tensor:
    """Return the latent without leaving a trace in the network."""
    return copy.deepcopy(network).eval().encode(x)


class ConstantDecoder(DualDecoderNet):
    """Network whose image decoder always returns the same grey, whatever the style."""

    def decode_image(self, latent: Tensor, hook: LevelHook | None = None) -> Tensor:
        return torch.full((latent.shape[0], self.in_channels, 16 * latent.shape[2], 16 * latent.shape[3]), 0.5)


def same(style: DrawnStyle, other: DrawnStyle) -> bool:
    a, b = style.state(), other.state()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# --- drawing


def test_each_image_gets_a_style_and_a_weight_of_its_own(bank: StyleFlowBank) -> None:
    style = FlowStyleMix(bank, probability=1.0).draw(6)
    assert list(style.levels) == [2, 3, 4]
    for level, drawn in style.levels.items():
        assert drawn.mean.shape == drawn.std.shape == (6, TINY[level])
        assert drawn.weight.shape == (6, 1)
        assert len(drawn.mean.unique(dim=0)) == len(drawn.std.unique(dim=0)) == 6
        assert len(drawn.weight.unique()) > 2  # at alpha = 0.1 some are exactly 1
        assert bool((drawn.std > 0).all())


def test_one_style_a_batch_is_an_option_with_a_weight_an_image(bank: StyleFlowBank) -> None:
    style = FlowStyleMix(bank, probability=1.0, style_per="batch").draw(6)
    for drawn in style.levels.values():
        assert drawn.mean.shape[0] == 6
        assert len(drawn.mean.unique(dim=0)) == len(drawn.std.unique(dim=0)) == 1
        assert len(drawn.weight.unique()) > 2


@pytest.mark.parametrize("alpha", [0.1, 1.0, 4.0])
def test_weights_follow_the_beta_law(alpha: float, bank: StyleFlowBank) -> None:
    weight = FlowStyleMix(bank, probability=1.0, alpha=alpha).draw(20_000).levels[4].weight.double()
    assert float(weight.min()) >= 0
    assert float(weight.max()) <= 1
    assert bool(weight.isfinite().all())
    assert float(weight.mean()) == pytest.approx(0.5, abs=0.015)
    assert float(weight.var()) == pytest.approx(0.25 / (2 * alpha + 1), rel=0.04)


def test_uniform_weights_are_an_option(bank: StyleFlowBank) -> None:
    weight = FlowStyleMix(bank, probability=1.0, weight_law="uniform").draw(20_000).levels[4].weight.double()
    assert float(weight.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(weight.var()) == pytest.approx(1 / 12, rel=0.03)


def test_weights_by_channel_are_zero_or_one_with_the_drawn_chance(bank: StyleFlowBank) -> None:
    weight = FlowStyleMix(bank, probability=1.0, weight_per="channel").draw(20_000).levels[2].weight
    assert weight.shape == (20_000, 3)
    assert set(weight.unique().tolist()) == {0.0, 1.0}
    assert float(weight.mean()) == pytest.approx(0.5, abs=0.015)
    # Channels of one image share the chance lambda: their covariance is the variance of the Beta law.
    covariance = torch.cov(weight.T)[0, 1]
    assert float(covariance) == pytest.approx(0.25 / 1.2, rel=0.05)


def test_levels_are_active_half_of_the_time_and_independently(bank: StyleFlowBank) -> None:
    stylizer = FlowStyleMix(bank)
    active = torch.tensor([[level in style.levels for level in (2, 3, 4)] for style in map(stylizer.draw, [1] * 600)])
    # Four standard deviations around the expected shares.
    torch.testing.assert_close(active.double().mean(0), torch.full((3,), 0.5).double(), atol=0.082, rtol=0)
    assert float((~active).all(1).double().mean()) == pytest.approx(1 / 8, abs=0.054)
    assert float(active.all(1).double().mean()) == pytest.approx(1 / 8, abs=0.054)


@pytest.mark.parametrize(("probability", "levels"), [(0.0, []), (1.0, [2, 3, 4])])
def test_extreme_probabilities_are_certain_and_can_be_given_at_the_draw(
    probability: float, levels: list[int], bank: StyleFlowBank
) -> None:
    stylizer = FlowStyleMix(bank)
    for _ in range(20):
        assert list(stylizer.draw(1, probability=probability).levels) == levels


def test_same_seed_gives_the_same_draws_and_global_randomness_is_untouched(bank: StyleFlowBank) -> None:
    first, second, other = FlowStyleMix(bank, seed=3), FlowStyleMix(bank, seed=3), FlowStyleMix(bank, seed=4)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    draws = [first.draw(2, probability=1.0) for _ in range(3)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    assert all(same(draw, second.draw(2, probability=1.0)) for draw in draws)
    assert not same(draws[0], other.draw(2, probability=1.0))
    assert not same(draws[0], draws[1])
    first.reseed(3)
    assert same(first.draw(2, probability=1.0), draws[0])


def test_only_chosen_levels_are_drawn(bank: StyleFlowBank) -> None:
    chosen = FlowStyleMix(bank, levels=[3], probability=1.0)
    style = chosen.draw(5)
    assert list(style.levels) == [3]
    assert "levels=[3]" in repr(chosen)
    assert "levels=" not in repr(FlowStyleMix(bank, levels=bank.levels))


@pytest.mark.parametrize("levels", [[7], [], [3, 3], 3, "3"])
def test_levels_that_the_bank_has_not_are_refused(bank: StyleFlowBank, levels: object) -> None:
    with pytest.raises(ValueError, match=r"style_levels=.*expected"):
        FlowStyleMix(bank, levels=levels)  # type: ignore[arg-type]


def test_temperatures_of_a_level_can_be_changed(bank: StyleFlowBank) -> None:
    usual = FlowStyleMix(bank, probability=1.0).draw(300)
    # Strings, because JSON has no other keys.
    calm = FlowStyleMix(bank, probability=1.0, temperatures={"2": 0.01}).draw(300)
    assert bool((calm.levels[2].mean.std(0) < 0.05 * usual.levels[2].mean.std(0)).all())
    for level in (3, 4):
        assert float(calm.levels[level].mean.std(0).mean()) > 0.5 * float(usual.levels[level].mean.std(0).mean())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probability": 1.5}, r"probability=1\.5: expected a number in \[0, 1\]"),
        ({"probability": float("nan")}, "probability=nan"),
        ({"alpha": 0.0}, r"alpha=0\.0: expected a finite number above 0"),
        ({"alpha": float("inf")}, "alpha=inf"),
        ({"temperatures": {5: 1.0}}, r"temperatures=\{5: 1\.0\}.*levels among \[2, 3, 4\]"),
        ({"temperatures": 3.5}, r"temperatures=3\.5: expected a number a level"),
        (
            {"temperatures": {2: "a"}},
            r"temperatures=\{2: 'a'\}: expected positive numbers for levels among \[2, 3, 4\]",
        ),
        ({"temperatures": {2: 0.0}}, r"temperatures=\{2: 0\.0\}: expected positive numbers"),
        ({"temperatures": {2: float("nan")}}, r"temperatures=\{2: nan\}"),
        ({"style_per": "epoch"}, "style_per='epoch': expected one of"),
        ({"weight_per": "pixel"}, "weight_per='pixel'"),
        ({"weight_law": "normal"}, "weight_law='normal'"),
        ({"output": "latent"}, "output='latent'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str, bank: StyleFlowBank) -> None:
    with pytest.raises(ValueError, match=message):
        FlowStyleMix(bank, **settings)


def test_probability_out_of_range_at_the_draw_is_refused(bank: StyleFlowBank) -> None:
    with pytest.raises(ValueError, match="probability=-1: expected"):
        FlowStyleMix(bank).draw(2, probability=-1)


# --- presets: readings of the paper and of the published code that are not our default


def test_default_preset_is_the_class_s_own_default(bank: StyleFlowBank) -> None:
    assert FlowStyleMix.from_preset(bank).extra_repr() == FlowStyleMix(bank).extra_repr()
    assert "style_per='image', weight_per='image', weight_law='beta', output='detail'" in repr(FlowStyleMix(bank))


def test_paper_draws_a_style_an_image_and_official_code_one_a_batch(bank: StyleFlowBank) -> None:
    paper, official = (FlowStyleMix.from_preset(bank, name) for name in ("paper", "official"))
    assert len(paper.draw(5, probability=1.0).levels[2].mean.unique(dim=0)) == 5
    assert len(official.draw(5, probability=1.0).levels[2].mean.unique(dim=0)) == 1


def test_paper_takes_uniform_weights_and_official_code_the_beta_law(bank: StyleFlowBank) -> None:
    for name, variance in (("paper", 1 / 12), ("official", 0.25 / 1.2)):
        weight = FlowStyleMix.from_preset(bank, name).draw(20_000, probability=1.0).levels[3].weight
        assert float(weight.double().var()) == pytest.approx(variance, rel=0.04), name


def test_paper_mixes_every_level_and_official_code_half_of_them(bank: StyleFlowBank) -> None:
    paper, official = (FlowStyleMix.from_preset(bank, name) for name in ("paper", "official"))
    assert all(len(paper.draw(1).levels) == 3 for _ in range(20))
    assert 10 < sum(len(official.draw(1).levels) for _ in range(20)) < 50


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_hard_example_of_the_presets_is_the_decoded_image_from_0_to_1(
    preset: str, full_bank: StyleFlowBank, network: DualDecoderNet
) -> None:
    stylizer = FlowStyleMix.from_preset(full_bank, preset)
    x = images()
    decoded = stylizer.stylize(network, x, encode(network, x), stylizer.draw(3, probability=1.0))
    torch.testing.assert_close(decoded.amin((2, 3)), torch.zeros(3, 3))
    torch.testing.assert_close(decoded.amax((2, 3)), torch.ones(3, 3))
    # Without detail of its own the image plays no part but through its latent.
    again = stylizer.stylize(network, 0 * x, encode(network, x), style := stylizer.draw(3, probability=1.0))
    assert torch.equal(again, stylizer.stylize(network, x, encode(network, x), style))
    # Not styled at all, it is still the reconstruction.
    plain = stylizer.stylize(network, x, encode(network, x), DrawnStyle({}))
    assert not torch.allclose(plain, x, atol=0.1)


def test_official_clamp_of_means_comes_with_the_bank(make_bank: MakeBank) -> None:
    for clamp, negative in ((True, False), (False, True)):
        style = FlowStyleMix.from_preset(make_bank(TINY, clamp_means=clamp), "official", style_per="image").draw(
            50, probability=1.0
        )
        assert bool((style.levels[2].mean < 0).any()) == negative


def test_presets_can_be_changed_by_keyword_and_unknown_ones_are_refused(bank: StyleFlowBank) -> None:
    assert FlowStyleMix.from_preset(bank, "paper", probability=0.25).probability == 0.25
    assert set(PRESETS) == {"default", "paper", "official"}
    with pytest.raises(ValueError, match=r"preset='ours': expected one of \['default', 'official', 'paper'\]"):
        FlowStyleMix.from_preset(bank, "ours")


# --- applying


def test_images_come_back_as_they_are_in_eval_mode_and_at_probability_zero(
    full_bank: StyleFlowBank, network: DualDecoderNet
) -> None:
    x = images()
    latent = encode(network, x)
    assert FlowStyleMix(full_bank, probability=1.0).eval()(network, x, latent) is x
    assert FlowStyleMix(full_bank, probability=0.0)(network, x, latent) is x
    assert FlowStyleMix(full_bank).stylize(network, x, latent, DrawnStyle({})) is x


def test_stylised_images_differ_and_stay_in_range_without_gradient(
    full_bank: StyleFlowBank, network: DualDecoderNet
) -> None:
    x = images()
    latent = encode(network, x)
    assert latent.requires_grad
    hard = FlowStyleMix(full_bank, probability=1.0)(network, x, latent)
    assert hard.shape == x.shape
    assert hard.dtype == x.dtype
    assert not hard.requires_grad
    assert float(hard.min()) >= 0
    assert float(hard.max()) <= 1
    assert bool(((hard - x).abs().amax((1, 2, 3)) > 0.01).all())


def test_network_and_its_batch_norm_buffers_are_left_as_they_were(
    full_bank: StyleFlowBank, network: DualDecoderNet
) -> None:
    x = images()
    state = copy.deepcopy(network.state_dict())
    mode = [m.training for m in network.modules()]
    FlowStyleMix(full_bank, probability=1.0)(network, x, encode(network, x))
    assert [m.training for m in network.modules()] == mode
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_saved_style_makes_the_same_image_again(
    full_bank: StyleFlowBank, network: DualDecoderNet, tmp_path: Path
) -> None:
    stylizer = FlowStyleMix(full_bank)
    x = images()
    latent = encode(network, x)
    style = stylizer.draw(3, probability=1.0)
    hard = stylizer.stylize(network, x, latent, style)
    torch.save(style.state(), tmp_path / "style.pt")
    replayed = DrawnStyle.from_state(torch.load(tmp_path / "style.pt", weights_only=True))
    assert same(style, replayed)
    assert torch.equal(FlowStyleMix(full_bank, seed=9).stylize(network, x, latent, replayed), hard)
    assert DrawnStyle.from_state(DrawnStyle({}).state()) == DrawnStyle({})


def test_detail_is_the_image_plus_what_the_style_changes(full_bank: StyleFlowBank, network: DualDecoderNet) -> None:
    x = images()
    latent = encode(network, x)
    stylizer = FlowStyleMix(full_bank)
    style = stylizer.draw(3, probability=1.0)

    def hook(level: int, features: Tensor) -> Tensor:
        drawn = style.levels.get(level)
        return features if drawn is None else mix_statistics(features, drawn.mean, drawn.std, drawn.weight)

    with torch.no_grad(), untracked_batch_norm(network):
        difference = network.decode_image(latent, hook) - network.decode_image(latent)
    expected = (x + difference).clamp(0, 1)
    torch.testing.assert_close(stylizer.stylize(network, x, latent, style), expected, atol=1e-5, rtol=0)


def test_detail_keeps_the_image_where_the_decoder_is_constant(full_bank: StyleFlowBank) -> None:
    x = images()
    constant = ConstantDecoder(in_channels=3)
    detail = FlowStyleMix(full_bank, probability=1.0)(constant, x, torch.zeros(3, 128, 2, 3))
    torch.testing.assert_close(detail, x)
    decoded = FlowStyleMix(full_bank, probability=1.0, output="decoded")(constant, x, torch.zeros(3, 128, 2, 3))
    assert torch.equal(decoded, torch.zeros_like(x))


def test_only_levels_that_were_drawn_are_changed(full_bank: StyleFlowBank, network: DualDecoderNet) -> None:
    x = images()
    seen: dict[int, int] = {}

    class Spy(DualDecoderNet):
        def decode_image(self, latent: Tensor, hook: LevelHook | None = None) -> Tensor:
            if hook is not None:
                for level, (channels, size) in enumerate(zip(self.level_channels, (2, 4, 8, 16, 32), strict=True)):
                    features = torch.rand(3, channels, size, size, generator=seeded())
                    seen[level] = int(not torch.equal(hook(level, features), features))
            return super().decode_image(latent)

    spy = Spy(in_channels=3)
    style = FlowStyleMix(full_bank).draw(3, probability=1.0)
    FlowStyleMix(full_bank).stylize(spy, x, encode(network, x), DrawnStyle({3: style.levels[3]}))
    assert seen == {0: 0, 1: 0, 2: 0, 3: 1, 4: 0}


def test_batch_of_one_works(full_bank: StyleFlowBank, network: DualDecoderNet) -> None:
    x = images(1)
    hard = FlowStyleMix(full_bank, probability=1.0)(network, x, encode(network, x))
    assert bool(hard.isfinite().all())


def test_style_of_another_batch_size_is_refused(full_bank: StyleFlowBank, network: DualDecoderNet) -> None:
    stylizer = FlowStyleMix(full_bank)
    x = images()
    with pytest.raises(ValueError, match="Use a style drawn for this batch size"):
        stylizer.stylize(network, x, encode(network, x), stylizer.draw(2, probability=1.0))


def test_flows_are_frozen_and_no_part_of_the_stylizer(full_bank: StyleFlowBank) -> None:
    stylizer = FlowStyleMix(full_bank).train()
    assert list(stylizer.parameters()) == []
    assert stylizer.state_dict() == {}
    assert stylizer.bank is full_bank
    assert not full_bank.training
    assert not any(p.requires_grad for p in full_bank.parameters())


def test_state_names_level_and_statistic() -> None:
    ones = torch.ones(1, 2)
    state = DrawnStyle({3: LevelStyle(ones, 2 * ones, ones[:, :1])}).state()
    assert list(state) == ["3.mean", "3.std", "3.weight"]
