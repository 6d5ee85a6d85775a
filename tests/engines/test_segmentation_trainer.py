"""Tests of the training loop of Phase I and III."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.transforms import Compose
from torch import Tensor

from mixstyleflow_monai.data import SliceDataset, TrainingLoader
from mixstyleflow_monai.engines import DualDecoderTrainer, EpochSeeding, HardPass, denoising_input
from mixstyleflow_monai.engines.handlers import ResumableCheckpoint, ResumeCheckpoint
from mixstyleflow_monai.losses import SegmentationLoss, reconstruction_loss
from mixstyleflow_monai.networks import DualDecoderNet


def ring_image(number: int) -> dict[str, Tensor]:
    """Return a 32 x 32 image with a bright disc, and the disc."""
    grid = torch.arange(32.0) - 15.5
    disc = (grid[:, None] ** 2 + grid[None] ** 2 < (6 + number % 4) ** 2).float()[None]
    return {"image": 0.2 + 0.6 * disc, "label": disc.to(torch.uint8)}


class FromNumber:
    """Transform of {"number": n} to an image, in place of files."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Tensor]:
        return ring_image(int(data["number"]))


def make_loader(epoch_length: int = 2, batch_size: int = 4) -> TrainingLoader:
    data = [{"number": n} for n in range(6)]
    dataset = SliceDataset(data, Compose([FromNumber()]), progress=False)
    return TrainingLoader(dataset, batch_size, epoch_length=epoch_length)


def make_trainer(
    network: DualDecoderNet | None = None, epochs: int = 1, stylizer: Any = None, **settings: Any
) -> DualDecoderTrainer:
    if network is None:
        torch.manual_seed(0)
        network = DualDecoderNet(1, 1)
    if stylizer is not None:
        settings["hard_pass"] = HardPass(stylizer, freeze_affine=settings.pop("freeze_affine", False))
    return DualDecoderTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=settings.pop("loader", None) or make_loader(),
        network=network,
        optimizer=settings.pop("optimizer", None) or torch.optim.AdamW(network.parameters(), lr=1e-3),
        loss_function=SegmentationLoss(),
        train_handlers=[EpochSeeding()],
        **settings,
    )


def test_noise_is_clamped_to_the_range_of_the_batch() -> None:
    images = torch.rand(4, 1, 16, 16) * 0.5 + 0.2
    noisy = denoising_input(images, 0.5, torch.Generator().manual_seed(0))
    assert noisy.min() >= images.min()
    assert noisy.max() <= images.max()
    assert not torch.equal(noisy, images)
    assert denoising_input(images, 0.0) is images


def test_noise_has_the_asked_spread() -> None:
    images = torch.full((2, 1, 64, 64), 0.5)
    images[0, 0, 0, 0], images[0, 0, 0, 1] = 0.0, 1.0
    noisy = denoising_input(images, 0.05, torch.Generator().manual_seed(0))
    assert (noisy - images).std().item() == pytest.approx(0.05, rel=0.05)


def test_one_step_without_stylizer_is_the_loss_of_the_paper() -> None:
    torch.manual_seed(0)
    network = DualDecoderNet(1, 1)
    twin = DualDecoderNet(1, 1)
    twin.load_state_dict(network.state_dict())
    loader = make_loader(epoch_length=1)
    trainer = make_trainer(network, loader=loader, noise_std=0.0, reconstruction_weight=0.7)
    trainer.run()
    loader.set_epoch(1)
    batch = next(iter(loader))
    latent = twin.train().encode(batch["image"])
    segmentation = SegmentationLoss()(twin.decode_segmentation(latent), batch["label"])
    expected = segmentation + 0.7 * reconstruction_loss(twin.decode_image(latent), batch["image"])
    assert float(trainer.state.output[0]["loss"]) == pytest.approx(expected.item(), rel=1e-5)


def test_gradient_of_the_hard_pass_is_added_and_buffers_stay_those_of_the_clean_pass() -> None:
    states = []
    for stylizer in (None, lambda network, images, latent: 1.0 - images):
        torch.manual_seed(0)
        network = DualDecoderNet(1, 1)
        make_trainer(network, noise_std=0.0, stylizer=stylizer, loader=make_loader(epoch_length=1)).run()
        states.append(network.state_dict())
    buffers = [key for key in states[0] if "running" in key or "num_batches" in key]
    assert buffers
    for key in buffers:
        torch.testing.assert_close(states[0][key], states[1][key])
    assert not torch.equal(states[0]["stem.0.0.weight"], states[1]["stem.0.0.weight"])


def test_stylizer_gets_the_latent_and_its_images_are_trained_on() -> None:
    seen: list[tuple[int, ...]] = []

    def stylizer(network: DualDecoderNet, images: Tensor, latent: Tensor) -> Tensor:
        seen.append(tuple(latent.shape))
        return images.flip(-1)

    trainer = make_trainer(stylizer=stylizer)
    trainer.run()
    assert seen == [(4, 128, 2, 2)] * 2
    output = trainer.state.output[0]
    assert {"loss_hard_segmentation", "loss_hard_reconstruction"} <= set(output)
    total = sum(float(value) for name, value in output.items() if name.startswith("loss_"))
    assert float(output["loss"]) == pytest.approx(total, rel=1e-5)


