"""Regions between label maps, network channels and masks."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from mixstyleflow_monai.data import RegionEncoding

NESTED = {"disc": [1, 2], "cup": [2]}
EXCLUSIVE = {"left": [3], "right": [7]}
ONE = {"prostate": [1, 2]}
CROSSED = {"a": [1, 2], "b": [2, 3], "c": [3, 4, 5]}
ALL = pytest.mark.parametrize("regions", [NESTED, EXCLUSIVE, ONE, CROSSED])
BOTH = pytest.mark.parametrize("activation", ["sigmoid", "softmax"])


def every_value(regions: dict[str, list[int]], dims: int = 2) -> Tensor:
    """Return a label map (1, ...) in which the background and every value occur."""
    values = sorted({0, *itertools.chain(*regions.values())})
    return torch.tensor(values * 12, dtype=torch.uint8).reshape(1, len(values), *((12,) if dims == 2 else (4, 3)))


def representative(encoding: RegionEncoding, label: Tensor) -> Tensor:
    """Return the label map with every value replaced by the smallest of its class."""
    smallest = {value: members[0] for members in encoding.classes for value in members}
    return torch.tensor([smallest[int(v)] for v in label.flatten()], dtype=torch.uint8).reshape(label.shape)


def test_nested_regions_overlap_and_have_a_class_each() -> None:
    encoding = RegionEncoding(NESTED)
    assert encoding.names == ("disc", "cup")
    assert encoding.classes == ((0,), (1,), (2,))
    assert encoding.membership.tolist() == [[False, False], [True, False], [True, True]]
    assert encoding.masks(torch.tensor([[[0, 1, 2]]])).tolist() == [[[False, True, True]], [[False, False, True]]]


def test_exclusive_regions_keep_their_own_values() -> None:
    encoding = RegionEncoding(EXCLUSIVE, "softmax")
    assert encoding.classes == ((0,), (3,), (7,))
    target = encoding.target(torch.tensor([[[0, 3, 7]]]))
    assert target.tolist() == [[[1, 0, 0]], [[0, 1, 0]], [[0, 0, 1]]]


def test_values_of_the_same_regions_are_one_class() -> None:
    encoding = RegionEncoding(ONE, "softmax")
    assert encoding.classes == ((0,), (1, 2))
    assert encoding.out_channels == 2
    assert encoding.target(torch.tensor([[[0, 1, 2]]])).tolist() == [[[1, 0, 0]], [[0, 1, 1]]]
    assert RegionEncoding(CROSSED).classes == ((0,), (1,), (2,), (3,), (4, 5))


@ALL
def test_channels_are_regions_or_background_and_classes(regions: dict[str, list[int]]) -> None:
    sigmoid, softmax = (RegionEncoding(regions, activation) for activation in ("sigmoid", "softmax"))
    assert sigmoid.out_channels == len(regions)
    assert softmax.out_channels == len(softmax.classes)
    for encoding in (sigmoid, softmax):
        target = encoding.target(every_value(regions))
        assert target.shape[0] == encoding.out_channels
        assert target.dtype == torch.uint8
        assert set(target.unique().tolist()) <= {0, 1}
    assert bool((softmax.target(every_value(regions)).sum(0) == 1).all())


@ALL
@BOTH
@pytest.mark.parametrize("dims", [2, 3])
def test_certain_logits_give_back_masks_and_label_map(
    regions: dict[str, list[int]], activation: str, dims: int
) -> None:
    encoding = RegionEncoding(regions, activation)
    label = every_value(regions, dims)
    target = encoding.target(label)
    masks = encoding.masks_of_target(target[None])[0]
    assert torch.equal(masks.bool(), encoding.masks(label))
    probabilities = encoding.probabilities(40 * (2 * target[None].float() - 1))[0]
    torch.testing.assert_close(probabilities, masks, atol=1e-6, rtol=0)
    found = encoding.label_map(encoding.channel_probabilities(40 * (2 * target[None].float() - 1))[0])
    assert found.dtype == torch.uint8
    assert torch.equal(found, representative(encoding, label))
    assert torch.equal(encoding.masks(found), encoding.masks(label))


def test_softmax_region_probability_is_the_sum_of_its_classes() -> None:
    logits = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    p = torch.softmax(logits, 1)
    expected = torch.stack([p[:, 1] + p[:, 2], p[:, 2] + p[:, 3], p[:, 3] + p[:, 4]], 1)
    torch.testing.assert_close(RegionEncoding(CROSSED, "softmax").probabilities(logits), expected)


@pytest.mark.parametrize("regions", [{"a": [1], "b": [2]}, {"disc": [1, 2], "cup": [2]}, CROSSED])
def test_softmax_label_map_is_the_most_probable_class(regions: dict[str, list[int]]) -> None:
    encoding = RegionEncoding(regions, "softmax")
    logits = torch.randn(1, encoding.out_channels, 40, 30, generator=torch.Generator().manual_seed(0))
    found = encoding.label_map(encoding.channel_probabilities(logits)[0])
    values = torch.tensor([group[0] for group in encoding.classes], dtype=torch.uint8)
    assert torch.equal(found[0], values[logits[0].argmax(0)])


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@BOTH
def test_label_map_of_what_is_no_number_is_refused(activation: str, wrong: float) -> None:
    encoding = RegionEncoding(NESTED, activation)
    probabilities = torch.full((encoding.out_channels, 4, 4), 0.3)
    probabilities[0, 1, 1] = wrong
    with pytest.raises(ValueError, match=r"the network's output is not finite\. Look for NaN"):
        encoding.label_map(probabilities)


def test_label_map_of_one_region_is_the_half_threshold() -> None:
    p = torch.rand(1, 50, 50, generator=torch.Generator().manual_seed(0))
    p[0, 0, 0] = 0.5
    assert torch.equal(RegionEncoding(ONE).label_map(p), (p > 0.5).to(torch.uint8))


@pytest.mark.parametrize(("disc", "cup", "expected"), [(0.9, 0.6, 2), (0.2, 0.7, 0), (0.45, 0.95, 2), (0.9, 0.1, 1)])
def test_impossible_combinations_become_the_most_probable_possible_one(disc: float, cup: float, expected: int) -> None:
    assert int(RegionEncoding(NESTED).label_map(torch.tensor([disc, cup])[:, None, None])) == expected


def test_certain_probabilities_do_not_overflow() -> None:
    assert RegionEncoding(NESTED).label_map(torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])).tolist() == [[[2, 0]]]


@BOTH
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_values_that_no_region_has_are_background(activation: str, dtype: torch.dtype) -> None:
    encoding = RegionEncoding(NESTED, activation)
    unknown, background = (encoding.target(torch.full((1, 2, 2), value, dtype=dtype)) for value in (9, 0))
    assert torch.equal(unknown, background)
    assert not encoding.masks(torch.full((1, 2, 2), 9, dtype=dtype)).any()


def test_floating_labels_are_rounded_not_cut() -> None:
    assert RegionEncoding(NESTED).masks(torch.tensor([[[1.9999, 0.0001]]])).tolist() == [[[True, False]]] * 2


@pytest.mark.parametrize(
    ("regions", "activation", "message"),
    [
        ({}, "sigmoid", "expected at least one region with at least one value"),
        ({"disc": []}, "sigmoid", "expected at least one region with at least one value"),
        ({"disc": [0, 1]}, "sigmoid", "label values must be from 1 to 255; 0 is the background"),
        ({"disc": [256]}, "sigmoid", "label values must be from 1 to 255"),
        (NESTED, "tanh", "activation='tanh': expected 'sigmoid' or 'softmax'"),
    ],
)
def test_impossible_regions_are_refused(regions: dict[str, list[int]], activation: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RegionEncoding(regions, activation)
