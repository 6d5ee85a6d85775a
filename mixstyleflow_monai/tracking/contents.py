"""What is told of a training and of an evaluation: parameters, numbers, files and the model."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from mixstyleflow_monai.artifacts import case_counts, git_commit, manifest_path, software_versions
from mixstyleflow_monai.data import Task
from mixstyleflow_monai.data.dataset_description import SPLITS
from mixstyleflow_monai.engines import load_network
from mixstyleflow_monai.networks import DualDecoderNet
from mixstyleflow_monai.tracking.run import TrackedRun, metric_name
from mixstyleflow_monai.tracking.store import Store

# Height and width of the example; any multiples of 16 from 32 on go through the exported model.
EXAMPLE_SIZE = (32, 48)
TABLES = ("evaluation.json", "evaluation.csv", "shifted_validation.json", "style_report.json")


def training_parameters(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a manifest, or of a training to come, as flat parameters.

    Args:
        facts: what `mixstyleflow_monai.engines.training_facts` returned, or `artifacts.read_manifest`.

    Returns:
        ``seed``, ``source_domain``, ``dataset``, ``dataset_sha256``, ``git_commit``, ``version.NAME`` and every setting
        by its own name; those of the task as ``task.NAME``.
    """
    names = ("bundle", "bundle_version", "phase", "method", "seed", "source_domain")
    dataset = facts.get("dataset", {})
    return {
        **{name: facts[name] for name in names if name in facts},
        "dataset": dataset.get("name"),
        "dataset_sha256": dataset.get("sha256"),
        **{f"{split}_cases": count for split, count in case_counts(facts).items()},
        **facts.get("settings", {}),
        **{f"task.{name}": value for name, value in facts.get("task", {}).items()},
        **software_parameters(facts),
    }


def software_parameters(facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return versions and commit: those that a manifest records, or those of this process."""
    facts = facts or {}
    versions = facts.get("versions") or software_versions()
    commit = facts["git_commit"] if "git_commit" in facts else git_commit()
    return {**{f"version.{name}": text for name, text in versions.items()}, "git_commit": commit or "unknown"}


def evaluation_values(record: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the numbers of an ``evaluation.json`` by metric name.

    ``source_mean_dice``, ``unseen_mean_dice``, ``dice/DOMAIN/REGION`` and the surface distance, ``asd_mm/...`` or
    ``asd_px/...``; of another split than test with its name in front, ``validation/...``. Dice in percent. Where
    domains differ in nothing but signs that MLflow does not take, later ones get a number.
    """
    if "domains" not in record:  # of flows: its numbers are the evaluator's own metrics
        return {}
    values: dict[str, float | None] = {name: record.get(name) for name in ("source_mean_dice", "unseen_mean_dice")}
    for domain, entry in record["domains"].items():
        for region, numbers in entry["regions"].items():
            for kind, spread in numbers.items():
                name = metric_name("/".join((kind, *(part.replace("/", "_") for part in (domain, region)))))
                free = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
                values[next(candidate for candidate in free if candidate not in values)] = spread["mean"]
    split = record.get("split", SPLITS[-1])
    before = "" if split == SPLITS[-1] else f"{split}/"
    return {before + name: value for name, value in values.items()}


def upload_panels(run: TrackedRun, folder: Path, since: float = 0.0) -> None:
    """Upload the panels of an output folder; those older than ``since`` (seconds from 1970) are another training's."""
    run.files([path for path in sorted((folder / "panels").glob("*.png")) if path.stat().st_mtime >= since], "panels")


def upload_results(run: TrackedRun, folder: Path, since: float = 0.0, tables: Sequence[str] = TABLES) -> None:
    """Upload panels, tables and the manifests of what was trained from an output folder; flows too, they are small.

    Args:
        run: to upload to.
        folder: output folder.
        since: panels and tables older than this, in seconds from 1970, are of a training before, and stay.
        tables: names of files.
    """
    upload_panels(run, folder, since)
    present = [folder / name for name in tables if (folder / name).is_file()]
    run.files([path for path in present if path.stat().st_mtime >= since], "tables")
    run.files(sorted((folder / "models").glob("*.manifest.json")), "models")
    run.files([folder / "models" / "style_flows.pt"], "models")


def executed_config(output_dir: str | os.PathLike[str], save_execute_config: object) -> Path | None:
    """Return the file of the executed configuration.

    With an ``output_dir`` that is no expression MONAI writes the file and gives as its path a text such as
    ``"RUNS + '/config_20260101_120000.json'"``; then it is the newest of that pattern.
    """
    if save_execute_config is None:
        return None
    if Path(str(save_execute_config)).is_file():
        return Path(str(save_execute_config))
    return max(Path(output_dir).glob("config_*.json"), default=None)


def log_network(run: TrackedRun, path: str | os.PathLike[str]) -> None:
    """Log a published segmentation network as an MLflow model of the PyTorch flavour, with its signature.

    The model is a `torch.export` program for any batch, height and width (multiples of 16 from 32 on), so that it
    loads without this package, on the CPU: ``mlflow.pytorch.load_model("runs:/RUN_ID/model")``.

    Args:
        run: to log to.
        path: weights, with their manifest.
    """
    run.call(lambda tracked: _log_network(tracked, Path(path)))


def _log_network(run: TrackedRun, path: Path) -> None:
    import mlflow
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types import Schema, TensorSpec

    task = Task.from_model(path)
    network = load_network(DualDecoderNet(**task.network_settings()), path).eval().requires_grad_(False)
    # Two sizes that differ, so that the export takes neither for a constant or for the other.
    example = torch.rand((2, task.in_channels, *EXAMPLE_SIZE), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        inferred = infer_signature(example.numpy(), network(example).numpy())
    inputs, outputs = (
        Schema([TensorSpec(spec.type, (-1, spec.shape[1], -1, -1)) for spec in schema.inputs])
        for schema in (inferred.inputs, inferred.outputs)
    )
    versions = (f"{name}=={metadata.version(name).partition('+')[0]}" for name in ("torch", "numpy"))
    with global_store(run.store), warnings.catch_warnings():
        # torch.export warns of its own deprecated parts.
        warnings.simplefilter("ignore")
        with mlflow.start_run(run_id=run.run_id, nested=True):
            mlflow.pytorch.log_model(
                network,
                name="model",
                signature=ModelSignature(inputs=inputs, outputs=outputs),
                input_example=example.numpy(),
                serialization_format="pt2",
                pip_requirements=[*versions],
                metadata={"published": str(manifest_path(path).name), "size_multiple": 16},
            )


@contextmanager
def global_store(store: Store) -> Iterator[None]:
    """Make a store that of MLflow's module functions inside this block; they know no client."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(store.uri)
    try:
        yield
    finally:
        # This also removes the environment variable, which MLflow sets along with its own state.
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
