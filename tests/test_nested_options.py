"""Options with ``#`` in their names reach what is there, or are refused with what is allowed."""

import copy
import json
from typing import Any

import pytest

from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir
from mixstyleflow_monai.nested_options import check_nested


def settings(phase: int, given: dict[str, Any]) -> dict[str, Any]:
    """Return a shipped train.json with options as a command line adds them."""
    path = bundles_dir() / PHASE_BUNDLES[phase] / "configs" / "train.json"
    return {**json.loads(path.read_text(encoding="utf-8")), **given}


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
@pytest.mark.parametrize(
    "given",
    [
        {"optimizer#lr": 0.1},
        {"optimizer::lr": 0.1},
        {"optimizer#lr": "$0.5 * @learning_rate"},
        {"optimizer#betas": [0.9, 0.99]},  # not in the file, but an argument
        {"optimizer#_disabled_": False},
        {"optimizer#_target_": "torch.optim.SGD", "optimizer#momentum": 0.9},
        {"optimizer#momentum": 0.9, "optimizer#_target_": "torch.optim.SGD"},
        {"train#trainer#max_epochs": 3},
        {"train#handlers#1#_disabled_": True},
        {"train#handlers#-1#_disabled_": True},
        {"train#inferer": {"_target_": "monai.inferers.SimpleInferer"}, "train#inferer#_disabled_": True},
    ],
    ids=str,
)
def test_what_is_there_or_an_argument_can_be_set(phase: int, given: dict[str, Any]) -> None:
    whole = settings(phase, given)
    before = copy.deepcopy(whole)
    check_nested(phase, whole)
    assert whole == before, "only looked at"


@pytest.mark.parametrize("phase", [1, 3])
@pytest.mark.parametrize("name", ["amp", "compile"])
def test_switches_that_take_words_take_them(phase: int, name: str) -> None:
    check_nested(phase, settings(phase, {f"train#trainer#{name}": "bfloat16"}))


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("optimizer#lr", "foo", r"optimizer#lr foo: expected a number, as in the configuration \(0\.\d+\)"),
        ("optimizer#lr", [1, 2], "expected a number"),
        ("optimizer#weight_decay", True, "expected a number"),
        ("train#trainer#max_epochs", "many", "expected a number"),
        ("optimizer#learning_rat", 0.1, "torch.optim.AdamW takes no 'learning_rat'"),
        ("optimizer#weight_decai", 0.1, "did you mean 'weight_decay'"),
        ("train#trainr#max_epochs", 3, "there is no 'trainr'; did you mean 'trainer'"),
        ("train#handlers#99#_disabled_", True, "'99' is no number of an entry"),
        ("train#handlers#99", None, "'99' is no number of an entry"),
        ("train#trainer#optimizer#lr", 0.1, "train#trainer#optimizer is '@optimizer', with nothing inside it"),
        ("seed#inner", 1, "seed is 0, with nothing inside it. Set the whole value"),
        ("seed#inner#more", 1, "0 has no 'inner' inside. Set the whole value"),
    ],
)
def test_what_is_not_there_is_told(phase: int, name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check_nested(phase, settings(phase, {name: value}))
    assert str(caught.value).startswith(f"--phase{phase}:{name}")


def test_arguments_of_a_class_method_are_known() -> None:
    check_nested(1, settings(1, {"task#image_size": [64, 64]}))
    task = {"_target_": "mixstyleflow_monai.data.Task.from_model"}
    with pytest.raises(ValueError, match="takes no 'model_pat'; did you mean 'model_path'"):
        check_nested(1, {"task": task, "task#model_pat": "model.pt"})


def test_what_an_expression_makes_has_nothing_to_set() -> None:
    with pytest.raises(ValueError, match=r"task is '\$inspection.* with nothing inside it"):
        check_nested(3, settings(3, {"task#image_size": [64, 64]}))


def test_an_argument_of_the_class_before_is_refused() -> None:
    given = {"optimizer#_target_": "torch.optim.SGD", "optimizer#betas": [0.9, 0.99]}
    with pytest.raises(ValueError, match=r"torch\.optim\.SGD takes no 'betas'"):
        check_nested(1, settings(1, given))


def test_a_word_for_a_switch_is_told() -> None:
    with pytest.raises(ValueError, match=r"--phase1:inner#switch maybe: expected True or False"):
        check_nested(1, {"inner": {"switch": True}, "inner#switch": "maybe"})


@pytest.mark.parametrize("target", ["builtins.dict", "nowhere.to.be.Found", "$some_expression"])
def test_what_tells_nothing_of_its_arguments_is_left_to_monai(target: str) -> None:
    check_nested(1, {"made": {"_target_": target}, "made#anything": 3})


def test_references_in_a_circle_are_left_to_monai() -> None:
    check_nested(1, {"a": {"x": "@b"}, "b": "@c", "c": "@b", "a#x": 3})
