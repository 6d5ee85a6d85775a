"""Tests of the pass on hard examples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.engines import DualDecoderTrainer, HardPass
from mixstyleflow_monai.losses import SegmentationLoss, prediction_divergence, reconstruction_loss
from mixstyleflow_monai.networks import DualDecoderNet, untracked_batch_norm
from mixstyleflow_monai.networks.batch_norm import SeparateAffine
from mixstyleflow_monai.styles import BigAug, ChainedStylizer, MaxStyle, RandConv

run = DualDecoderTrainer._pass


class ScaledStem:
    """A perturbation: the first block's output times a factor."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    @contextmanager
    def attached(self, network: DualDecoderNet) -> Iterator[None]:
        handle = network.stem.register_forward_hook(lambda module, inputs, output: output * self.factor)
        try:
            yield
        finally:
            handle.remove()


def make_batch(network: DualDecoderNet) -> dict[str, Tensor]:
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    latent, logits, _ = run(network, images)
    target = (images > 0.5).to(torch.uint8)
    return {"images": images, "noisy": images, "target": target, "latent": latent, "logits": logits}


@pytest.fixture
def network() -> DualDecoderNet:
    torch.manual_seed(0)
    return DualDecoderNet(1, 1).train()


def invert(network: DualDecoderNet, images: Tensor, latent: Tensor) -> Tensor:
    return 1.0 - images


def test_losses_are_those_of_the_hard_images_against_the_clean_ones(network: DualDecoderNet) -> None:
    batch = make_batch(network)
    loss = SegmentationLoss()
    total, parts = HardPass(invert, weight=0.5, segmentation_weight=2.0).losses(run, network, batch, loss, 0.7)
    with untracked_batch_norm(network):
        _, logits, clean = run(network, 1.0 - batch["images"])
    torch.testing.assert_close(parts["loss_hard_segmentation"], loss(logits, batch["target"]))
    torch.testing.assert_close(parts["loss_hard_reconstruction"], reconstruction_loss(clean, batch["images"]))
    expected = 0.5 * (2.0 * parts["loss_hard_segmentation"] + 0.7 * parts["loss_hard_reconstruction"])
    torch.testing.assert_close(total, expected)


def test_views_are_drawn_anew_and_averaged(network: DualDecoderNet) -> None:
    factors = iter([0.2, 0.9])
    batch, loss = make_batch(network), SegmentationLoss()
    hard = HardPass(lambda network, images, latent: images * next(factors), views=2, consistency_weight=3.0)
    total, parts = hard.losses(run, network, batch, loss, 0.0)
    expected, logits = [], [batch["logits"]]
    for factor in (0.2, 0.9):
        with untracked_batch_norm(network):
            logits.append(run(network, batch["images"] * factor)[1])
        expected.append(loss(logits[-1], batch["target"]))
    torch.testing.assert_close(parts["loss_hard_segmentation"], torch.stack(expected).mean())
    torch.testing.assert_close(parts["loss_consistency"], prediction_divergence(logits))
    torch.testing.assert_close(total, parts["loss_hard_segmentation"] + 3.0 * parts["loss_consistency"])


def test_perturbation_acts_in_the_hard_pass_alone(network: DualDecoderNet) -> None:
    batch, loss = make_batch(network), SegmentationLoss()
    plain = HardPass(perturbation=ScaledStem(1.0)).losses(run, network, batch, loss)[0]
    changed = HardPass(perturbation=ScaledStem(3.0)).losses(run, network, batch, loss)[0]
    assert not torch.isclose(plain, changed)
    assert not network.stem._forward_hooks


def test_perturbation_acts_in_a_compiled_pass_as_well(network: DualDecoderNet) -> None:
    compiled = torch.compile(run, backend="eager")
    batch, loss, losses = make_batch(network), SegmentationLoss(), []
    for forward in (compiled, run):
        with untracked_batch_norm(network):
            forward(network, batch["noisy"])  # compiled here, without hooks
        losses.append(HardPass(perturbation=ScaledStem(3.0)).losses(forward, network, batch, loss)[0])
    torch.testing.assert_close(*losses)


def test_stylizer_and_perturbation_get_seeds_of_their_own() -> None:
    class Seeded:
        seed = -1

        def reseed(self, seed: int) -> None:
            self.seed = seed

    stylizer, perturbation = Seeded(), Seeded()
    hard = HardPass(stylizer, perturbation)  # type: ignore[arg-type]
    seen = []
    for seed in (1, 2, 1):
        hard.reseed(seed)
        seen.append((stylizer.seed, perturbation.seed))
    assert seen[0] == seen[2]
    assert len({*seen[0], *seen[1]}) == 4
    HardPass(invert).reseed(0)  # parts without randomness need no reseed


