"""Options with ``#`` in their names reach what is there, or are refused with what is allowed."""

import json
from typing import Any

import pytest

from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir
from mixstyleflow_monai.nested_options import check_nested


def settings(phase: int, **given: Any) -> dict[str, Any]:
    """Return a shipped train.json with options as a command line adds them."""
    path = bundles_dir() / PHASE_BUNDLES[phase] / "configs" / "train.json"
    return {**json.loads(path.read_text(encoding="utf-8")), **given}


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer#lr", 0.1),
        ("optimizer::lr", 0.1),
        ("optimizer#lr", "$0.5 * @learning_rate"),
        ("optimizer#betas", [0.9, 0.99]),  # not in the file, but an argument
        ("optimizer#_disabled_", False),
        ("train#trainer#max_epochs", 3),
        ("train#handlers#1#_disabled_", True),
        ("task#whatever", 1),  # made by an expression
    ],
)
def test_what_is_there_or_an_argument_can_be_set(phase: int, name: str, value: Any) -> None:
    check_nested(phase, settings(phase, **{name: value}))


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("optimizer#lr", "foo", r"optimizer#lr foo: expected a number, as in the configuration \(0\.\d+\)"),
        ("train#trainer#max_epochs", "many", "expected a number"),
        ("optimizer#learning_rat", 0.1, "torch.optim.AdamW takes no 'learning_rat'"),
        ("optimizer#weight_decai", 0.1, "did you mean 'weight_decay'"),
        ("train#trainr#max_epochs", 3, "there is no 'trainr'; did you mean 'trainer'"),
        ("train#handlers#99#_disabled_", True, "'99' is no number of an entry"),
        ("train#handlers#99", None, "'99' is no number of an entry"),
        ("seed#inner", 1, "has no 'inner' inside"),
    ],
)
def test_what_is_not_there_is_told(phase: int, name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check_nested(phase, settings(phase, **{name: value}))
    assert str(caught.value).startswith(f"--phase{phase}:{name}")


def test_a_word_for_a_switch_is_told() -> None:
    given = settings(1, inner={"switch": True}, **{"inner#switch": "maybe"})
    with pytest.raises(ValueError, match="expected true or false"):
        check_nested(1, given)


def test_references_in_a_circle_are_left_to_monai() -> None:
    check_nested(1, {"a": "@b", "b": "@a", "a#inner": 3})
