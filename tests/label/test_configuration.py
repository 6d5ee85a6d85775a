"""The Phase III configurations, opened and overridden the way MONAI Label 0.8.5 does it, without a server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from mixstyleflow_monai.artifacts import read_manifest, sha256_file, write_json
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.engines import save_state_dict
from mixstyleflow_monai.networks import DualDecoderNet
from tests.label.label_server import ROOT, draw, run, save

SETTINGS = {"batch_size": 8, "epoch_length": 1}


@pytest.fixture
def bundle(phases: Path, tmp_path: Path) -> Path:
    """A bundle with the trained weights, as it is in a MONAI Label app."""
    target = tmp_path / PHASE_BUNDLES[3]
    shutil.copytree(ROOT / "bundles" / PHASE_BUNDLES[3] / "configs", target / "configs")
    shutil.copytree(phases / "phase3" / "models", target / "models")
    return target


@pytest.fixture
def items(tmp_path: Path) -> list[dict[str, str]]:
    """A plain list of three labelled volumes in three orientations."""
    found = []
    for number, axes in enumerate(("LPS", "RAS", "SRP")):
        image, label = draw(50 + number)
        name = f"{number}.nii.gz"
        paths = save(tmp_path / name, image, axes, 8.0), save(tmp_path / "labels" / "final" / name, label, axes, 8.0)
        found.append({"image": str(paths[0]), "label": str(paths[1])})
    return found


def fine_tune(bundle: Path, train: list[Any], validation: list[Any] | None, weights: str = "model.pt") -> None:
    """Train as ``BundleTrainTask`` of MONAI Label does."""
    handlers = json.loads((bundle / "configs" / "train.json").read_text())["train"]["handlers"]
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": str(bundle / "models" / weights),
        "load_dict": {"model": "$@network"},
        "strict": False,
    }
    overrides = {
        "bundle_root": str(bundle),
        "train#trainer#max_epochs": 1,
        "train#dataset#data": train,
        "device": "cpu",
        "train#handlers": [loader, *handlers],
        **({} if validation is None else {"validate#dataset#data": validation}),
    }
    run(3, overrides=overrides, **SETTINGS)


def add_flows(phases: Path, bundle: Path) -> Path:
    for name in ("style_flows.pt", "style_flows.manifest.json"):
        shutil.copy(phases / "phase2" / "models" / name, bundle / "models" / name)
    return bundle / "models" / "style_flows.pt"


def test_fine_tuning_replaces_the_model_and_keeps_the_previous_one(
    bundle: Path, items: list[dict[str, str]], phases: Path
) -> None:
    before = read_manifest(bundle / "models" / "model.pt")
    fine_tune(bundle, items[:2], items[2:])
    after = read_manifest(bundle / "models" / "model.pt", kind="segmentation_network")
    (kept,) = (bundle / "models").glob("model_*.pt")
    assert read_manifest(kept)["sha256"] == before["sha256"]
    assert after["sha256"] != before["sha256"]
    assert after["made_from"] == {"initial_network": {"file": kept.name, "sha256": before["sha256"]}}
    assert {before["sha256"], sha256_file(phases / "phase1" / "models" / "model.pt")} <= set(after["ancestors"])
    assert (after["method"], after["phase"], after["source_domain"]) == ("fine_tuning", 3, before["source_domain"])
    assert after["cases"] == {"train": ["0.nii.gz", "1.nii.gz"], "validation": ["2.nii.gz"]}
    assert after["checkpoint"]["selection"] == "best source validation"
    assert after["settings"]["max_epochs"] == 1
    assert after["task"] == before["task"]
    assert not (bundle / "checkpoints").exists()
    assert not (bundle / "panels").exists()


def test_second_fine_tuning_starts_from_the_first_and_not_from_its_checkpoint(
    bundle: Path, items: list[dict[str, str]]
) -> None:
    for _ in range(2):
        before = read_manifest(bundle / "models" / "model.pt")
        fine_tune(bundle, items[:2], [])
        after = read_manifest(bundle / "models" / "model.pt")
        assert after["made_from"]["initial_network"]["sha256"] == before["sha256"]
    assert len(list((bundle / "models").glob("model_*.pt"))) == 2
    # Without validation cases nothing can be selected.
    assert after["checkpoint"]["selection"] == "last"


def test_flows_of_an_ancestor_that_lie_in_the_bundle_are_used(
    bundle: Path, items: list[dict[str, str]], phases: Path
) -> None:
    flows = add_flows(phases, bundle)
    fine_tune(bundle, items[:2], items[2:])
    after = read_manifest(bundle / "models" / "model.pt")
    assert after["made_from"]["style_flows"]["sha256"] == sha256_file(flows)
    assert after["method"] == "mixstyleflow"


def test_flows_of_another_network_are_refused(bundle: Path, items: list[dict[str, str]], phases: Path) -> None:
    flows = add_flows(phases, bundle)
    manifest = read_manifest(flows)
    manifest["made_from"]["network"]["sha256"] = "0" * 64
    write_json(flows.with_name("style_flows.manifest.json"), manifest)
    assert_refused(bundle, items, "its styles describe the network 000000000000")


def assert_refused(bundle: Path, items: list[dict[str, str]], *parts: str, weights: str = "model.pt") -> None:
    """Fine-tuning ends with one mistake of the user's, and the model is as before."""
    model = bundle / "models" / "model.pt"
    before = model.read_bytes() if model.exists() else None
    with pytest.raises((RuntimeError, ValueError, FileNotFoundError)) as caught:
        fine_tune(bundle, items[:2], items[2:], weights)
    error: BaseException = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, ValueError | FileNotFoundError), repr(error)
    assert [part for part in parts if part not in str(error)] == [], str(error)
    assert (model.read_bytes() if model.exists() else None) == before


