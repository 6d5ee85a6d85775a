"""Device, precision and compilation: what a machine cannot do is refused, what it can gives the same numbers."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from monai.data import DataLoader
from monai.inferers import SimpleInferer
from torch import Tensor, nn

from mixstyleflow_monai.data import SliceDataset, TrainingLoader
from mixstyleflow_monai.engines import (
    DualDecoderTrainer,
    EpochSeeding,
    HardPass,
    SegmentationEvaluator,
    check_computation,
    flag,
    place_network,
)
from mixstyleflow_monai.engines.computation import autocast_type, compile_backend
from mixstyleflow_monai.losses import SegmentationLoss
from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.styles import FlowStyleMix

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def train(dataset: SliceDataset, steps: int = 2, **settings: Any) -> tuple[list[float], DualDecoderNet]:
    """Losses of a few steps, and the network."""
    torch.manual_seed(0)
    network = DualDecoderNet(1, 1)
    losses: list[float] = []
    trainer = DualDecoderTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=TrainingLoader(dataset, 4, epoch_length=steps),
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), lr=1e-3),
        loss_function=SegmentationLoss(),
        train_handlers=[EpochSeeding()],
        **settings,
    )
    trainer.add_event_handler("ITERATION_COMPLETED", lambda: losses.append(float(trainer.state.output[0]["loss"])))
    trainer.run()
    return losses, network


@pytest.mark.parametrize("amp", [True, "true", "bfloat16"])
def test_mixed_precision_trains_close_to_float32_and_keeps_float32_weights(amp: Any, dataset: SliceDataset) -> None:
    expected, _ = train(dataset)
    losses, network = train(dataset, amp=amp)
    assert losses == pytest.approx(expected, rel=0.03)
    assert losses != expected
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_styles_and_losses_are_float32_under_mixed_precision(dataset: SliceDataset, stylizer: FlowStyleMix) -> None:
    seen: list[tuple[torch.dtype, bool]] = []

    def watched(network: DualDecoderNet, images: Tensor, latent: Tensor) -> Tensor:
        seen.append((latent.dtype, torch.is_autocast_enabled("cpu")))
        return stylizer(network, images, latent)

    losses, _ = train(dataset, amp=True, hard_pass=HardPass(watched))
    assert seen == [(torch.float32, False)] * 2
    assert torch.isfinite(torch.tensor(losses)).all()


@pytest.mark.parametrize(
    ("backend", "batch_norm"),
    [("eager", "batch"), ("eager", "instance"), pytest.param("aot_eager", "batch", marks=pytest.mark.slow)],
)
def test_compiled_training_gives_the_same_losses(backend: str, batch_norm: str, dataset: SliceDataset) -> None:
    def invert(network: DualDecoderNet, images: Tensor, latent: Tensor) -> Tensor:
        return 1.0 - images

    torch._dynamo.reset()
    expected, plain = train(dataset, hard_pass=HardPass(invert, batch_norm=batch_norm))
    losses, network = train(dataset, hard_pass=HardPass(invert, batch_norm=batch_norm), compile=backend)
    assert losses == pytest.approx(expected, rel=1e-4)
    assert list(network.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(network.state_dict()[name], value, atol=1e-4, rtol=1e-3)


def test_forward_pass_is_what_is_compiled(dataset: SliceDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def compile(function: Any, backend: str) -> Any:
        def counted(*arguments: Any) -> Any:
            calls.append(backend)
            return function(*arguments)

        return counted

    monkeypatch.setattr(torch, "compile", compile)
    train(dataset, compile="eager")
    assert calls == ["eager", "eager"]


def test_inductor_without_a_compiler_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        ValueError, match=r"compile=True: torch\.compile needs a C\+\+ compiler and finds none of \['g\+\+'"
    ):
        check_computation("cpu", compile=True)
    check_computation("cpu", compile="aot_eager")
    monkeypatch.setenv("CXX", "my-compiler")
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "my-compiler" else None)
    assert compile_backend(True, "cpu") == "inductor"


def test_words_of_a_command_line_are_switches() -> None:
    assert (flag("false", "resume"), flag("True", "resume"), flag(False, "resume")) == (False, True, False)
    assert (autocast_type("false", "cpu"), compile_backend("false", "cpu")) == (None, None)
    with pytest.raises(ValueError, match="resume='no': expected true or false"):
        flag("no", "resume")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"amp": "float8"}, "amp='float8': expected false, true, 'bfloat16' or 'float16'"),
        ({"amp": "float16"}, "amp='float16' on cpu: float16 is for GPUs. Give --amp bfloat16"),
        ({"amp": None}, "amp=None: expected false, true"),
        (
            {"compile": "fast"},
            r"compile='fast': expected false, true, or a backend of torch.compile such as \['inductor'",
        ),
        ({"sync_batch_norm": True}, "sync_batch_norm=True on cpu: batch norm over processes needs CUDA"),
        ({"device": "gpu"}, "device='gpu': not a device of torch. Give cpu, cuda"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_can(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_computation(**{"device": "cpu", **options})


@without_cuda
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")])
def test_cuda_without_cuda_is_one_message(device: Any) -> None:
    with pytest.raises(
        ValueError, match=r"torch finds 0 CUDA devices here.*Give --device cpu, or leave the option out"
    ):
        check_computation(device)


def test_types_of_mixed_precision_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for supported, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda found=supported, **_: found)
        assert autocast_type(True, "cuda") == expected
    assert autocast_type("float16", "cuda") == torch.float16


@pytest.mark.parametrize("last", [True, False, "false"])
def test_network_is_placed_in_its_memory_format(last: Any) -> None:
    network = place_network(DualDecoderNet(1, 1), "cpu", channels_last=last)
    weight = next(p for p in network.parameters() if p.ndim == 4 and min(p.shape) > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last) == (last is True)


def test_batch_norm_over_processes_has_the_weights_of_the_ordinary_one() -> None:
    network = DualDecoderNet(1, 1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    placed = place_network(network, "cpu", sync_batch_norm=True)
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in placed.modules()) > 20
    assert all(torch.equal(value, before[name]) for name, value in placed.state_dict().items())
    assert list(placed.state_dict()) == list(before)


def test_evaluation_in_mixed_precision_is_close_and_float32(dataset: SliceDataset) -> None:
    predictions = []
    network = DualDecoderNet(1, 1)
    for amp in (False, True):
        evaluator = SegmentationEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(dataset, batch_size=len(dataset)),
            network=network,
            inferer=SimpleInferer(),
            decollate=False,
            amp=amp,
        )
        evaluator.run()
        predictions.append(evaluator.state.output["pred"])
    assert predictions[1].dtype == torch.float32
    assert not torch.equal(*predictions)
    scale = float(predictions[0].abs().max())
    torch.testing.assert_close(predictions[1], predictions[0], atol=0.05 * scale, rtol=0)
