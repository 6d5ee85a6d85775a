"""The losses of SAN-SAW on the clean pass, and the start from a network without its layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mixstyleflow_monai.artifacts import write_manifest
from mixstyleflow_monai.data import RegionEncoding, SliceDataset, Task, TrainingLoader
from mixstyleflow_monai.engines import DualDecoderTrainer, EpochSeeding, SemanticLosses, save_state_dict
from mixstyleflow_monai.engines.deployment import check_model, strict_network
from mixstyleflow_monai.engines.semantic_losses import balanced_cross_entropy, class_masks
from mixstyleflow_monai.engines.warm_start import load_earlier_network
from mixstyleflow_monai.inspection import initial_network
from mixstyleflow_monai.inspection import task as training_task
from mixstyleflow_monai.losses import SegmentationLoss
from mixstyleflow_monai.losses.whitening import whitening_penalty
from mixstyleflow_monai.networks import DualDecoderNet

REGIONS = {"disc": [1, 2], "cup": [2]}
TASK = Task(1, {"disc": [1]}, (32, 32), normalization="san_saw")
run = DualDecoderTrainer._pass


def make_network(task: Task = TASK) -> DualDecoderNet:
    torch.manual_seed(0)
    return DualDecoderNet(**task.network_settings()).train()


def make_batch(network: DualDecoderNet, forward: Any = run, size: int = 3) -> dict[str, Tensor]:
    images = torch.rand(size, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    latent, logits, _ = forward(network, images)
    target = (images > 0.6).to(torch.uint8)
    return {"images": images, "noisy": images, "target": target, "latent": latent, "logits": logits}


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_nested_regions_become_exclusive_classes(activation: str) -> None:
    encoding = RegionEncoding(REGIONS, activation)
    label = torch.tensor([[[0, 1, 2], [2, 0, 1]]])
    masks = class_masks(encoding, encoding.target(label)[None])
    assert masks.shape == (1, 3, 2, 3)
    assert torch.equal(masks.argmax(1), label)
    assert bool((masks.sum(1) == 1).all())


def test_cup_outside_the_disc_is_of_no_class() -> None:
    target = torch.tensor([0, 1], dtype=torch.uint8).reshape(1, 2, 1, 1)
    assert not class_masks(RegionEncoding(REGIONS), target).any()


def test_cross_entropy_is_that_of_torch_with_weights_of_the_rarer_class() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=generator)
    label = torch.randint(0, 3, (2, 4, 4), generator=generator)
    masks = F.one_hot(label, 3).movedim(-1, 1).float()
    weight = 1.0 - label.flatten().bincount(minlength=3) / label.numel()
    torch.testing.assert_close(balanced_cross_entropy(logits, masks), F.cross_entropy(logits, label, weight))
    # Slices without foreground have one class; torch's would be not a number.
    assert float(balanced_cross_entropy(logits, torch.eye(3)[0].expand(2, 4, 4, 3).movedim(-1, 1))) == 0


def test_parts_are_the_losses_of_both_stages() -> None:
    network = make_network()
    batch = make_batch(network)
    total, parts = SemanticLosses(TASK, target_weight=0.3, whitening_weight=0.2).losses(
        run, network, batch, SegmentationLoss()
    )
    weights = {"loss_semantic_target": 0.3, "loss_whitening": 0.2, "loss_auxiliary_segmentation": 0.1}
    torch.testing.assert_close(total, sum(weights[name] * part for name, part in parts.items()))
    expected = dict.fromkeys(weights, torch.zeros(()))
    features = network.stem(batch["images"])
    assert network.normalization is not None
    for number, stage in enumerate(network.normalization):
        features = network.down[number](features)
        normalized = stage(features)
        step = 2 ** (number + 1)
        inside = batch["target"][..., ::step, ::step].float()
        wanted = torch.relu(stage.norm(features * inside) + stage.norm(features * (1 - inside)))
        logits = F.interpolate(stage.classifier(features), size=32, mode="bilinear", align_corners=True)
        both = torch.cat([1 - batch["target"], batch["target"]], 1).float()
        target = F.smooth_l1_loss(2 * normalized, 2 * wanted)
        expected["loss_semantic_target"] = expected["loss_semantic_target"] + target
        penalty = whitening_penalty(2 * normalized, stage.classifier.weight[:, :, 0, 0])
        expected["loss_whitening"] = expected["loss_whitening"] + penalty
        entropy = balanced_cross_entropy(logits, both)
        expected["loss_auxiliary_segmentation"] = expected["loss_auxiliary_segmentation"] + entropy
        features = normalized
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value)


@pytest.mark.parametrize("regions", [{"disc": [1]}, REGIONS, {**REGIONS, "vessel": [3]}])
def test_losses_have_the_published_scale_for_any_number_of_classes(regions: dict[str, list[int]]) -> None:
    """On the layers' own scale, that of a mean over classes, whitening of three classes would always be 0."""
    task = Task(1, regions, (32, 32), normalization="san_saw")
    network, published = make_network(task), make_network(task)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 1, 32, 32, generator=generator)
    label = torch.randint(0, len(regions) + 1, (3, 1, 32, 32), generator=generator)
    classes = class_masks(task.encoding, torch.stack([task.encoding.target(one) for one in label]))
    assert network.normalization is not None
    assert published.normalization is not None
    network.normalization[0](features := network.down[0](network.stem(images)))
    target, whitening, _ = SemanticLosses._of_stage(
        network.normalization[0], SemanticLosses._kept(network.normalization[0]), classes
    )

    stage = published.normalization[0]
    torch.nn.init.ones_(stage.norm.weight)
    normalized = stage(features)
    wanted = stage.normalize(features, F.interpolate(classes.float(), scale_factor=0.5))
    expected = whitening_penalty(normalized, stage.classifier.weight.flatten(1))
    assert expected.item() > 0
    torch.testing.assert_close(whitening, expected)
    torch.testing.assert_close(target, F.smooth_l1_loss(normalized, wanted))