def test_missing_weights_are_refused(bundle: Path, items: list[dict[str, str]]) -> None:
    (bundle / "models" / "model.pt").unlink()
    assert_refused(bundle, items, "models/model.pt: no such file")


def test_weights_that_are_not_those_of_the_manifest_are_refused(bundle: Path, items: list[dict[str, str]]) -> None:
    save_state_dict(DualDecoderNet(1, 2), bundle / "models" / "model.pt")
    assert_refused(bundle, items, "models/model.pt: SHA-256", "replaced or damaged")


def test_wrong_region_count_is_refused(bundle: Path, items: list[dict[str, str]]) -> None:
    write_weights_of_one_region(bundle)
    assert_refused(bundle, items, "weights of another network", "file (1, 16, 1, 1), network (2, 16, 1, 1)")


def write_weights_of_one_region(bundle: Path) -> None:
    model = bundle / "models" / "model.pt"
    manifest = read_manifest(model)
    save_state_dict(DualDecoderNet(1, 1), model)
    write_json(model.with_name("model.manifest.json"), {**manifest, "sha256": sha256_file(model)})


def test_other_weights_than_the_published_ones_are_not_fine_tuned(bundle: Path, items: list[dict[str, str]]) -> None:
    save_state_dict(DualDecoderNet(1, 2), bundle / "models" / "other.pt")
    assert_refused(bundle, items, "Only model.pt can be fine-tuned", weights="other.pt")


def test_file_that_holds_no_weights_of_the_network_is_not_skipped(
    bundle: Path, items: list[dict[str, str]], phases: Path
) -> None:
    add_flows(phases, bundle)
    assert_refused(bundle, items, "weights of another network", weights="style_flows.pt")


def test_unknown_label_value_is_refused(bundle: Path, items: list[dict[str, str]]) -> None:
    save(Path(items[1]["label"]), 3 * draw(51)[1], "RAS", 8.0)
    assert_refused(bundle, items, "labels/final/1.nii.gz: has the label values 3, 6")


@pytest.fixture
def opened(bundle: Path) -> Callable[[], ConfigParser]:
    """Opens inference.json as ``BundleInferTask`` of MONAI Label does."""

    def open_it() -> ConfigParser:
        parser = ConfigParser()
        parser.read_config(str(bundle / "configs" / "inference.json"))
        parser.config.update({"bundle_root": str(bundle), "device": "cpu"})  # type: ignore[union-attr]
        return parser

    return open_it


def test_inference_gives_an_integer_map_on_the_grid_of_the_image(
    bundle: Path, opened: Callable[[], ConfigParser], items: list[dict[str, str]]
) -> None:
    parser = opened()
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True), strict=False)
    for item in items:
        data: dict[Any, Any] = {"image": item["image"], "image_path": item["image"]}
        for step in parser.get_parsed_content("preprocessing").transforms:
            data = step(data)
        with torch.no_grad():
            data["pred"] = parser.get_parsed_content("inferer")(data["image"][None], network.eval())[0]
        for step in parser.get_parsed_content("postprocessing").transforms[:-1]:
            data = step(data)
        original = data["image"].meta
        assert data["pred"].shape == (1, *original["spatial_shape"])
        assert data["pred"].dtype == torch.uint8
        assert set(torch.unique(torch.as_tensor(data["pred"])).tolist()) <= {0, 1, 2}
        np.testing.assert_allclose(data["pred"].affine, original["original_affine"], atol=1e-5)


def test_inference_refuses_missing_weights_other_weights_and_another_region_count(
    bundle: Path, opened: Callable[[], ConfigParser]
) -> None:
    write_weights_of_one_region(bundle)
    network = opened().get_parsed_content("network_def")
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    with pytest.raises(ValueError, match=r"weights of another network.*file \(1, 16, 1, 1\), network \(2, 16, 1, 1\)"):
        network.load_state_dict(state, strict=False)
    save_state_dict(DualDecoderNet(1, 2), bundle / "models" / "model.pt")
    with pytest.raises(RuntimeError) as caught:
        opened().get_parsed_content("network_def")
    assert "replaced or damaged" in innermost(caught.value)
    (bundle / "models" / "model.pt").unlink()
    with pytest.raises((RuntimeError, FileNotFoundError)) as missing:
        opened().get_parsed_content("preprocessing")({"image": "x.nii.gz"})
    assert "models/model.pt: no such file" in innermost(missing.value)


def innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)
