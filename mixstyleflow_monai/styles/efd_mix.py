"""EFDMix: the whole distribution of feature values mixed with that of another image of the batch."""

from __future__ import annotations

from torch import Tensor

from mixstyleflow_monai.styles.mix_style import DrawnMixing, MixingPerturbation


class EFDMix(MixingPerturbation):
    """Mix sorted feature values: exact feature distribution matching.

    x' = x + (1 - w) (y - sg(x)), where y are the sorted values of a permuted image's channel, placed at the ranks of x,
    w ~ Beta(alpha, alpha) an image and sg stops the gradient (Eq. 7); y carries gradient. Identity for a batch of one.

    Defaults: layers 1 to 3, those of MixStyle, which the method replaces. Sorting costs O(H W log(H W)) a channel.

    References:
        Zhang et al., Exact Feature Distribution Matching for Arbitrary Style Transfer and Domain Generalization,
        CVPR 2022
    """

    def perturb(self, features: Tensor, drawn: DrawnMixing) -> Tensor:
        """Mix sorted values of features (B, C, H, W)."""
        flat = features.flatten(2)
        values, order = flat.sort(dim=-1)
        ranks = order.argsort(dim=-1)
        partner = drawn.permutation.to(features.device)
        matched = values[partner].gather(-1, ranks).view(features.shape)
        weight = drawn.weight.to(features)[..., None, None]
        return features + (1.0 - weight) * (matched - features.detach())
