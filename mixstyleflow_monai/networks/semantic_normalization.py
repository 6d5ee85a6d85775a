"""Semantic-aware normalization (SAN): features are normalised class by class, where each class seems to be.

Peng et al., Semantic-Aware Domain Generalized Segmentation, CVPR 2022. With features x (B, C, H, W) of an encoder
stage, classes c and sg for "no gradient through here":

    M = softmax(conv1x1(sg(x)))                       where the classes are, by an auxiliary classifier
    f_c = x M_c A_c,  A_c = sigmoid(conv7x7([mean_ch(x M_c), max_ch(x M_c), M_c]))
    region R_c = pixels of mean_ch(f_c) outside the lowest of five clusters of its values
    output = ReLU(sum_c IN(f_c R_c))                  one instance norm with weight and bias for all classes

The norm is part of the network: it acts in training and at inference.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

CLUSTERS = 5
"""Clusters of a region's k-means, as published."""

ITERATIONS = 15
"""Of Lloyd's algorithm. The published code solves the same problem exactly, on the CPU."""


class NormalizedFeatures(NamedTuple):
    """What a stage saw and made in its last forward pass of a training.

    Attributes:
        features: x, (B, C, H, W).
        class_logits: of the auxiliary classifier, (B, classes, H, W).
        normalized: the stage's output, (B, C, H, W), values >= 0.
    """

    features: Tensor
    class_logits: Tensor
    normalized: Tensor


def outside_lowest_cluster(values: Tensor, clusters: int = CLUSTERS, iterations: int = ITERATIONS) -> Tensor:
    """Cluster the numbers of each row (1-D k-means) and tell which are in another cluster than the lowest.

    Lloyd's algorithm for a fixed number of iterations: deterministic, without gradient, and made of operations that can
    be exported. Centres start halfway between evenly spaced quantiles and evenly spaced values, which ends nearer to
    the optimum than either of the two. A cluster that becomes empty keeps its centre.

    Args:
        values: (rows, n).
        clusters: at least 2.
        iterations: of the algorithm.

    Returns:
        (rows, n), boolean. All true in a row whose values do not differ: it has no lowest cluster.
    """
    values = values.detach()
    n = values.shape[1]
    ordered = values.sort(dim=1).values
    quantiles = torch.stack([ordered[:, (2 * k + 1) * n // (2 * clusters)] for k in range(clusters)], dim=1)
    share = torch.tensor([(2 * k + 1) / (2 * clusters) for k in range(clusters)], dtype=values.dtype).to(values.device)
    centres = (quantiles + torch.lerp(ordered[:, :1], ordered[:, -1:], share)) / 2
    total = values.sum(dim=1, keepdim=True)
    everything, nothing = torch.full_like(total, n), torch.zeros_like(total)
    edges = (centres[:, 1:] + centres[:, :-1]) / 2
    for _ in range(iterations):
        # Centres are in order, so a cluster is what is above its lower edge and not above the next.
        above = values[:, None] > edges[:, :, None]
        counts = torch.cat([everything, above.sum(dim=2).to(values.dtype), nothing], dim=1)
        sums = torch.cat([total, (above * values[:, None]).sum(dim=2), nothing], dim=1)
        size = counts[:, :-1] - counts[:, 1:]
        centres = torch.where(size > 0, (sums[:, :-1] - sums[:, 1:]) / size.clamp_min(1.0), centres)
        edges = (centres[:, 1:] + centres[:, :-1]) / 2
    outside = values > edges[:, :1]
    return outside | ~outside.any(dim=1, keepdim=True)


class SemanticNormalization(nn.Module):
    """The normalization behind one stage of an encoder.

    In training a class's region is found over the whole batch, as published. In eval mode it is found image by image,
    so that a prediction does not depend on the other images of its batch; for a batch of one image the two are the
    same. Half precision is left inside: the output is float32 at least.

    Weights start as published, convolutions from N(0, 0.01), but for the norm's weight, which starts at 1/classes and
    not at 1: untrained masks are all alike, and so are the maps that are added up, so that the output starts as one
    instance norm of the features rather than as a multiple of it.

    Args:
        channels: C of the features.
        classes: exclusive classes, background included, at least 2.

    Shape:
        (B, channels, H, W) -> (B, channels, H, W), H * W > 1.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"classes={classes}: expected at least 2, background included.")
        self.classes: Final[int] = classes
        self.classifier = nn.Conv2d(channels, classes, 1)
        # A convolution of its own for each class.
        self.attention = nn.Conv2d(3 * classes, classes, 7, padding=3, groups=classes, bias=False)
        self.norm = nn.InstanceNorm2d(channels, affine=True)
        for convolution in (self.classifier, self.attention):
            nn.init.normal_(convolution.weight, 0.0, 0.01)
        nn.init.constant_(self.norm.weight, 1.0 / classes)
        self._kept: NormalizedFeatures | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Return the normalised features."""
        features = _single(features)
        class_logits = _single(self.classifier(features.detach()))
        masks = torch.softmax(class_logits, dim=1)
        weights = masks * self.attend(features, masks)
        region = self.regions(weights * features.mean(dim=1, keepdim=True))
        normalized = self.normalize(features, weights * region)
        if not torch.jit.is_scripting():
            self._keep(features, class_logits, normalized)
        return normalized

    def attend(self, features: Tensor, masks: Tensor) -> Tensor:
        """Return the attention A of every class, (B, classes, H, W), in (0, 1)."""
        # Masks are not negative, so mean and maximum of x M_c are those of x, times M_c.
        mean = masks * features.mean(dim=1, keepdim=True)
        maximum = masks * features.amax(dim=1, keepdim=True)
        stacked = torch.stack([mean, maximum, masks], dim=2).flatten(1, 2)
        return torch.sigmoid(_single(self.attention(stacked)))

    def regions(self, heat: Tensor) -> Tensor:
        """Return the region of every class, in {0, 1}, of the means over channels of f; both (B, classes, H, W)."""
        if self.training:
            by_class = heat.transpose(0, 1)
            outside = outside_lowest_cluster(by_class.flatten(1)).reshape(by_class.shape).transpose(0, 1)
        else:
            outside = outside_lowest_cluster(heat.flatten(0, 1).flatten(1)).reshape(heat.shape)
        return outside.to(heat.dtype)

    def normalize(self, features: Tensor, weights: Tensor) -> Tensor:
        """Return ReLU(sum_c IN(x w_c)) of features (B, C, H, W) and weights (B, classes, H, W)."""
        total = self.norm(features * weights[:, :1])
        for index in range(1, self.classes):
            total = total + self.norm(features * weights[:, index : index + 1])
        return torch.relu(total)

    @torch.jit.unused
    def take(self) -> NormalizedFeatures | None:
        """Return what the last training pass left and forget it; None if there was none since."""
        kept, self._kept = self._kept, None
        return kept

    @torch.jit.unused
    def _keep(self, features: Tensor, class_logits: Tensor, normalized: Tensor) -> None:
        """Keep a training pass for the losses on it, which would otherwise need a second one; only the last."""
        if self.training and torch.is_grad_enabled():
            self._kept = NormalizedFeatures(features, class_logits, normalized)

    def __getstate__(self) -> dict[str, Any]:
        """Leave what was kept out of copies: torch copies no tensor in the middle of a graph."""
        return {**self.__dict__, "_kept": None}


def _single(values: Tensor) -> Tensor:
    """Return half precision as float32, all else as it is."""
    if values.dtype == torch.float16 or values.dtype == torch.bfloat16:
        return values.float()
    return values
