"""Tests of fine-tuning on a plain list of images and labels."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Engine

from mixstyleflow_monai.artifacts import check_lineage, manifest_path, read_manifest, sha256_file, write_manifest
from mixstyleflow_monai.data import Task
from mixstyleflow_monai.engines import save_state_dict
from mixstyleflow_monai.engines.fine_tuning import (
    DatasetFile,
    StartingWeights,
    describe_list,
    inherited_facts,
    is_plain_list,
    keep_previous,
    training_data,
    validation_slices,
)
from mixstyleflow_monai.networks import DualDecoderNet

TASK = Task(1, {"organ": [1, 2], "core": [2]}, (32, 32), spatial_dims=3)


def write_pair(folder: Path, name: str, values: tuple[int, ...] = (0, 1, 2), shape: tuple[int, ...] = (8, 9, 3)) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"image": folder / f"{name}.nii.gz", "label": folder / f"{name}_label.nii.gz"}
    image = np.random.default_rng(len(name)).random(shape).astype(np.float32)
    label = np.resize(np.array(values, dtype=np.uint8), shape[:3])
    for key, array in (("image", image), ("label", label)):
        nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 3.0, 1.0])), paths[key])
    return {key: str(path) for key, path in paths.items()}


def write_network(path: Path, seed: int = 0, **facts: Any) -> Path:
    torch.manual_seed(seed)
    save_state_dict(DualDecoderNet(1, 2), path)
    facts = {"task": TASK.to_json(), "source_domain": "home", "training_images_sha256": ["a" * 64], **facts}
    write_manifest(path, "segmentation_network", facts=facts)
    return path


@pytest.mark.parametrize(
    ("items", "plain"),
    [
        ([{"image": "a", "label": "b"}], True),
        ([{"image": "a", "label": "b", "case_id": "c", "domain": "d"}], False),
        ([{"image": "a", "label": "b", "case_id": "c"}, {"image": "e", "label": "f"}], True),
        ([], True),
    ],
)
def test_a_list_whose_items_name_no_case_is_plain(items: list[dict[str, str]], plain: bool) -> None:
    assert is_plain_list(items) is plain


def test_previous_network_is_kept_under_a_name_with_its_date_and_hash(tmp_path: Path) -> None:
    path = write_network(tmp_path / "model.pt")
    before = read_manifest(path)
    kept = Path(keep_previous(path))
    day = before["created"][:10].replace("-", "")
    assert kept.name.startswith(f"model_{day}T")
    assert kept.name.endswith(f"Z_{before['sha256'][:8]}.pt")
    assert sha256_file(kept) == before["sha256"]
    assert read_manifest(kept) == {**before, "file": kept.name}
    assert keep_previous(path) == str(kept)
    write_network(path, seed=1)
    other = Path(keep_previous(path))
    assert other != kept
    assert read_manifest(kept)["sha256"] == before["sha256"]
    assert read_manifest(other)["sha256"] == sha256_file(path)


def test_network_is_not_kept_if_it_is_not_the_one_of_its_manifest(tmp_path: Path) -> None:
    path = write_network(tmp_path / "model.pt")
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"SHA-256 .* differs"):
        keep_previous(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.manifest.json", "model.pt"]


def test_fine_tuned_network_descends_from_the_kept_one_and_its_ancestors(tmp_path: Path) -> None:
    first = write_network(tmp_path / "phase1" / "model.pt")
    path = tmp_path / "model.pt"
    save_state_dict(DualDecoderNet(1, 2), path)
    write_manifest(path, "segmentation_network", made_from={"initial_network": first})
    kept = keep_previous(path)
    save_state_dict(DualDecoderNet(1, 2), path)
    write_manifest(path, "segmentation_network", made_from={"initial_network": kept})
    flows = {"file": "style_flows.pt", "made_from": {"network": {"sha256": sha256_file(first)}}}
    check_lineage(read_manifest(path), flows)
    flows["made_from"]["network"]["sha256"] = sha256_file(kept)  # type: ignore[index]
    check_lineage(read_manifest(path), flows)


def test_plain_list_becomes_a_data_set_of_the_network_s_source_domain(tmp_path: Path) -> None:
    path = write_network(tmp_path / "model.pt")
    train, validation = [write_pair(tmp_path / "a", "x"), write_pair(tmp_path / "b", "x")], [write_pair(tmp_path, "y")]
    # The configuration's own data set is not looked at.
    found = training_data(DatasetFile(tmp_path / "nowhere"), train, validation, TASK, path)
    assert found.domains == ["home"]
    assert [case.id for case in found.select("train")] == ["a/x.nii.gz", "b/x.nii.gz"]
    assert [case.id for case in found.select("validation")] == ["y.nii.gz"]
    assert found.regions == TASK.regions
    assert found.cases[0].sha256["image"] == sha256_file(train[0]["image"])
    assert found.sha256 != training_data(DatasetFile("nowhere"), train[:1], validation, TASK, path).sha256


def test_data_set_file_is_read_only_when_it_is_asked_for(tmp_path: Path) -> None:
    file = DatasetFile(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"nowhere.dataset\.json: no such file"):
        file.datalist("train")


def test_missing_validation_set_of_the_configuration_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    class Missing(list[Any]):
        missing = "dataset/dataset.json: no such file."

    path = write_network(tmp_path / "model.pt")
    with pytest.raises(FileNotFoundError, match=r"dataset\.json: no such file.*val_split from 0 to 1"):
        training_data(DatasetFile("nowhere"), [write_pair(tmp_path, "x")], Missing(), TASK, path)


def test_empty_list_is_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"list of labelled images to train on is empty.*val_split"):
        describe_list([], [], TASK, "home")


def test_file_of_the_list_that_is_missing_is_named(tmp_path: Path) -> None:
    item = write_pair(tmp_path, "x")
    Path(item["label"]).unlink()
    with pytest.raises(FileNotFoundError, match=r"x_label\.nii\.gz: no such file, but it is in the list"):
        describe_list([item], [], TASK, "home")


def test_unknown_label_values_are_refused_with_those_that_are_known(tmp_path: Path) -> None:
    items = [write_pair(tmp_path, "x"), write_pair(tmp_path, "y", values=(0, 2, 7))]
    with pytest.raises(ValueError, match=r"y_label\.nii\.gz: has the label values 7, but the network knows only"):
        describe_list(items, [], TASK, "home")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_image_of_another_grid_than_its_label_is_refused(split: str, tmp_path: Path) -> None:
    good, bad = write_pair(tmp_path, "x"), write_pair(tmp_path, "y")
    bad["label"] = write_pair(tmp_path, "zz", shape=(9, 9, 3))["label"]
    lists = {"train": [good], "validation": [], split: [good, bad]}
    with pytest.raises(ValueError, match=r"y\.nii\.gz.*has shape .* its label"):
        describe_list(lists["train"], lists["validation"], TASK, "home")


def test_volume_of_several_channels_is_refused(tmp_path: Path) -> None:
    item = write_pair(tmp_path, "x", shape=(8, 9, 3, 2))
    with pytest.raises(ValueError, match=r"x\.nii\.gz"):
        describe_list([item], [], TASK, "home")


def test_images_that_the_network_was_trained_on_before_are_recorded_as_well(tmp_path: Path) -> None:
    path = write_network(tmp_path / "model.pt")
    item = write_pair(tmp_path, "x")
    description = describe_list([item], [], TASK, "home")
    arguments: dict[str, Any] = {"bundle": "b", "phase": 3, "description": description, "task": TASK, "seed": 0}
    facts = inherited_facts(path, **arguments, settings={}, method="fine_tuning")
    assert facts["training_images_sha256"] == sorted(["a" * 64, sha256_file(item["image"])])
    assert facts["method"] == "fine_tuning"
    again = write_network(tmp_path / "again.pt", training_images_sha256=facts["training_images_sha256"])
    assert inherited_facts(again, **arguments, settings={})["training_images_sha256"] == facts["training_images_sha256"]


def test_validation_without_images_shows_those_of_the_training_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train, other = [write_pair(tmp_path, "x")], [write_pair(tmp_path, "y"), write_pair(tmp_path, "z")]
    settings: dict[str, Any] = {"transform": TASK.training_preprocessing(), "progress": False}
    assert validation_slices(other, train, **settings).data == other
    assert not caplog.records
    assert validation_slices([], train, **settings).data == train
    assert "no image is kept for validation" in caplog.text


def test_training_does_not_start_from_weights_that_the_manifest_would_not_name(tmp_path: Path) -> None:
    path = write_network(tmp_path / "model.pt")
    network = DualDecoderNet(1, 2)
    engine = Engine(lambda *_: None)
    StartingWeights(network, path).attach(engine)
    with pytest.raises(ValueError, match=r"weights loaded to fine-tune are not those of .*model\.pt"):
        engine.run([0])
    network.load_state_dict(torch.load(path, weights_only=True))
    StartingWeights(network, path)(SimpleNamespace())
    assert manifest_path(path).is_file()
