"""Tests of what a phase records and refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mixstyleflow_monai.artifacts import case_counts, manifest_path, read_manifest, write_json, write_manifest
from mixstyleflow_monai.data import Case, DatasetDescription, Task
from mixstyleflow_monai.engines import (
    TrainingIdentity,
    check_training_data,
    copy_network,
    load_style_flows,
    save_state_dict,
    training_facts,
)
from mixstyleflow_monai.flows import StyleFlowBank


def write_network(path: Path, seed: int, parent: Path | None = None) -> Path:
    torch.manual_seed(seed)
    save_state_dict(torch.nn.Linear(2, 2), path)
    write_manifest(path, "segmentation_network", made_from={} if parent is None else {"initial_network": parent})
    return path


def write_flows(path: Path, network: Path) -> Path:
    bank = StyleFlowBank({2: 4}, {2: 2.0})
    bank.initialize({2: (torch.randn(16, 4), torch.rand(16, 4) + 0.5)})
    bank.save(path)
    write_manifest(path, "style_flows", made_from={"network": network})
    return path


def test_flows_of_this_network_or_of_an_ancestor_load(tmp_path: Path) -> None:
    network = write_network(tmp_path / "a.pt", 0)
    flows = write_flows(tmp_path / "style_flows.pt", network)
    child = write_network(tmp_path / "b.pt", 1, parent=network)
    grandchild = write_network(tmp_path / "c.pt", 2, parent=child)
    for start in (network, child, grandchild):
        assert load_style_flows(flows, start).levels == (2,)


def test_flows_of_another_network_are_refused_with_both_hashes(tmp_path: Path) -> None:
    network, other = write_network(tmp_path / "a.pt", 0), write_network(tmp_path / "b.pt", 1)
    flows = write_flows(tmp_path / "style_flows.pt", network)
    with pytest.raises(ValueError, match=r"style_flows.pt: its styles describe the network") as error:
        load_style_flows(flows, other)
    for path in (network, other):
        assert read_manifest(path)["sha256"][:12] in str(error.value)


def test_damaged_flows_and_wrong_kinds_are_refused(tmp_path: Path) -> None:
    network = write_network(tmp_path / "a.pt", 0)
    flows = write_flows(tmp_path / "style_flows.pt", network)
    with pytest.raises(ValueError, match="this is a 'segmentation_network', expected a 'style_flows'"):
        load_style_flows(network, network)
    with flows.open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(ValueError, match=r"style_flows.pt: SHA-256 .* differs"):
        load_style_flows(flows, network)


def test_copied_network_is_the_same_and_a_damaged_copy_is_replaced(tmp_path: Path) -> None:
    network = write_network(tmp_path / "a.pt", 0)
    target = tmp_path / "phase2" / "model.pt"
    copy_network(network, target)
    assert read_manifest(target)["sha256"] == read_manifest(network)["sha256"]
    before = target.stat().st_mtime_ns
    copy_network(network, target)
    assert target.stat().st_mtime_ns == before
    target.write_bytes(b"damaged")
    copy_network(network, target)
    assert target.read_bytes() == network.read_bytes()
    assert copy_network(network, network) == str(network)


def test_the_folder_of_phase_1_is_no_output_of_phase_2(tmp_path: Path) -> None:
    network = write_network(tmp_path / "models" / "model.pt", 0)
    (tmp_path / "checkpoints").mkdir()
    checkpoint = tmp_path / "checkpoints" / "checkpoint_epoch=3.pt"
    torch.save({"identity": {"phase": "2"}}, checkpoint)
    assert copy_network(network, network) == str(network)
    torch.save({"identity": {"phase": "1"}}, checkpoint)
    with pytest.raises(ValueError, match=r"^output_dir: phase 1 was trained in .*another --output_dir, .*--phase1_dir"):
        copy_network(network, network)
    copy_network(network, tmp_path / "phase2" / "models" / "model.pt")


def test_a_checkpoint_of_another_phase_is_told_in_one_line() -> None:
    one, two = (TrainingIdentity({"phase": phase, "settings": {"name": phase}}) for phase in (1, 2))
    with pytest.raises(ValueError, match=r"is of phase 1, and this is phase 2\. Give each .* own --output_dir\.$"):
        two.load_state_dict(one.state_dict())


def description(folder: Path, splits: dict[str, str], source: str = "home") -> DatasetDescription:
    """A described data set, without files: image names and splits."""
    cases = tuple(
        Case(
            name,
            source if not name.startswith("far") else "far",
            name,
            split,
            folder / f"{name}.png",
            folder / f"{name}_label.png",
            {"image": f"hash of {name}"},
            None,
        )
        for name, split in splits.items()
    )
    return DatasetDescription(folder / "dataset.json", "discs", 2, 1, {"disc": [1]}, source, cases, {}, "0")


def write_trained(path: Path, trained_on: DatasetDescription) -> Path:
    save_state_dict(torch.nn.Linear(2, 2), path)
    task = Task(1, {"disc": [1]}, (32, 32))
    facts = training_facts("phase1_base_segmentation", 1, trained_on, task, 0, {})
    write_manifest(path, "segmentation_network", facts=facts)
    return path


def test_images_of_the_training_are_no_test_cases_of_another_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixstyleflow_monai.engines.lineage.check_headers", lambda found: found)
    own = description(tmp_path, {"a": "train", "b": "validation", "c": "test", "far1": "test"})
    model = write_trained(tmp_path / "model.pt", own)
    assert check_training_data(model, own) is own
    other = description(tmp_path, {"a": "test", "b": "test", "c": "train", "far1": "test"})
    with pytest.raises(ValueError, match=r"2 test cases, among them \['a', 'b'\], were trained on"):
        check_training_data(model, other)


def test_images_of_the_training_written_anew_are_known_by_their_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixstyleflow_monai.engines.lineage.check_headers", lambda found: found)
    split = {"a": "train", "b": "validation", "c": "test", "far1": "test"}
    model = write_trained(tmp_path / "model.pt", description(tmp_path, split))
    cropped = description(tmp_path, {"a": "test", "b": "train", "c": "test", "far1": "test"})
    anew = [replace(case, sha256={"image": f"cropped {case.id}"}) for case in cropped.cases]
    cropped = replace(cropped, cases=tuple(anew))
    with pytest.raises(ValueError, match=r"1 source test cases, among them \['a'\], have the ids of .*other ids"):
        check_training_data(model, cropped)
    # A packed network counts its cases only.
    manifest = read_manifest(model)
    write_json(manifest_path(model), {**manifest, "cases": case_counts(manifest)})
    assert check_training_data(model, cropped) is cropped


def test_another_source_domain_is_refused_with_the_remedy(tmp_path: Path) -> None:
    model = write_trained(tmp_path / "model.pt", description(tmp_path, {"a": "train", "far1": "test"}))
    turned = description(tmp_path, {"a": "train"}, source="away")
    with pytest.raises(ValueError, match=r"trained on source domain 'home'.*'away'.*resplit .* --source home"):
        check_training_data(model, turned)
