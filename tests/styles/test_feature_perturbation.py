"""What all perturbations of encoder features have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.styles import DSU, EFDMix, FeaturePerturbation, MixStyle, TriD
from mixstyleflow_monai.styles.feature_perturbation import encoder_layer

METHODS: list[Callable[..., FeaturePerturbation[Any]]] = [MixStyle, DSU, EFDMix, TriD]
every = pytest.mark.parametrize("method", METHODS)


@every
def test_features_stay_in_eval_mode_and_at_probability_zero(
    method: Callable[..., FeaturePerturbation[Any]], features: Tensor
) -> None:
    assert method(probability=1.0).eval()(features) is features
    assert method(probability=0.0)(features) is features
    assert not torch.equal(method(probability=1.0)(features), features)


@every
@pytest.mark.usefixtures("untouched_randomness")
def test_same_seed_perturbs_alike(method: Callable[..., FeaturePerturbation[Any]], features: Tensor) -> None:
    first, second, other = method(seed=3), method(seed=3), method(seed=4)
    outputs = [first(features) for _ in range(6)]
    assert all(torch.equal(output, second(features)) for output in outputs)
    assert not all(torch.equal(output, other(features)) for output in outputs)
    first.reseed(3)
    assert all(torch.equal(first(features), output) for output in outputs)


@every
def test_drawn_perturbation_can_be_replayed(method: Callable[..., FeaturePerturbation[Any]], features: Tensor) -> None:
    perturbation = method(probability=1.0, seed=5)
    output = perturbation(features)
    perturbation.reseed(5)
    drawn = perturbation.draw(4, 3)
    assert torch.equal(perturbation.perturb(features, drawn), output)
    assert torch.equal(perturbation.perturb(features, drawn), output)


@every
def test_batches_are_perturbed_as_often_as_the_probability_says(
    method: Callable[..., FeaturePerturbation[Any]],
) -> None:
    perturbation = method(probability=0.3)
    drawn = sum(perturbation.draw(2, 1) is not None for _ in range(1000))
    assert drawn == pytest.approx(300, abs=58)  # four standard deviations
    assert perturbation.draw(2, 1, probability=0.0) is None
    assert perturbation.draw(2, 1, probability=1.0) is not None


@every
@pytest.mark.parametrize("channels", [1, 3])
def test_batch_of_one_stays_finite(method: Callable[..., FeaturePerturbation[Any]], channels: int) -> None:
    x = torch.randn(1, channels, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    output = method(probability=1.0)(x)
    output.square().sum().backward()
    assert bool(output.isfinite().all())
    assert bool(x.grad.isfinite().all())
    assert torch.equal(output, x) == (method is not TriD)


@every
def test_single_pixels_have_no_style(method: Callable[..., FeaturePerturbation[Any]]) -> None:
    x = torch.randn(4, 3, 1, 1)
    assert method(probability=1.0)(x) is x


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_with_constant_channels(
    method: Callable[..., FeaturePerturbation[Any]], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.zeros(4, 1, 8, 8), torch.rand(4, 1, 8, 8, generator=generator)], dim=1).to(dtype)
    x.requires_grad_()
    perturbation = method(probability=1.0)
    for _ in range(5):
        output = perturbation(x)
        assert output.dtype == dtype
        assert bool(output.isfinite().all())
        (gradient,) = torch.autograd.grad(output.float().sum(), x)
        assert bool(gradient.isfinite().all())


@every
def test_memory_format_does_not_matter(method: Callable[..., FeaturePerturbation[Any]], features: Tensor) -> None:
    perturbation = method(probability=1.0)
    drawn = perturbation.draw(4, 3)
    last = features.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(perturbation.perturb(last, drawn), perturbation.perturb(features, drawn))


@every
def test_only_the_chosen_layers_are_perturbed_and_only_inside_the_context(
    method: Callable[..., FeaturePerturbation[Any]],
    make_network: Callable[..., DualDecoderNet],
    make_images: Callable[..., Tensor],
) -> None:
    network, images = make_network().eval(), make_images()
    seen: dict[str, dict[int, Tensor]] = {"plain": {}, "perturbed": {}}

    def watch(name: str) -> None:
        handles = [
            encoder_layer(network, layer).register_forward_hook(
                lambda module, inputs, output, layer=layer: seen[name].update({layer: output.detach()})
            )
            for layer in range(1, 7)
        ]
        network.encode(images)
        for handle in handles:
            handle.remove()

    watch("plain")
    with method(layers=[3, 5], probability=1.0).attached(network):
        watch("perturbed")
    changed = [layer for layer in range(1, 7) if not torch.equal(seen["plain"][layer], seen["perturbed"][layer])]
    assert changed == [3, 4, 5, 6]
    watch("perturbed")
    assert all(torch.equal(seen["plain"][layer], seen["perturbed"][layer]) for layer in range(1, 7))


def test_hooks_are_removed_after_an_error(make_network: Callable[..., DualDecoderNet]) -> None:
    network = make_network()
    with pytest.raises(ValueError, match="not a multiple of 16"), MixStyle().attached(network):
        network.encode(torch.zeros(1, 1, 20, 20))
    assert not any(encoder_layer(network, layer)._forward_hooks for layer in range(1, 7))


def test_layers_are_the_encoder_s_from_full_to_latent_resolution(
    make_network: Callable[..., DualDecoderNet], make_images: Callable[..., Tensor]
) -> None:
    network = make_network()
    shapes: list[tuple[int, ...]] = []
    handles = [
        encoder_layer(network, layer).register_forward_hook(lambda m, i, output: shapes.append(tuple(output.shape[1:])))
        for layer in range(1, 7)
    ]
    network.encode(make_images())
    for handle in handles:
        handle.remove()
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8), (128, 4, 4), (128, 2, 2), (128, 2, 2)]


@every
def test_loss_of_a_perturbed_pass_reaches_the_first_layer(
    method: Callable[..., FeaturePerturbation[Any]],
    make_network: Callable[..., DualDecoderNet],
    make_images: Callable[..., Tensor],
) -> None:
    network = make_network()
    with method(probability=1.0).attached(network):
        network(make_images()).square().mean().backward()
    gradient = next(network.stem.parameters()).grad
    assert gradient is not None
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().max()) > 0


@every
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": [0]}, r"layers=\[0\]: expected some of the encoder's layers \[1, 2, 3, 4, 5, 6\]"),
        ({"layers": []}, r"layers=\[\]"),
        ({"layers": [2, 2]}, r"layers=\[2, 2\]: .*each once"),
        ({"probability": 1.5}, r"probability=1\.5"),
    ],
)
def test_wrong_settings_are_told(
    method: Callable[..., FeaturePerturbation[Any]], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        method(**settings)


def test_unknown_layer_is_told(make_network: Callable[..., DualDecoderNet]) -> None:
    with pytest.raises(ValueError, match=r"layer 7: the encoder has layers \[1, 2, 3, 4, 5, 6\]"):
        encoder_layer(make_network(), 7)
