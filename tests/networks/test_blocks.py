"""Blocks of the network against a hand-written pass."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from mixstyleflow_monai.networks.blocks import (
    Decoder,
    ResampledResidualBlock,
    double_convolution,
    initialise_like_paper,
)


def test_block_adds_the_residual_to_an_unnormalised_shortcut_of_the_resampled_input() -> None:
    torch.manual_seed(0)
    block = ResampledResidualBlock(nn.Upsample(scale_factor=2.0, mode="nearest"), 3, 5).eval()
    x = torch.randn(2, 3, 4, 6)
    larger = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    first, norm1, _, second, norm2 = block.residual
    inner = F.leaky_relu(norm1(first(larger)), 0.2)
    expected = F.leaky_relu(block.shortcut(larger) + norm2(second(inner)), 0.2)
    torch.testing.assert_close(block(x), expected)
    assert block(x).shape == (2, 5, 8, 12)


def test_shortcut_is_a_convolution_even_if_the_channels_stay() -> None:
    block = ResampledResidualBlock(nn.Conv2d(4, 4, 3, stride=2, padding=1), 4, 4)
    assert isinstance(block.shortcut, nn.Conv2d)
    assert block.shortcut.kernel_size == (1, 1)
    assert block(torch.randn(2, 4, 6, 8)).shape == (2, 4, 3, 4)


def test_double_convolution_ends_with_a_norm_so_that_the_sum_is_activated_once() -> None:
    kinds = [type(layer) for layer in double_convolution(2, 3)]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU, nn.Conv2d, nn.BatchNorm2d]


def test_decoder_equals_its_blocks_in_order_and_has_no_last_activation() -> None:
    torch.manual_seed(0)
    decoder = Decoder((6, 5, 4, 3, 3), 2, learned_upsampling=True).eval()
    x = torch.randn(2, 6, 1, 2)
    features = x
    for block in decoder.blocks():
        features = block(features)
    assert torch.equal(decoder(x), decoder.output(features))
    assert decoder(x).shape == (2, 2, 16, 32)


def test_initialisation_leaves_transposed_convolutions_and_convolution_biases_alone() -> None:
    torch.manual_seed(0)
    decoder = Decoder((6, 5, 4, 3, 3), 2, learned_upsampling=True)
    before = {name: p.detach().clone() for name, p in decoder.named_parameters()}
    initialise_like_paper(decoder)
    for name, p in decoder.named_parameters():
        kept = "resample" in name or (name.endswith("bias") and name != "output.bias")
        assert torch.equal(p, before[name]) == kept, name
