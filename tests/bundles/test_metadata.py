"""The bundles are what MONAI's own checks and the Model Zoo expect."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import monai.bundle
import pytest

import mixstyleflow_monai
from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.flows import StyleFlowBank
from mixstyleflow_monai.networks import DualDecoderNet

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
REQUIRED = (
    "schema",
    "version",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "required_packages_version",
    "task",
    "description",
    "authors",
    "copyright",
    "network_data_format",
)
TENSOR = {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range"}

every_bundle = pytest.mark.parametrize("bundle", PHASE_BUNDLES.values())


@pytest.fixture
def schema_copy(tmp_path: Path) -> Path:
    """A copy of the metadata schema: the official one is a download, and tests do without the network."""
    return Path(shutil.copy(Path(__file__).with_name("meta_schema_20240725.json"), tmp_path / "schema.json"))


def configs(bundle: str) -> Path:
    """Folder of a bundle's configurations."""
    return ROOT / "bundles" / bundle / "configs"


def metadata(bundle: str) -> dict[str, Any]:
    """Metadata of a bundle."""
    loaded: dict[str, Any] = json.loads((configs(bundle) / "metadata.json").read_text())
    return loaded


@every_bundle
def test_metadata_is_valid_by_the_schema(bundle: str, schema_copy: Path) -> None:
    monai.bundle.verify_metadata(
        meta_file=str(configs(bundle) / "metadata.json"),
        filepath=str(schema_copy),
        hash_val=sha256_file(schema_copy),
        hash_type="sha256",
    )


@every_bundle
def test_metadata_has_what_the_schema_requires(bundle: str) -> None:
    content = metadata(bundle)
    assert [key for key in REQUIRED if key not in content] == []
    assert content["schema"] == SCHEMA
    # MONAI reads the optional packages in place of the required ones when both are there.
    assert "optional_packages_version" not in content
    for name in (key for key in content if key.endswith("_data_format")):
        for entry in (*content[name]["inputs"].values(), *content[name]["outputs"].values()):
            assert TENSOR - set(entry) == set()
            assert None not in entry["value_range"]


@every_bundle
def test_version_is_the_package_s_and_in_the_changelog(bundle: str) -> None:
    content = metadata(bundle)
    assert content["version"] == mixstyleflow_monai.__version__
    assert content["version"] in content["changelog"]
    assert content["eval_metrics"] == {}


@every_bundle
def test_versions_are_the_pinned_ones(bundle: str) -> None:
    pins = dict(re.findall(r"^([\w-]+)==([\w.]+)$", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE))
    content = metadata(bundle)
    named = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    assert {name: content[key] for name, key in named.items()} == {name: pins[name] for name in named}
    assert content["required_packages_version"].items() <= pins.items()


@every_bundle
def test_image_and_prediction_come_first_and_labels_are_those_of_the_label_map(bundle: str) -> None:
    """MONAI Label takes the first keys, and from the prediction's channel_def the label values but the background."""
    network = metadata(bundle)["network_data_format"]
    assert next(iter(network["inputs"])) == "image"
    assert next(iter(network["outputs"])) == "pred"
    assert len(network["inputs"]["image"]["spatial_shape"]) == 2
    task = json.loads((configs(bundle) / "inference.json").read_text())["untrained_task"]
    names = [name for name in network["outputs"]["pred"]["channel_def"].values() if name != "background"]
    assert names == list(task["regions"])
    assert network["outputs"]["pred"]["num_channels"] == len(task["regions"])
    assert network["inputs"]["image"]["num_channels"] == task["in_channels"]


@every_bundle
def test_reconstruction_is_described_apart(bundle: str) -> None:
    reconstruction = metadata(bundle)["reconstruction_data_format"]
    assert reconstruction["outputs"]["reconstruction"]["num_channels"] == 1


def test_flows_are_described_with_the_network_s_channels() -> None:
    inputs = metadata(PHASE_BUNDLES[2])["style_flows_data_format"]["inputs"]
    bank = StyleFlowBank()
    expected = {f"level_{k}_{name}": bank.channels[k] for k in bank.levels for name in ("mean", "std")}
    assert {name: entry["num_channels"] for name, entry in inputs.items()} == expected
    assert all(DualDecoderNet.level_channels[k] == bank.channels[k] for k in bank.levels)


@pytest.mark.parametrize("n", [1, 3])
@every_bundle
def test_network_does_what_the_metadata_say(bundle: str, n: int) -> None:
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs(bundle) / "metadata.json"),
        config_file=str(configs(bundle) / "inference.json"),
        device="cpu",
        n=n,
    )


@pytest.mark.parametrize(("config", "workflow"), [("train", "train"), ("inference", "infer"), ("evaluate", "infer")])
@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_properties_are_complete(phase: int, config: str, workflow: str, volume_chain: Any, tmp_path: Path) -> None:
    output = tmp_path if config == "train" else volume_chain.output(phase)
    made = monai.bundle.create_workflow(
        config_file=str(configs(PHASE_BUNDLES[phase]) / f"{config}.json"),
        workflow_type=workflow,
        logging_file=False,
        output_dir=str(output),
        **volume_chain.folders(phase),
    )
    assert made.check_properties() == []


@every_bundle
def test_bundle_has_the_files_of_the_model_zoo(bundle: str) -> None:
    root = ROOT / "bundles" / bundle
    for name in ("LICENSE", "docs/README.md", "docs/data_license.txt", "configs/logging.conf"):
        assert (root / name).stat().st_size > 0
    assert (root / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