def test_frozen_affine_gets_gradient_from_the_clean_pass_only() -> None:
    gradients = []
    for freeze in (False, True):
        torch.manual_seed(0)
        network = DualDecoderNet(1, 1)
        trainer = make_trainer(
            network,
            loader=make_loader(epoch_length=1),
            noise_std=0.0,
            stylizer=lambda network, images, latent: 1.0 - images,
            freeze_affine=freeze,
        )
        trainer.run()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None})
    assert not torch.allclose(gradients[0]["stem.0.1.weight"], gradients[1]["stem.0.1.weight"])
    torch.testing.assert_close(gradients[0]["stem.0.0.weight"], gradients[1]["stem.0.0.weight"])


def test_non_finite_steps_are_skipped_and_weights_kept() -> None:
    torch.manual_seed(0)
    network = DualDecoderNet(1, 1)
    before = {key: value.clone() for key, value in network.named_parameters()}
    trainer = make_trainer(
        network, stylizer=lambda network, images, latent: images * math.nan, max_skipped_steps=3, noise_std=0.0
    )
    trainer.run()
    assert trainer.skipped_steps == 2
    for key, value in network.named_parameters():
        torch.testing.assert_close(value, before[key])


def test_running_statistics_survive_a_forward_pass_that_overflows() -> None:
    torch.manual_seed(0)
    network = DualDecoderNet(1, 1)
    factors = iter([1.0, math.inf])
    network.stem.register_forward_pre_hook(lambda module, inputs: (inputs[0] * next(factors),))
    trainer = make_trainer(network)
    kept: list[dict[str, Tensor]] = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: kept.append({k: v.clone() for k, v in network.named_buffers()})
    )
    trainer.run()
    assert (len(kept), trainer.skipped_steps) == (2, 1)
    for name, value in kept[1].items():
        assert bool(value.isfinite().all()), name
        if name.startswith("stem") and "running" in name:
            assert torch.equal(value, kept[0][name]), name


def test_training_stops_after_too_many_non_finite_steps() -> None:
    trainer = make_trainer(stylizer=lambda network, images, latent: images * math.nan, max_skipped_steps=2)
    with pytest.raises(ValueError, match=r"2 steps in a row had non-finite gradients.*learning rate"):
        trainer.run()


def test_counter_of_skipped_steps_starts_anew_after_a_good_step() -> None:
    calls = iter([math.nan, 1.0, math.nan, 1.0])
    trainer = make_trainer(stylizer=lambda network, images, latent: images * next(calls), max_skipped_steps=2, epochs=2)
    trainer.run()
    assert trainer.skipped_steps == 0


def test_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        network = DualDecoderNet(1, 1)
        make_trainer(network, seed=seed).run()
        weights.append(network.state_dict()["stem.0.0.weight"])
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)
    assert not torch.equal(weights[0], weights[2])


def test_loss_falls_on_an_easy_task() -> None:
    losses: list[float] = []
    trainer = make_trainer(loader=make_loader(epoch_length=15))
    trainer.add_event_handler(
        "ITERATION_COMPLETED", lambda engine: losses.append(float(engine.state.output[0]["loss"]))
    )
    trainer.run()
    assert losses[-1] < 0.6 * losses[0]


def test_scale_of_float16_gradients_goes_on_where_a_checkpoint_was_saved(tmp_path: Path) -> None:
    def trainer(scale: float, epochs: int) -> DualDecoderTrainer:
        made = make_trainer(epochs=epochs)
        made.gradient_scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1)
        return made

    first = trainer(256.0, 1)
    ResumableCheckpoint(save_dir=str(tmp_path), save_dict={"model": first.network}, save_final=True).attach(first)
    first.run()
    (path,) = tmp_path.glob("*.pt")
    second = trainer(8.0, 2)
    ResumeCheckpoint(load_path=str(path), load_dict={"model": second.network}).attach(second)
    scales: list[float] = []
    second.add_event_handler(Events.STARTED, lambda: scales.append(second.gradient_scaler.get_scale()))
    second.run()
    # Doubled after each of two steps.
    assert scales == [1024.0]
    assert second.gradient_scaler.get_scale() == 4096.0


def test_checkpoint_without_a_scaler_is_still_resumed() -> None:
    plain, scaled = make_trainer(), make_trainer()
    scaled.gradient_scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    assert "gradient_scaler" not in plain.state_dict()
    plain.run()
    scaled.load_state_dict(plain.state_dict())
    assert scaled.state.epoch == 1
    assert scaled.gradient_scaler.get_scale() == 8.0
    plain.load_state_dict(scaled.state_dict())
