"""Tests of the logged model: it loads, it is the published one, it takes any size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from mixstyleflow_monai.artifacts import write_manifest
from mixstyleflow_monai.data import Task
from mixstyleflow_monai.engines.handlers import save_state_dict
from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.tracking import Store, TrackedRun
from mixstyleflow_monai.tracking.contents import global_store, log_network

mlflow = pytest.importorskip("mlflow")


@pytest.mark.slow
def test_model_loads_with_a_signature_and_equals_the_published_weights(store: Store, folder: Path) -> None:
    published = DualDecoderNet(in_channels=3, out_channels=2).eval()
    save_state_dict(published, folder / "model.pt")
    task = Task(in_channels=3, regions={"disc": [1, 2], "cup": [2]}, image_size=(32, 32), spatial_dims=2)
    write_manifest(folder / "model.pt", "segmentation_network", facts={"task": task.to_json()})
    run = TrackedRun.open(store, "discs", "phase 1", folder)
    log_network(run, folder / "model.pt")
    run.finish()
    (output,) = store.client.get_run(run.run_id).outputs.model_outputs
    before = os.environ.get("MLFLOW_TRACKING_URI")
    with global_store(store):
        uris = [f"models:/{output.model_id}", f"runs:/{run.run_id}/model"]
        models = [mlflow.pytorch.load_model(uri) for uri in uris]
        info = mlflow.models.get_model_info(uris[0])
    assert os.environ.get("MLFLOW_TRACKING_URI") == before
    assert [spec.shape for spec in (*info.signature.inputs, *info.signature.outputs)] == [
        (-1, 3, -1, -1),
        (-1, 2, -1, -1),
    ]
    generator = torch.Generator().manual_seed(1)
    for size in ((1, 3, 32, 32), (3, 3, 64, 48), (2, 3, 96, 160)):
        images = torch.rand(size, generator=generator)
        with torch.no_grad():
            for model in models:
                torch.testing.assert_close(model(images), published(images), rtol=0, atol=1e-4)


def test_model_that_cannot_be_exported_costs_a_warning(
    store: Store, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = TrackedRun.open(store, "discs", "phase 1", folder)
    log_network(run, folder / "absent.pt")
    run.finish()
    assert "absent.pt: no such file" in caplog.text
    assert store.client.get_run(run.run_id).info.status == "FINISHED"
