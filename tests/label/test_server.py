"""MONAI Label itself, from start to fine-tuning: `make test-label`.

Needs the environment that ``tools/monai_label/setup.sh`` makes, whose Python ``MONAI_LABEL_PYTHON`` names.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import requests

from mixstyleflow_monai.artifacts import read_manifest, sha256_file
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.engines import save_state_dict
from mixstyleflow_monai.networks import DualDecoderNet
from tests.label.label_server import ROOT, SHAPE, dice, draw, free_port, run, save, tool

PYTHON = os.environ.get("MONAI_LABEL_PYTHON", "")
MODEL = PHASE_BUNDLES[3]
# Axes and turn about the long axis: none of the volumes but the first lies as those that the network was trained on.
VOLUMES = {"lps": ("LPS", 0.0), "ras": ("RAS", 12.0), "srp": ("SRP", 7.0), "pil": ("PIL", -15.0)}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="MONAI_LABEL_PYTHON names no environment of MONAI Label; make test-label"),
]


@dataclass(frozen=True)
class Running:
    """A server, what it serves, and the true labels."""

    client: Any
    phases: Path
    studies: Path
    truth: Path
    models: Path
    log: Path


@pytest.fixture(scope="module")
def server(trained_phases: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """MONAI Label with the trained bundle and oblique volumes, started as `make label` starts it."""
    root = tmp_path_factory.mktemp("server")
    for number, (name, (axes, degrees)) in enumerate(VOLUMES.items()):
        for place, array in zip(("studies", "truth"), draw(100 + number), strict=True):
            save(root / place / f"{name}.nii.gz", array, axes, degrees)
    port = free_port()
    command = [PYTHON, str(ROOT / "tools" / "monai_label" / "serve.py"), "--studies", str(root / "studies")]
    command += ["--weights", str(trained_phases / "phase3"), "--app", str(root / "app"), "--port", str(port)]
    with open(root / "server.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    models = root / "app" / "model" / MODEL / "models"
    client = tool("client").LabelServer(f"http://127.0.0.1:{port}", timeout=300)
    try:
        client.wait(120)
        yield Running(client, trained_phases, root / "studies", root / "truth", models, root / "server.log")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def test_info_lists_the_bundle_with_its_labels(server: Running) -> None:
    info = server.client.info()
    assert list(info["models"]) == list(info["trainers"]) == [MODEL]
    assert info["models"][MODEL]["labels"] == {"organ": 1, "core": 2}
    assert info["models"][MODEL]["type"] == "segmentation"


def check_label(path: Path, image: Path) -> np.ndarray:
    """One integer channel on the image's own grid; its values."""
    found, original = nibabel.load(path), nibabel.load(image)
    assert found.shape == original.shape
    np.testing.assert_allclose(found.affine, original.affine, atol=1e-4)
    assert np.issubdtype(found.get_data_dtype(), np.integer)
    values = np.asarray(found.dataobj)
    assert set(np.unique(values)) == {0, 1, 2}
    return values


@pytest.mark.parametrize("name", VOLUMES)
def test_inference_gives_the_label_map_of_the_bundle_on_the_grid_of_the_image(
    name: str, server: Running, tmp_path: Path
) -> None:
    image = server.studies / f"{name}.nii.gz"
    values = check_label(server.client.infer(name, tmp_path / "label.nii.gz"), image)
    truth = np.asarray(nibabel.load(server.truth / image.name).dataobj)
    assert sorted(values.shape) == sorted(SHAPE)
    assert dice(values > 0, truth > 0) > 0.8
    assert dice(values == 2, truth == 2) > 0.6
    # The same configuration in this environment, which has another numpy.
    model = server.models / "model.pt"
    run(3, "inference", input=str(image), output_dir=str(tmp_path), ckpt_path=str(model))
    (written,) = (tmp_path / "predictions").rglob("*.nii.gz")
    assert float((np.asarray(nibabel.load(written).dataobj) != values).mean()) < 1e-4


def label_volumes(server: Running, *names: str) -> None:
    for name in names:
        server.client.save_label(name, server.truth / f"{name}.nii.gz")


