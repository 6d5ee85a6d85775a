"""Metadata and documents of a packed bundle are those of its weights."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir
from mixstyleflow_monai.data import Task
from mixstyleflow_monai.packing.description import (
    PLACE,
    SHIPPED_TASK,
    WITHOUT_WEIGHTS,
    data_licence,
    describe_metadata,
    describe_readme,
    label_names,
    performance_section,
)
from mixstyleflow_monai.packing.weights import find_weights

SCHEMA = Path(__file__).resolve().parents[1] / "bundles" / "meta_schema_20240725.json"


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        ({"prostate": [1, 2]}, {"0": "background", "1": "prostate"}),
        ({"disc": [1, 2], "cup": [2]}, {"0": "background", "1": "disc", "2": "cup"}),
        ({"cup": [2], "disc": [1, 2]}, {"0": "background", "1": "disc", "2": "cup"}),
        ({"a": [3], "b": [5]}, {"0": "background", "3": "a", "5": "b"}),
    ],
)
def test_labels_are_those_that_inference_writes(regions: dict[str, list[int]], expected: dict[str, str]) -> None:
    assert label_names(Task(in_channels=1, regions=regions, image_size=(32, 32))) == expected


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_metadata_describe_the_task_of_the_weights_and_stay_valid(phase: int, outputs: dict[int, Path]) -> None:
    shipped = json.loads((bundles_dir() / PHASE_BUNDLES[phase] / "configs" / "metadata.json").read_text())
    weights = find_weights(phase, outputs[phase])
    content = describe_metadata(shipped, weights)
    jsonschema.validate(content, json.loads(SCHEMA.read_text()))
    network = content["network_data_format"]
    assert network["inputs"]["image"]["num_channels"] == 3
    assert network["outputs"]["pred"]["num_channels"] == 2
    assert network["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "disc", "2": "cup"}
    assert content["reconstruction_data_format"]["outputs"]["reconstruction"]["num_channels"] == 3
    assert "'discs'" in content["data_source"]
    assert "prostate" not in json.dumps(content)
    assert content["version"] in content["changelog"]
    assert shipped["eval_metrics"] == {}
    assert content["eval_metrics"] == weights.evaluation


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
@pytest.mark.parametrize(
    ("facts", "value_range", "words"),
    [
        ({"intensity": "slice_range"}, [0, 1], "3 channel(s), scaled to [0, 1] for the network"),
        (
            {"intensity": "z_score", "image_activation": "instance_norm"},
            [],
            "3 channel(s), z-scored slice by slice for the network",
        ),
    ],
)
def test_range_of_the_images_is_that_of_the_task(
    facts: dict[str, str], value_range: list[int], words: str, phase: int, outputs: dict[int, Path]
) -> None:
    shipped = json.loads((bundles_dir() / PHASE_BUNDLES[phase] / "configs" / "metadata.json").read_text())
    found = find_weights(phase, outputs[phase])
    content = describe_metadata(shipped, replace(found, task=replace(found.task, **facts)))  # type: ignore[arg-type]
    jsonschema.validate(content, json.loads(SCHEMA.read_text()))
    assert content["image_classes"] == words
    assert content["network_data_format"]["inputs"]["image"]["value_range"] == value_range
    for part in ("inputs", "outputs"):
        for entry in content["reconstruction_data_format"][part].values():
            assert entry["value_range"] == value_range
    assert content["network_data_format"]["outputs"]["pred"]["value_range"] == []


def test_metrics_are_what_the_evaluation_wrote(outputs: dict[int, Path]) -> None:
    weights = find_weights(3, outputs[3])
    assert describe_metadata({"network_data_format": {"inputs": {}, "outputs": {"pred": {}}}}, weights)[
        "eval_metrics"
    ] == json.loads((outputs[3] / "evaluation.json").read_text())


def test_readme_gets_a_row_a_domain_and_region(outputs: dict[int, Path]) -> None:
    weights = find_weights(3, outputs[3])
    text = describe_readme(
        "before\n<!-- performance -->\nold\n<!-- end of performance -->\nafter", weights, PHASE_BUNDLES[3]
    )
    assert "| site_a | source | disc | 2 | 90.0 ± 1.5 | 2.00 ± 0.25 px |" in text
    assert "| site_a | source | cup | 2 | 80.0 | - px |" in text
    assert f"data set 'discs and another clinic' (dataset.json with SHA-256 {'1' * 64})" in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter")
    assert "old" not in text


def test_readme_says_when_nothing_was_measured(own_outputs: dict[int, Path]) -> None:
    (own_outputs[3] / "evaluation.json").unlink()
    assert "packed without an evaluation" in performance_section(find_weights(3, own_outputs[3]))


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_readme_of_every_bundle_can_be_filled(phase: int, outputs: dict[int, Path]) -> None:
    shipped = (bundles_dir() / PHASE_BUNDLES[phase] / "docs" / "README.md").read_text(encoding="utf-8")
    assert WITHOUT_WEIGHTS in shipped
    assert PLACE in shipped
    text = describe_readme(shipped, find_weights(phase, outputs[phase]), PHASE_BUNDLES[phase])
    assert WITHOUT_WEIGHTS not in text
    assert PLACE not in text
    assert "No weights come with the bundle" not in text
    assert (SHIPPED_TASK in shipped) == (phase != 2)
    described = "3 channel(s), scaled to [0, 1] for the network; regions: disc (label values [1, 2]), cup (label"
    assert (described in text) == (phase != 2)
    assert SHIPPED_TASK not in text


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_commands_name_files_where_they_are_in_the_packed_bundle(phase: int, outputs: dict[int, Path]) -> None:
    bundle = bundles_dir() / PHASE_BUNDLES[phase]
    shipped = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    text = describe_readme(shipped, find_weights(phase, outputs[phase]), bundle.name)
    commands = "".join(re.findall(r"^```\w+\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL))
    assert "bundles/" not in commands
    files = set(re.findall(r"[\w./]*configs/[\w./]+\.json", commands))
    assert {f"configs/{name}.json" for name in ("train", "evaluate", "inference", "metadata", "demo")} <= files
    assert [file for file in sorted(files) if not (bundle / file).is_file()] == []


def test_files_of_other_bundles_are_looked_for_beside_the_packed_one(outputs: dict[int, Path]) -> None:
    text = "<!-- performance --><!-- end of performance -->\n" + " ".join(
        f"bundles/{b}/x" for b in PHASE_BUNDLES.values()
    )
    filled = describe_readme(text, find_weights(3, outputs[3]), PHASE_BUNDLES[3])
    assert filled.splitlines()[-1] == f"../{PHASE_BUNDLES[1]}/x ../{PHASE_BUNDLES[2]}/x x"


def test_readme_without_a_place_for_the_performance_is_refused(outputs: dict[int, Path]) -> None:
    with pytest.raises(ValueError, match="no lines <!-- performance -->"):
        describe_readme("# Readme", find_weights(3, outputs[3]), PHASE_BUNDLES[3])


@pytest.mark.parametrize(("given", "expected"), [("CC0, from x", "CC0, from x"), (None, "were not stated")])
def test_licence_of_the_data_is_what_was_stated(given: str | None, expected: str, outputs: dict[int, Path]) -> None:
    text = data_licence(find_weights(3, outputs[3]), given)
    assert expected in text
    assert "'discs'" in text