def test_classifier_learns_from_its_own_loss_which_leaves_the_encoder_alone() -> None:
    network = make_network()
    losses = SemanticLosses(TASK, target_weight=0.0, whitening_weight=0.0)
    losses.losses(run, network, make_batch(network), SegmentationLoss())[0].backward()
    assert network.normalization is not None
    for stage in network.normalization:
        assert bool(stage.classifier.weight.grad.any())
    gradients = [p.grad for p in network.stem.parameters()]
    assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_compiled_and_mixed_precision_passes_leave_the_same_features() -> None:
    totals = []
    for forward in (run, torch.compile(run, backend="eager")):
        network = make_network()
        total = SemanticLosses(TASK).losses(run, network, make_batch(network, forward), SegmentationLoss())[0]
        total.backward()
        totals.append(torch.stack([total.detach(), network.stem[0][0].weight.grad.norm()]))
    torch.testing.assert_close(*totals, rtol=1e-3, atol=1e-4)
    network = make_network()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        batch = make_batch(network)
    total = SemanticLosses(TASK).losses(run, network, batch, SegmentationLoss())[0]
    assert total.dtype == torch.float32
    torch.testing.assert_close(total.detach(), totals[0][0], rtol=0.1, atol=0.0)


def test_features_of_an_earlier_step_are_not_used_again() -> None:
    network, losses = make_network(), SemanticLosses(TASK)
    batch = make_batch(network)
    losses.losses(run, network, batch, SegmentationLoss())
    with pytest.raises(RuntimeError, match="not run in train mode since the last step"):
        losses.losses(run, network, batch, SegmentationLoss())
    plain = make_network(TASK.with_normalization(None))
    with pytest.raises(RuntimeError, match="the network has no normalization"):
        losses.losses(run, plain, batch, SegmentationLoss())


def test_wrong_settings_are_told() -> None:
    with pytest.raises(ValueError, match=r"normalization=None: .* Give --normalization san_saw"):
        SemanticLosses(TASK.with_normalization(None))
    with pytest.raises(ValueError, match=r"whitening_weight=-0\.1"):
        SemanticLosses(TASK, whitening_weight=-0.1)


