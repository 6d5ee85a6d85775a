"""The task: facts that travel with a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mixstyleflow_monai.artifacts import manifest_path, write_manifest
from mixstyleflow_monai.data import DatasetDescription, Task
from mixstyleflow_monai.networks import DualDecoderNet

FACTS: dict[str, Any] = {"in_channels": 1, "regions": {"disc": [1, 2], "cup": [2]}, "image_size": [48, 32]}


def description(spatial_dims: int = 3, **changes: Any) -> DatasetDescription:
    settings: dict[str, Any] = {
        "path": Path("somewhere/dataset.json"),
        "name": "some",
        "spatial_dims": spatial_dims,
        "channels": 1,
        "regions": {"disc": [1, 2], "cup": [2]},
        "source_domain": "A",
        "cases": (),
        "processing": {},
        "sha256": "0" * 64,
    }
    return DatasetDescription(**{**settings, **changes})


def test_json_round_trip_rebuilds_the_task() -> None:
    task = Task(**FACTS, spatial_dims=3, pixel_spacing=[0.5, 0.5], percentiles=[1, 99], activation="softmax")
    again = Task(**json.loads(json.dumps(task.to_json())))
    assert again == task
    assert again.image_size == (48, 32)
    assert again.pixel_spacing == (0.5, 0.5)


def test_volumes_are_clipped_and_resampled_and_images_are_not() -> None:
    volume = Task.from_dataset(description(3), [96, 96], pixel_spacing=[0.6, 0.6])
    assert (volume.percentiles, volume.pixel_spacing, volume.spatial_dims) == ((2.0, 98.0), (0.6, 0.6), 3)
    image = Task.from_dataset(description(2, channels=3), [96, 96], pixel_spacing=[0.6, 0.6])
    assert (image.percentiles, image.pixel_spacing, image.in_channels) == (None, None, 3)
    assert Task.from_dataset(description(3), [96, 96], percentiles=None).percentiles is None
    assert Task.from_dataset(description(2), [96, 96], percentiles=[1, 99]).percentiles == (1.0, 99.0)


def test_z_score_comes_with_the_network_that_rebuilds_it() -> None:
    volume, image = (Task.from_dataset(description(dims), [96, 96], intensity="z_score") for dims in (3, 2))
    assert volume.percentiles == (2.0, 98.0)
    assert image.percentiles is None
    assert volume.image_activation == image.image_activation == "instance_norm"
    assert Task(**json.loads(json.dumps(image.to_json()))) == image
    with pytest.raises(ValueError, match="image_activation='sigmoid' with intensity='z_score'"):
        Task.from_dataset(description(2), [96, 96], intensity="z_score", image_activation="sigmoid")


@pytest.mark.parametrize(("activation", "channels"), [("sigmoid", 2), ("softmax", 3)])
def test_network_settings_build_the_network(activation: str, channels: int) -> None:
    task = Task(**FACTS, activation=activation)
    network = DualDecoderNet(**task.network_settings()).eval()
    assert network(torch.zeros(1, 1, *task.image_size)).shape == (1, channels, 48, 32)
    assert task.out_channels == channels


def test_another_size_leaves_the_rest() -> None:
    task = Task(**FACTS)
    assert task.with_image_size([64, 64]).to_json() == {**task.to_json(), "image_size": [64, 64]}
    assert task.image_size == (48, 32)


def test_model_s_manifest_wins_over_the_defaults(tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    defaults = {**FACTS, "in_channels": 3}
    assert Task.from_model(model, defaults).in_channels == 3
    model.write_bytes(b"weights")
    write_manifest(model, "segmentation_network", facts={"task": Task(**FACTS).to_json()})
    assert Task.from_model(model, defaults) == Task.from_model(model) == Task(**FACTS)


def test_model_without_its_manifest_is_refused_rather_than_guessed(tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    with pytest.raises(FileNotFoundError, match=r"model\.pt: no such file. Run the phase that makes it"):
        Task.from_model(model)
    model.write_bytes(b"weights")
    with pytest.raises(FileNotFoundError, match=r"model\.manifest\.json: no such file. Copy the manifest"):
        Task.from_model(model, FACTS)


@pytest.mark.parametrize("facts", [{}, {"task": {**FACTS, "future": 1}}])
def test_manifest_without_a_readable_task_names_the_file(facts: dict[str, Any], tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    model.write_bytes(b"weights")
    write_manifest(model, "segmentation_network", facts=facts)
    with pytest.raises(ValueError, match=rf"{manifest_path(model).name}: no task of this version"):
        Task.from_model(model)


def test_data_set_of_another_task_is_refused_naming_both() -> None:
    task = Task.from_dataset(description(3), [96, 96])
    fitting = description(3)
    assert task.check_dataset(fitting) is fitting
    turned = description(3, regions={"cup": [2], "disc": [2, 1]})
    assert task.check_dataset(turned) is turned
    for changes, message in (
        ({"channels": 3}, "channels is 3, but the model was trained with 1"),
        ({"regions": {"cup": [2]}}, r"regions is \{'cup': \[2\]\}, but"),
    ):
        with pytest.raises(ValueError, match=f"dataset.json: {message}"):
            task.check_dataset(description(3, **changes))
    with pytest.raises(ValueError, match="spatial_dims is 2, but the model was trained with 3"):
        task.check_dataset(description(2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": [50, 96]}, r"image_size=\[50, 96\]: expected two multiples of 16.*Use \[64, 96\]"),
        ({"image_size": [0, 16]}, r"image_size=\[0, 16\].*Use \[16, 16\]"),
        ({"image_size": [96]}, r"image_size=\[96\]: expected two"),
        ({"image_size": 96}, r"image_size=96: expected two numbers, \[width, height\], multiples of 16"),
        ({"image_size": "large"}, r"image_size='large': expected two numbers, \[width, height\], multiples of 16"),
        ({"image_size": "224"}, r"image_size=\[224\]: expected two multiples of 16"),
        ({"image_size": None}, r"image_size=None: expected two numbers"),
        ({"image_size": ["224", "wide"]}, r"image_size=\['224', 'wide'\]: expected two numbers"),
        ({"image_size": [224.5, 224]}, r"image_size=\[224\.5, 224\.0\]: expected two whole numbers"),
        ({"image_size": [float("nan"), 224]}, r"image_size=\[nan, 224\.0\]: expected two whole numbers"),
        ({"intensity": ["low", 240]}, r"intensity=\['low', 240\]: expected two numbers, a window \[low, high\]"),
        ({"intensity": 240}, r"intensity=240: expected two numbers, a window \[low, high\]"),
        ({"spatial_dims": 4}, r"spatial_dims=4: expected 2 \(images\) or 3 \(volumes\)"),
        ({"pixel_spacing": [0.5]}, r"pixel_spacing=\[0\.5\]: expected two positive numbers"),
        ({"pixel_spacing": [0.5, 0.0]}, "pixel_spacing=.*positive"),
        ({"percentiles": [98, 2]}, r"percentiles=\[98\.0, 2\.0\]: expected 0 <= low < high <= 100"),
        ({"regions": {"disc": [0]}}, "label values must be from 1 to 255"),
        ({"activation": "tanh"}, "activation='tanh'"),
    ],
)
def test_impossible_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Task(**{**FACTS, **changes})


def test_preprocessing_of_each_use_loads_what_it_needs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (20, 30), dtype=np.uint8)).save(tmp_path / "image.png")
    Image.fromarray(rng.integers(0, 3, (20, 30), dtype=np.uint8)).save(tmp_path / "label.png")
    item = {"image": str(tmp_path / "image.png"), "label": str(tmp_path / "label.png")}
    task = Task(**FACTS)
    training = task.training_preprocessing()(item)
    assert training["image"].shape == (1, 48, 32)
    assert training["label"].shape == (2, 48, 32)
    assert task.inference_preprocessing()({"image": item["image"]})["image"].shape == (1, 48, 32)
    # The reference of the evaluation stays as it is on disk, horizontal axis first.
    evaluation = task.evaluation_preprocessing()(item)
    assert evaluation["image"].shape == (1, 48, 32)
    assert evaluation["label"].shape == (1, 30, 20)
    assert set(evaluation["label"].unique().tolist()) == {0, 1, 2}


def test_the_word_null_of_a_command_line_is_none() -> None:
    task = Task.from_dataset(description(3), [32, 32], pixel_spacing="null", percentiles="null")
    assert (task.pixel_spacing, task.percentiles) == (None, None)


@pytest.mark.parametrize("name", ["pixel_spacing", "percentiles"])
def test_a_word_in_place_of_numbers_is_refused_by_the_name_of_the_option(name: str) -> None:
    settings: dict[str, Any] = {name: "wide"}
    with pytest.raises(ValueError, match=f"{name}='wide': expected two numbers"):
        Task(in_channels=1, regions={"disc": [1]}, image_size=(32, 32), spatial_dims=3, **settings)
