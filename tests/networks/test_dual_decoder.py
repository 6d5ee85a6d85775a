"""The dual-decoder network: sizes and parameters of the published architecture, hooks, export."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mixstyleflow_monai.losses import SegmentationLoss, reconstruction_loss
from mixstyleflow_monai.networks import DualDecoderNet

# Level: channels, and the factor by which the image is larger.
LEVELS = {0: (128, 16), 1: (64, 8), 2: (32, 4), 3: (16, 2), 4: (16, 1)}


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def network(in_channels: int = 1, out_channels: int = 2, seed: int = 0, **options: str) -> DualDecoderNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DualDecoderNet(in_channels, out_channels, **options)


def images(n: int = 2, channels: int = 1, height: int = 32, width: int = 48, seed: int = 0) -> Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def settled() -> DualDecoderNet:
    """Network in eval mode whose running statistics are those of images, not the initial ones."""
    net = network().train()
    with torch.no_grad():
        for seed in range(3):
            net.reconstruct(images(seed=seed))
            net(images(seed=seed))
    return net.eval()


@pytest.mark.parametrize(("in_channels", "expected"), [(1, 1_536_291), (3, 1_536_613)])
def test_parameters_are_as_many_as_published(in_channels: int, expected: int) -> None:
    assert parameters(network(in_channels)) == expected


def test_each_part_has_as_many_parameters_as_published() -> None:
    net = network()
    assert parameters(net.stem) + parameters(net.down) + parameters(net.latent) == 830_208
    assert parameters(net.code_filter) == 295_424
    assert parameters(net.segmentation_decoder) == 161_698
    assert parameters(net.image_decoder) == 248_961


def test_forward_returns_the_logits_of_the_regions(settled: DualDecoderNet) -> None:
    x = images()
    logits = settled(x)
    assert logits.shape == (2, 2, 32, 48)
    assert torch.equal(logits, settled.decode_segmentation(settled.encode(x)))
    assert float(logits.detach().min()) < 0  # logits, not probabilities
    assert network(3, 5)(images(2, 3)).shape == (2, 5, 32, 48)


def test_levels_of_the_image_decoder_have_the_published_sizes(settled: DualDecoderNet) -> None:
    x = images()
    latent = settled.encode(x)
    levels = settled.image_levels(latent)
    assert list(levels) == [0, 1, 2, 3, 4, 5]
    for level, (channels, factor) in LEVELS.items():
        assert levels[level].shape == (2, channels, 32 // factor, 48 // factor)
        assert settled.level_channels[level] == channels
    assert levels[0] is latent
    assert float(latent.detach().min()) >= 0
    assert torch.equal(levels[5], settled.reconstruct(x))
    # Values are those after the block's LeakyReLU, so they may be negative.
    assert all(float(levels[level].detach().min()) < 0 for level in (1, 2, 3, 4))


def test_image_activation_bounds_or_normalises_the_image() -> None:
    x = images(channels=3)
    with torch.no_grad():
        bounded = network(3).reconstruct(x)
        normalised = network(3, image_activation="instance_norm").reconstruct(x)
    assert float(bounded.min()) > 0
    assert float(bounded.max()) < 1
    torch.testing.assert_close(normalised.mean((2, 3)), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.std((2, 3)), torch.ones(2, 3), atol=1e-2, rtol=0)
    assert parameters(network(3, image_activation="instance_norm")) == 1_536_613


def test_biases_are_where_the_published_network_has_them() -> None:
    net = network()
    filters = {id(m) for m in net.code_filter.modules()}
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert (module.bias is None) == (id(module) in filters)


def test_upsampling_is_learned_for_images_and_nearest_for_segmentations() -> None:
    net = network()
    kinds = [
        {type(block.resample) for block in decoder.blocks()}
        for decoder in (net.image_decoder, net.segmentation_decoder)
    ]
    assert kinds == [{nn.ConvTranspose2d}, {nn.Upsample}]
    assert all(block.resample.mode == "nearest" for block in net.segmentation_decoder.blocks())
    assert not any(isinstance(m, nn.Dropout) for m in net.modules())


def test_weights_start_as_published() -> None:
    net = network()
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 4000:
            fan_in = module.weight[0].numel()
            assert float(module.weight.detach().std()) == pytest.approx(math.sqrt(2 / fan_in), rel=0.06)
            assert abs(float(module.weight.detach().mean())) < 0.1 * math.sqrt(2 / fan_in)
        elif isinstance(module, nn.BatchNorm2d):
            assert not module.bias.detach().any()
    scales = torch.cat([m.weight.detach() for m in net.modules() if isinstance(m, nn.BatchNorm2d)])
    assert float(scales.mean()) == pytest.approx(1.0, abs=0.003)
    assert float(scales.std()) == pytest.approx(0.02, rel=0.1)
    for decoder in (net.image_decoder, net.segmentation_decoder):
        assert not decoder.output.bias.detach().any()
    assert net.stem[0][0].bias.detach().any()  # other convolution biases keep PyTorch's default


def test_two_decoders_share_no_weights() -> None:
    net = network()
    assert len({id(p) for p in net.parameters()}) == len(list(net.parameters()))


@pytest.mark.parametrize("level", LEVELS)
def test_hook_replaces_the_features_of_its_level_and_changes_what_follows(level: int, settled: DualDecoderNet) -> None:
    latent = settled.encode(images()).detach()
    plain = settled.image_levels(latent)
    seen: dict[int, Tensor] = {}

    def hook(current: int, features: Tensor) -> Tensor:
        seen[current] = features
        return features * 1.5 + 0.1 if current == level else features

    with torch.no_grad():
        changed = settled.decode_image(latent, hook)
    assert list(seen) == list(LEVELS)
    for current in LEVELS:
        assert torch.equal(seen[current], plain[current].detach()) == (current <= level)
    assert not torch.allclose(changed, plain[5], atol=1e-4)


def test_identity_hook_changes_nothing(settled: DualDecoderNet) -> None:
    latent = settled.encode(images())
    assert torch.equal(settled.decode_image(latent, lambda _, features: features), settled.decode_image(latent))


def test_wrong_size_names_the_size_found_and_the_padded_size() -> None:
    with pytest.raises(ValueError, match=r"spatial size 40 x 48 is not a multiple of 16. Pad the input to 48 x 48"):
        network()(images(height=40))
    with pytest.raises(ValueError, match=r"spatial size 32 x 1 .* Pad the input to 32 x 16"):
        network().reconstruct(images(width=1))


def test_wrong_channels_or_dimensions_name_what_was_found_and_expected() -> None:
    with pytest.raises(ValueError, match=r"shape \[2, 3, 32, 48\], expected \(B, C, H, W\) with C = 1 channels"):
        network()(images(channels=3))
    with pytest.raises(ValueError, match=r"shape \[1, 1, 32, 32, 4\].*slices of a volume one by one"):
        network()(torch.zeros(1, 1, 32, 32, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels=0: expected an integer of at least 1"),
        ({"out_channels": -1}, "out_channels=-1: expected"),
        ({"image_activation": "tanh"}, "image_activation='tanh': expected 'sigmoid' or 'instance_norm'"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DualDecoderNet(**arguments)  # type: ignore[arg-type]


def test_batch_in_eval_mode_equals_its_images_one_by_one(settled: DualDecoderNet) -> None:
    x = images(3)
    with torch.no_grad():
        for run in (settled, settled.reconstruct):
            torch.testing.assert_close(run(x), torch.cat([run(image[None]) for image in x]), atol=1e-4, rtol=1e-4)


def test_gradient_reaches_every_parameter() -> None:
    net = network().train()
    x = images(4, height=64, width=64)
    latent = net.encode(x)
    target = (images(4, channels=2, height=64, width=64, seed=1) > 0.5).float()
    loss = SegmentationLoss()(net.decode_segmentation(latent), target)
    (loss + reconstruction_loss(net.decode_image(latent), x)).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    # A bias in front of a batch norm cannot change anything; all else must have a gradient that is not zero.
    zero = [name for name, p in net.named_parameters() if not p.grad.any() and not name.endswith("bias")]
    assert zero == []


def test_torchscript_equals_the_network(settled: DualDecoderNet, tmp_path: Path) -> None:
    scripted = torch.jit.script(settled)
    scripted.save(str(tmp_path / "network.ts"))
    loaded = torch.jit.load(str(tmp_path / "network.ts"))
    with torch.no_grad():
        for x in (images(), images(1, height=64, width=32)):
            torch.testing.assert_close(loaded(x), settled(x), atol=1e-4, rtol=1e-4)
    with pytest.raises(torch.jit.Error, match="Pad the input to 48 x 48"):
        loaded(images(height=40))


def test_exported_program_equals_the_network_at_other_sizes(settled: DualDecoderNet) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    # From 32 pixels on: torch.export takes a latent of a single row or column for another program.
    height, width = (16 * torch.export.Dim(name, min=2, max=64) for name in ("rows", "columns"))
    program = torch.export.export(settled, (images(),), dynamic_shapes={"x": {0: batch, 2: height, 3: width}})
    with torch.no_grad():
        for x in (images(), images(3, height=64, width=32), images(1, height=32, width=80)):
            torch.testing.assert_close(program.module()(x), settled(x), atol=1e-4, rtol=1e-4)


def test_saved_weights_give_the_same_network(settled: DualDecoderNet, tmp_path: Path) -> None:
    torch.save(settled.state_dict(), tmp_path / "model.pt")
    other = network(seed=1).eval()
    x = images()
    assert not torch.allclose(other(x), settled(x))
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(other(x), settled(x))
    assert torch.equal(other.reconstruct(x), settled.reconstruct(x))
