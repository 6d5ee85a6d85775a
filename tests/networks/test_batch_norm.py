"""Batch norm on batch statistics that leaves no trace."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mixstyleflow_monai.networks import DualDecoderNet, running_batch_norm, untracked_batch_norm
from mixstyleflow_monai.networks.batch_norm import SeparateAffine, instance_norm


def small() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm2d(4))
    net(images(seed=1))  # so that the running statistics are not the initial ones
    return net


def images(seed: int = 0) -> Tensor:
    return 3 * torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) + 1


def modes(net: nn.Module) -> list[tuple[bool, bool]]:
    return [(m.training, getattr(m, "track_running_stats", True)) for m in net.modules()]


@pytest.mark.parametrize("training", [True, False])
def test_buffers_stay_and_output_is_that_of_batch_statistics(training: bool) -> None:
    net = DualDecoderNet().train(training)
    x = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    before = copy.deepcopy(dict(net.named_buffers()))
    mode = modes(net)
    with torch.no_grad(), untracked_batch_norm(net):
        untracked = net(x)
    assert modes(net) == mode
    assert any(name.endswith("num_batches_tracked") for name in before)
    for name, buffer in net.named_buffers():
        assert torch.equal(buffer, before[name]), name
    with torch.no_grad():
        assert torch.equal(untracked, net.train()(x))
    assert int(net.stem[0][1].num_batches_tracked) == 1


def test_batch_norm_over_processes_is_the_ordinary_one_in_a_single_process() -> None:
    net = DualDecoderNet().train()
    x = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), untracked_batch_norm(net):
        expected = net(x)
    net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    before, mode = copy.deepcopy(dict(net.named_buffers())), modes(net)
    with untracked_batch_norm(net, freeze_affine=True), untracked_batch_norm(net):
        found = net(x)
    torch.testing.assert_close(found, expected)
    assert modes(net) == mode
    assert before.keys() == dict(net.named_buffers()).keys()
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())


@pytest.mark.parametrize("over_processes", [False, True])
def test_inner_block_decides_which_statistics_are_used(over_processes: bool) -> None:
    """MaxStyle's search is inside of a block on batch statistics, and its objective that of the hard pass."""
    net = DualDecoderNet().train()
    x = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    net(x + torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1)))  # running statistics of another batch
    if over_processes:
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    before, mode = copy.deepcopy(dict(net.named_buffers())), modes(net)
    with torch.no_grad():
        running = copy.deepcopy(net).eval()(x)
        with untracked_batch_norm(net):
            batch = net(x)
            with running_batch_norm(net):
                assert torch.equal(net(x), running)
                with untracked_batch_norm(net):
                    assert torch.equal(net(x), batch)
                assert torch.equal(net(x), running)
            assert torch.equal(net(x), batch)
    assert not torch.allclose(running, batch)
    assert modes(net) == mode
    assert before.keys() == dict(net.named_buffers()).keys()
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    assert not [module for module in net.modules() if "_running_statistics_put_aside" in vars(module)]


def test_other_modules_keep_their_mode() -> None:
    net = small().eval()
    with untracked_batch_norm(net):
        assert [m.training for m in net] == [False, True, False, False, True]
    assert not any(m.training for m in net.modules())


def test_modes_and_gradients_are_restored_after_an_error() -> None:
    net = small().eval()
    mode = modes(net)
    with pytest.raises(KeyError, match="in the block"), untracked_batch_norm(net, freeze_affine=True):
        raise KeyError("in the block")
    assert modes(net) == mode
    assert all(p.requires_grad for p in net.parameters())


def test_nested_blocks_restore_the_outermost_state() -> None:
    net = small().eval()
    mode = modes(net)
    with untracked_batch_norm(net):
        with untracked_batch_norm(net, freeze_affine=True):
            pass
        assert not net[1].track_running_stats
    assert modes(net) == mode


def test_frozen_affine_parameters_get_no_gradient_from_inside_and_the_usual_one_from_outside() -> None:
    net = small().eval()
    with untracked_batch_norm(net, freeze_affine=True):
        loss = net(images()).square().sum()
    loss.backward()
    got = {name for name, p in net.named_parameters() if p.grad is not None}
    assert got == {"0.weight", "0.bias"}

    net.zero_grad()
    clean = net(images()).square().sum()
    alone = torch.autograd.grad(clean, [net[1].weight], retain_graph=True)[0]
    with untracked_batch_norm(net, freeze_affine=True):
        hard = net(images(seed=2)).square().sum()
    (clean + hard).backward()
    torch.testing.assert_close(net[1].weight.grad, alone)


def test_affine_parameters_train_by_default() -> None:
    net = small()
    with untracked_batch_norm(net):
        net(images()).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_parameters_that_were_frozen_before_stay_frozen() -> None:
    net = small()
    net[1].weight.requires_grad_(False)
    with untracked_batch_norm(net, freeze_affine=True):
        assert not net[4].bias.requires_grad
    assert not net[1].weight.requires_grad
    assert net[4].bias.requires_grad


def test_instance_norm_of_a_batch_is_batch_norm_image_by_image() -> None:
    net = DualDecoderNet().train()
    x = (
        torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        * torch.tensor([0.2, 1.0, 3.0])[:, None, None, None]
    )
    before = copy.deepcopy(net.state_dict())
    with torch.no_grad(), untracked_batch_norm(net):
        one_by_one = torch.cat([net(x[k : k + 1]) for k in range(3)])
        together = net(x)
    with instance_norm(net):
        found = net(x)
        with torch.no_grad(), instance_norm(net.eval()):
            torch.testing.assert_close(net(x), found)
        torch.testing.assert_close(net.train()(x), found)  # the outer block goes on
    assert not torch.allclose(found, together, atol=1e-3)
    torch.testing.assert_close(found, one_by_one, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    found.square().sum().backward()
    norms = [m for m in net.stem.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for m in norms for p in m.parameters())


def test_instance_norm_ends_with_its_block() -> None:
    net = small()

    def fail() -> None:
        with instance_norm(net):
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert not any("forward" in module.__dict__ for module in net.modules())
    mean = net[1].running_mean.clone()
    net(images())
    assert not torch.equal(net[1].running_mean, mean)


def test_separate_parameters_are_the_network_s_inside_alone() -> None:
    net = small()
    affine = SeparateAffine(net)
    own = list(net.parameters())
    state = copy.deepcopy(net.state_dict())
    assert len(list(affine.parameters())) == 4  # two batch norms, and nothing else of the network
    with torch.no_grad():
        for parameter in affine.parameters():
            parameter.add_(1.0)
    with affine.attached():
        assert net[1].weight is affine.weights[0]
        torch.testing.assert_close(net[4].bias, state["4.bias"] + 1.0)

    def fail() -> None:
        with affine.attached():
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert all(a is b for a, b in zip(net.parameters(), own, strict=True))
    assert net.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_separate_parameters_that_are_switched_off_are_none() -> None:
    net = small()
    affine = SeparateAffine(net, enabled=False)
    assert list(affine.parameters()) == []
    assert affine.checkpointed == {}
    weight = net[1].weight
    with affine.attached():
        assert net[1].weight is weight


def test_separate_parameters_are_refused_in_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixstyleflow_monai.networks.batch_norm.world_size", lambda: 2)
    with pytest.raises(ValueError, match="hard_batch_norm='separate' in 2 processes: works in one"):
        SeparateAffine(small())
    SeparateAffine(small(), enabled=False)
