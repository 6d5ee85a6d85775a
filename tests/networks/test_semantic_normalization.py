"""Semantic-aware normalization: its formula against loops, its two modes, and the network with and without it."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mixstyleflow_monai.networks import DualDecoderNet, SemanticNormalization
from mixstyleflow_monai.networks.semantic_normalization import ITERATIONS, outside_lowest_cluster


def random(*shape: int, seed: int = 0) -> Tensor:
    """Uniform numbers in double precision, so that no pixel is within rounding of the edge of a region."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stage(channels: int = 6, classes: int = 3, seed: int = 0) -> SemanticNormalization:
    """A normalization whose weights all matter."""
    module = SemanticNormalization(channels, classes).double()
    for number, parameter in enumerate(module.parameters()):
        parameter.data = 2 * random(*parameter.shape, seed=100 * seed + number) - 1
    return module


def network(normalization: str | None = "san_saw", seed: int = 0, **settings: int) -> DualDecoderNet:
    """A network with random weights; torch's random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DualDecoderNet(1, 2, normalization=normalization, **settings)


def by_loops(module: SemanticNormalization, x: Tensor) -> Tensor:
    """The formula with a loop over images, classes and pixels, and k-means one value at a time."""
    batch, _, height, width = x.shape
    total = torch.zeros_like(x)
    weight, bias = module.classifier.weight.flatten(1), module.classifier.bias
    assert bias is not None
    scores = torch.stack(
        [(weight @ image.flatten(1) + bias[:, None]).softmax(0).unflatten(1, (height, width)) for image in x]
    )
    for c in range(module.classes):
        f = torch.zeros_like(x)
        for n in range(batch):
            masked = x[n] * scores[n, c]
            maps = torch.stack([masked.mean(0), masked.max(0).values, scores[n, c]])
            padded = nn.functional.pad(maps, (3, 3, 3, 3))
            for i in range(height):
                for j in range(width):
                    patch = padded[:, i : i + 7, j : j + 7]
                    f[n, :, i, j] = masked[:, i, j] * torch.sigmoid((patch * module.attention.weight[c]).sum())
        heat = f.mean(1)
        groups = [heat] if module.training else [image[None] for image in heat]
        region = torch.cat([kmeans_by_loops(group.flatten().tolist()).view_as(group) for group in groups])
        for n in range(batch):
            for channel in range(x.shape[1]):
                kept = f[n, channel] * region[n]
                scale = torch.sqrt(kept.var(unbiased=False) + module.norm.eps)
                total[n, channel] += (
                    module.norm.weight[channel] * (kept - kept.mean()) / scale + module.norm.bias[channel]
                )
    return total.clamp_min(0)


def kmeans_by_loops(values: list[float], clusters: int = 5, iterations: int = ITERATIONS) -> Tensor:
    """Lloyd's algorithm, each value to its nearest centre, in plain Python."""
    ordered = sorted(values)
    n, low, high = len(values), min(values), max(values)
    steps = [(2 * k + 1) / (2 * clusters) for k in range(clusters)]
    centres = [(ordered[math.floor(step * n)] + low + (high - low) * step) / 2 for step in steps]
    for _ in range(iterations):
        nearest = [min(range(clusters), key=lambda k: abs(value - centres[k])) for value in values]
        members = [[v for v, k in zip(values, nearest, strict=True) if k == own] for own in range(clusters)]
        centres = [sum(m) / len(m) if m else centre for m, centre in zip(members, centres, strict=True)]
    nearest = [min(range(clusters), key=lambda k: abs(value - centres[k])) for value in values]
    return torch.tensor([float(k > 0) for k in nearest], dtype=torch.float64)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("classes", [2, 3])
def test_output_is_the_formula(training: bool, classes: int) -> None:
    module = stage(classes=classes).train(training)
    x = random(2, 6, 9, 8) - 0.3
    with torch.no_grad():
        torch.testing.assert_close(module(x), by_loops(module, x))


def test_true_classes_are_normalised_by_the_same_norm() -> None:
    module, x = stage(), random(2, 6, 5, 5)
    masks = torch.nn.functional.one_hot(torch.arange(50).reshape(2, 5, 5) % 3, 3).movedim(-1, 1).double()
    expected = sum(module.norm(x * masks[:, c : c + 1]) for c in range(3))
    torch.testing.assert_close(module.normalize(x, masks), torch.relu(expected))


def test_clusters_are_found_where_they_are_apart() -> None:
    centres = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    label = torch.stack([random(30, seed=seed).argsort() % 5 for seed in (1, 2)])
    values = centres[label] + 0.1 * random(2, 30)
    assert torch.equal(outside_lowest_cluster(values), label > 0)


@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_near_the_optimum(seed: int) -> None:
    values = random(1, 120, seed=seed) ** 3
    outside = outside_lowest_cluster(values)[0]
    lowest = optimal_lowest_cluster(values[0].sort().values.tolist())
    assert abs(int((~outside).sum()) - lowest) <= 12


def optimal_lowest_cluster(values: list[float], clusters: int = 5) -> int:
    """Size of the lowest cluster of the best partition of sorted values, by dynamic programming."""
    n = len(values)
    sums, squares = [0.0], [0.0]
    for value in values:
        sums.append(sums[-1] + value)
        squares.append(squares[-1] + value * value)

    def cost(i: int, j: int) -> float:
        return squares[j] - squares[i] - (sums[j] - sums[i]) ** 2 / (j - i)

    best = [(cost(0, j), j) if j else (math.inf, 0) for j in range(n + 1)]  # cost, size of the lowest cluster
    for _ in range(clusters - 1):
        best = [
            min(((best[i][0] + cost(i, j), best[i][1]) for i in range(1, j)), default=(math.inf, 0))
            for j in range(n + 1)
        ]
    return best[n][1]