def publish(folder: Path, task: Task) -> Path:
    path = folder / "model.pt"
    save_state_dict(make_network(task), path)
    write_manifest(path, "segmentation_network", facts={"task": task.to_json()})
    return path


def test_training_from_a_network_without_the_layers_lowers_the_loss(dataset: SliceDataset, tmp_path: Path) -> None:
    """Warm: the earlier network is trained on the images already."""
    totals: list[dict[str, float]] = []

    def train(network: torch.nn.Module, losses: SemanticLosses | None, steps: int) -> None:
        trainer = DualDecoderTrainer(
            hard_pass=losses,
            device=torch.device("cpu"),
            max_epochs=1,
            train_data_loader=TrainingLoader(dataset, 6, epoch_length=steps),
            network=network,
            optimizer=torch.optim.AdamW(network.parameters(), lr=1e-3),
            loss_function=SegmentationLoss(),
            train_handlers=[EpochSeeding()],
        )
        trainer.add_event_handler("ITERATION_COMPLETED", lambda engine: totals.append(engine.state.output[0]))
        trainer.run()
        assert trainer.skipped_steps == 0

    earlier = make_network(TASK.with_normalization(None))
    train(earlier, None, 10)
    save_state_dict(earlier, tmp_path / "model.pt")
    totals.clear()
    train(load_earlier_network(make_network(), tmp_path / "model.pt"), SemanticLosses(TASK), 20)
    found = [float(output["loss"]) for output in totals]
    assert all(value == value and value < 10 for value in found)
    assert sum(found[-5:]) < 0.8 * sum(found[:5])
    segmentation = [float(output["loss_segmentation"]) for output in totals]
    assert sum(segmentation[-5:]) < sum(segmentation[:5])


def test_earlier_network_gives_all_weights_but_the_added_ones(tmp_path: Path) -> None:
    plain = publish(tmp_path, TASK.with_normalization(None))
    saved = torch.load(plain, weights_only=True)
    fresh = strict_network(**TASK.network_settings())
    added = {name: value.clone() for name, value in fresh.state_dict().items() if name.startswith("normalization.")}
    started = initial_network(fresh, plain).state_dict()
    assert set(started) == {*saved, *added}
    assert all(torch.equal(started[name], value) for name, value in {**saved, **added}.items())
    assert load_earlier_network(fresh, plain, keep_added=False).normalization is None


def test_all_else_is_as_strict_as_ever(tmp_path: Path) -> None:
    other = publish(tmp_path, Task(1, REGIONS, (32, 32)))
    network = strict_network(**TASK.network_settings())
    with pytest.raises(ValueError, match="weights of another network"):
        initial_network(network, other)
    assert network.normalization is not None
    three = publish(tmp_path, Task(1, REGIONS, (32, 32), normalization="san_saw"))
    with pytest.raises(ValueError, match="weights of another network"):
        initial_network(network, three)
    with pytest.raises(FileNotFoundError, match="nothing"):
        load_earlier_network(network, tmp_path / "nothing.pt")
    # Weights with the layers do not fit a network without them.
    with pytest.raises(ValueError, match=r"unknown \['normalization\."):
        load_earlier_network(make_network(Task(1, REGIONS, (32, 32))), three)


def test_layers_travel_in_the_manifest_and_stay_when_training_goes_on(tmp_path: Path) -> None:
    path = publish(tmp_path, TASK)
    assert Task.from_model(path) == TASK
    assert training_task(path, None) == TASK
    assert check_model(path, TASK) == TASK
    with pytest.raises(ValueError, match="trained for normalization san_saw, but the bundle is open for normalization"):
        check_model(path, TASK.with_normalization(None))
    plain = publish(tmp_path, TASK.with_normalization(None))
    assert "normalization" not in TASK.with_normalization(None).to_json()
    assert training_task(plain, None, "null").normalization is None
    assert training_task(plain, None, "san_saw") == TASK
    with pytest.raises(ValueError, match=r"normalization='batch': expected one of \('san_saw',\), or null"):
        training_task(plain, None, "batch")