@pytest.mark.parametrize("flows", [False, True])
def test_training_replaces_the_model_and_keeps_the_previous_one(flows: bool, server: Running, tmp_path: Path) -> None:
    label_volumes(server, "lps", "ras", "srp")
    if flows:
        for file in ("style_flows.pt", "style_flows.manifest.json"):
            shutil.copy(server.phases / "phase2" / "models" / file, server.models / file)
    before = read_manifest(server.models / "model.pt")
    assert server.client.train(max_epochs=1, val_split=0.34)["status"] == "DONE"
    after = read_manifest(server.models / "model.pt", kind="segmentation_network")
    assert after["sha256"] != before["sha256"]
    assert after["made_from"]["initial_network"]["sha256"] == before["sha256"]
    assert sha256_file(server.phases / "phase3" / "models" / "model.pt") in after["ancestors"]
    assert ("style_flows" in after["made_from"]) is flows
    assert after["settings"]["max_epochs"] == 1
    # MONAI Label divides the list anew each time, in an order of its own.
    assert [len(after["cases"][split]) for split in ("train", "validation")] == [2, 1]
    assert sorted(case for cases in after["cases"].values() for case in cases) == [
        "lps.nii.gz",
        "ras.nii.gz",
        "srp.nii.gz",
    ]
    assert after["versions"]["numpy"].startswith("1.26.")
    kept = server.models / after["made_from"]["initial_network"]["file"]
    assert read_manifest(kept)["sha256"] == before["sha256"]
    values = check_label(server.client.infer("pil", tmp_path / "label.nii.gz"), server.studies / "pil.nii.gz")
    assert dice(values > 0, np.asarray(nibabel.load(server.truth / "pil.nii.gz").dataobj) > 0) > 0.8


def test_batch_inference_labels_every_image(server: Running) -> None:
    assert sorted(server.client.batch_infer("all")) == sorted(VOLUMES)
    for name in VOLUMES:
        check_label(server.studies / "labels" / "original" / f"{name}.nii.gz", server.studies / f"{name}.nii.gz")


def test_label_value_that_the_network_does_not_know_ends_the_training_with_one_message(
    server: Running, tmp_path: Path
) -> None:
    label_volumes(server, "lps", "ras")
    axes, degrees = VOLUMES["srp"]
    wrong = save(tmp_path / "srp.nii.gz", 3 * draw(102)[1], axes, degrees)
    server.client.save_label("srp", wrong)
    before = sha256_file(server.models / "model.pt")
    with pytest.raises(RuntimeError, match=r"error: .*srp\.nii\.gz: has the label values 3, 6, but the network knows"):
        server.client.train(max_epochs=1, val_split=0.34)
    assert sha256_file(server.models / "model.pt") == before
    label_volumes(server, "srp")


def wait_for_log(server: Running, pattern: str) -> None:
    """The server answers before it prints the error, whose last line is the message; other threads' records follow."""
    for _ in range(100):
        lines = server.log.read_text().strip().splitlines()
        last = next((line for line in reversed(lines) if not re.match(r"\[\d{4}-\d\d-\d\d ", line)), "")
        if re.search(pattern, last):
            return
        time.sleep(0.1)
    pytest.fail(f"{last!r} does not match {pattern!r}")


def test_four_dimensional_image_is_refused_with_one_message(server: Running, tmp_path: Path) -> None:
    path = tmp_path / "four.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((20, 20, 4, 3), dtype=np.float32), np.eye(4)), path)
    with open(path, "rb") as stream:
        answer = requests.post(
            f"{server.client.url}/infer/{MODEL}",
            params={"output": "image"},
            data={"params": '{"device": "cpu"}'},
            files={"file": ("four.nii.gz", stream)},
            timeout=60,
        )
    assert answer.status_code == 500
    wait_for_log(server, r"^ValueError: .*3 channels of shape \(20, 20, 4\), but the network takes 1")


def test_exchanged_weights_are_not_used_silently(server: Running, tmp_path: Path) -> None:
    model = server.models / "model.pt"
    own = model.read_bytes()
    try:
        save_state_dict(DualDecoderNet(1, 2), model)
        with pytest.raises(RuntimeError, match="500"):
            server.client.infer("lps", tmp_path / "label.nii.gz")
        wait_for_log(server, r"^ValueError: .*model\.pt: SHA-256 .* replaced or damaged")
        with pytest.raises(RuntimeError, match=r"error: .*model\.pt: SHA-256 .* replaced or damaged"):
            server.client.train(max_epochs=1, val_split=0.34)
    finally:
        model.write_bytes(own)
    check_label(server.client.infer("lps", tmp_path / "label.nii.gz"), server.studies / "lps.nii.gz")