def test_rows_are_clustered_apart_and_without_gradient() -> None:
    values = random(3, 40)
    both = outside_lowest_cluster(values.requires_grad_())
    assert torch.equal(both, torch.cat([outside_lowest_cluster(row[None]) for row in values]))
    assert not both.requires_grad


def test_values_without_contrast_are_all_taken() -> None:
    assert bool(outside_lowest_cluster(torch.full((2, 30), 0.7)).all())
    # Ties below everything else are the lowest cluster.
    values = torch.tensor([[0.0] * 20 + [1.0, 2.0, 3.0, 4.0]])
    assert outside_lowest_cluster(values)[0].tolist() == [False] * 20 + [True] * 4


def test_regions_are_of_the_whole_batch_in_training_and_of_an_image_in_eval_mode() -> None:
    module, x = stage(), random(3, 6, 8, 8) * torch.tensor([0.2, 1.0, 3.0])[:, None, None, None]
    one_by_one = [torch.cat([module.train(mode)(image[None]) for image in x]) for mode in (True, False)]
    torch.testing.assert_close(one_by_one[0], one_by_one[1])  # the same for a batch of one
    torch.testing.assert_close(module.eval()(x), one_by_one[1])
    assert not torch.allclose(module.train()(x), one_by_one[0])


def test_untrained_output_is_one_instance_norm_of_the_features_in_the_region() -> None:
    module, x = SemanticNormalization(4, 3).double().eval(), random(1, 4, 16, 16)
    nn.init.zeros_(module.classifier.weight)
    nn.init.zeros_(module.classifier.bias)  # type: ignore[arg-type]
    nn.init.zeros_(module.attention.weight)
    region = outside_lowest_cluster(x.mean(1).flatten(1)).view(1, 1, 16, 16)
    expected = torch.relu(nn.InstanceNorm2d(4)(x * region))
    torch.testing.assert_close(module(x), expected, atol=1e-2, rtol=1e-2)


def test_half_precision_is_left_inside() -> None:
    module, x = SemanticNormalization(6, 2), random(2, 6, 8, 8).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(x.bfloat16())
    assert out.dtype == torch.float32
    assert bool(out.isfinite().all())


def test_a_training_pass_is_kept_once_and_not_copied() -> None:
    module, x = stage(), random(2, 6, 5, 5)
    module(x)
    assert copy.deepcopy(module).take() is None
    kept = module.take()
    assert kept is not None
    assert torch.equal(kept.features, x)
    torch.testing.assert_close(kept.class_logits, module.classifier(x))
    torch.testing.assert_close(kept.normalized, module(x))
    assert module.take() is not None
    assert module.take() is None
    with torch.no_grad():
        module(x)
    module.eval()(x)
    assert module.take() is None


def test_network_without_it_is_as_it_was() -> None:
    plain, other = network(None), network(classes=3)
    added = {name for name in other.state_dict() if name not in plain.state_dict()}
    assert all(name.startswith("normalization.") for name in added)
    assert len(added) == 10
    # Also the random numbers that the other weights start from.
    assert all(torch.equal(other.state_dict()[name], value) for name, value in plain.state_dict().items())
    other.normalization = None
    x = random(1, 1, 32, 32).float()
    assert torch.equal(plain.eval()(x), other.eval()(x))
    assert sum(p.numel() for p in plain.parameters()) == 1_536_291


def test_batch_in_eval_mode_equals_its_images_one_by_one() -> None:
    net = network().double().eval()
    x = random(3, 1, 32, 48)
    with torch.no_grad():
        for run in (net, net.reconstruct):
            torch.testing.assert_close(run(x), torch.cat([run(image[None]) for image in x]))


@pytest.mark.parametrize("batch", [1, 3])
def test_gradient_reaches_every_new_parameter(batch: int) -> None:
    net = network(classes=3).double().train()
    assert net.normalization is not None
    net(random(batch, 1, 32, 32)).square().mean().backward()
    parameters = dict(net.normalization.named_parameters())
    assert len(parameters) == 10
    assert all(p.grad is not None and bool(p.grad.any()) and bool(p.grad.isfinite().all()) for p in parameters.values())


def test_exports_equal_the_network_at_other_sizes(tmp_path: Path) -> None:
    net = network(classes=3).double().eval()
    torch.jit.script(net).save(str(tmp_path / "network.ts"))
    scripted = torch.jit.load(str(tmp_path / "network.ts"))
    batch = torch.export.Dim("batch", min=1, max=64)
    height, width = (16 * torch.export.Dim(name, min=2, max=64) for name in ("rows", "columns"))
    shapes = {"x": {0: batch, 2: height, 3: width}}
    program = torch.export.export(net, (random(2, 1, 32, 48),), dynamic_shapes=shapes).module()
    with torch.no_grad():
        for size in ((2, 1, 32, 48), (1, 1, 64, 32), (3, 1, 32, 80)):
            x = random(*size, seed=1)
            torch.testing.assert_close(scripted(x), net(x))
            torch.testing.assert_close(program(x), net(x))


def test_wrong_settings_are_told() -> None:
    with pytest.raises(ValueError, match=r"normalization='san': expected None or one of \('san_saw',\)"):
        DualDecoderNet(normalization="san")
    with pytest.raises(ValueError, match="classes=1: expected at least 2"):
        DualDecoderNet(normalization="san_saw", classes=1)