def test_objective_is_the_loss_of_the_batch_and_leaves_batch_norm_buffers(network: DualDecoderNet) -> None:
    batch, loss = make_batch(network), SegmentationLoss()
    buffers = {name: value.clone() for name, value in network.named_buffers()}

    class Adversary:
        needs_objective = True

        def __call__(
            self, network: DualDecoderNet, images: Tensor, latent: Tensor, objective: Callable[[Tensor], Tensor]
        ) -> Tensor:
            images = images.clone().requires_grad_()
            self.value = objective(images)
            (gradient,) = torch.autograd.grad(self.value, images)
            return (images + gradient.sign()).detach()

    adversary = Adversary()
    HardPass(adversary).losses(run, network, batch, loss)
    with untracked_batch_norm(network):
        expected = loss(run(network, batch["images"])[1], batch["target"])
    torch.testing.assert_close(adversary.value, expected)
    for name, value in network.named_buffers():
        torch.testing.assert_close(value, buffers[name], rtol=0, atol=0)


def test_separate_parameters_see_hard_examples_alone_and_the_network_clean_ones(network: DualDecoderNet) -> None:
    loss, affine = SegmentationLoss(), SeparateAffine(network)
    batch = make_batch(network)
    hard = HardPass(invert, batch_norm="separate", affine=affine)
    shared = HardPass(invert).losses(run, network, batch, loss)[0]
    total = hard.losses(run, network, batch, loss)[0]
    torch.testing.assert_close(total, shared)  # before the first step they are copies
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    total.backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in affine.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in affine.parameters())
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.weight.grad is None
            assert module.bias.grad is None
        elif isinstance(module, torch.nn.Conv2d):
            assert module.weight.grad is not None
    with torch.no_grad():
        for parameter in affine.parameters():
            parameter.mul_(0.5)
    assert not torch.isclose(hard.losses(run, network, batch, loss)[0], total)
    torch.testing.assert_close(HardPass(invert).losses(run, network, batch, loss)[0], shared)
    for name, value in network.named_buffers():
        torch.testing.assert_close(value, buffers[name], rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["batch", "running", "tracked"])
def test_statistics_of_batch_norm_are_those_asked_for(network: DualDecoderNet, mode: str) -> None:
    batch, loss = make_batch(network), SegmentationLoss()
    before = {name: value.clone() for name, value in network.named_buffers()}
    twin = copy.deepcopy(network)
    _, parts = HardPass(invert, batch_norm=mode).losses(run, network, batch, loss)
    after = dict(network.named_buffers())
    changed = any(not torch.equal(after[name], value) for name, value in before.items())
    assert changed is (mode == "tracked")
    assert all(module.training for module in network.modules())
    # The same pass by hand: eval mode normalises with the running statistics, train mode with the batch's.
    logits = run(twin.eval() if mode == "running" else twin.train(), 1.0 - batch["images"])[1]
    torch.testing.assert_close(parts["loss_hard_segmentation"], loss(logits, batch["target"]))


def test_instance_norm_shows_each_image_by_itself(network: DualDecoderNet) -> None:
    batch, loss = make_batch(network), SegmentationLoss()
    before = {name: value.clone() for name, value in network.named_buffers()}
    _, parts = HardPass(invert, batch_norm="instance").losses(run, network, batch, loss)
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    hard = 1.0 - batch["images"]
    alone = torch.cat([run(network, hard[k : k + 1])[1] for k in range(len(hard))])
    torch.testing.assert_close(parts["loss_hard_segmentation"], loss(alone, batch["target"]), atol=1e-5, rtol=1e-4)


def test_gradient_reaches_every_parameter_by_running_statistics(network: DualDecoderNet) -> None:
    batch = make_batch(network)
    HardPass(invert, batch_norm="running").losses(run, network, batch, SegmentationLoss())[0].backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "neither a stylizer nor a perturbation"),
        ({"stylizer": invert, "views": 0}, "views=0"),
        ({"stylizer": invert, "weight": -1.0}, "hard_weight=-1.0"),
        ({"stylizer": invert, "batch_norm": "eval"}, "hard_batch_norm='eval': expected one of"),
        ({"stylizer": invert, "batch_norm": "running", "freeze_affine": True}, "goes with 'batch' alone"),
        ({"stylizer": invert, "consistency_weight": float("nan")}, "consistency_weight=nan"),
        ({"stylizer": invert, "batch_norm": "separate"}, "hard_batch_norm='separate': needs parameters of its own"),
        ({"stylizer": invert, "batch_norm": "separate", "freeze_affine": True}, "goes with 'batch' alone"),
        ({"stylizer": MaxStyle(), "image_activation": "instance_norm"}, "MaxStyle with intensity='z_score'"),
        (
            {"stylizer": ChainedStylizer([RandConv(), BigAug()]), "image_activation": "instance_norm"},
            "BigAug with intensity='z_score': makes images in",
        ),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HardPass(**settings)  # type: ignore[arg-type]
