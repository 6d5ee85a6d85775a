"""What a packed bundle says of its weights: metadata, README and data licence."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.data import Task
from mixstyleflow_monai.packing.weights import Weights

PERFORMANCE = ("<!-- performance -->", "<!-- end of performance -->")
"""Lines of a bundle's README between which packing writes what was measured."""

WITHOUT_WEIGHTS = "The bundle holds no data and no trained weights."
"""Sentence of a bundle's README that packing makes untrue."""

PLACE = (
    "Commands are given for the folder that holds `bundles/`; they work from any other as well, with the paths to "
    "match."
)
"""Sentence of a bundle's README that packing makes untrue: its folder is alone then."""

SHIPPED_TASK = "`metadata.json` describes the shipped configuration: one-channel images and one region, `prostate`."
"""Sentence of the READMEs of networks that packing makes untrue."""

PACKED_PLACE = (
    "Commands are given for this bundle's folder, the one that holds `configs/`; they work from any other as well, "
    "with the\npaths to match. `make` and `python -m mixstyleflow_monai` need the repository."
)


def describe_metadata(metadata: Mapping[str, Any], weights: Weights) -> dict[str, Any]:
    """Return a bundle's metadata with the task, the data and the metrics of its weights.

    ``eval_metrics`` is what ``evaluation.json`` holds, unchanged.
    """
    task, manifest = weights.task, weights.manifest
    content: dict[str, Any] = copy.deepcopy(dict(metadata))
    images = {str(k): "image" if task.in_channels == 1 else f"channel {k}" for k in range(task.in_channels)}
    modality = "n/a"  # a data set does not say; MR would be a guess, and wrong for computed tomography
    for entry in _tensors(content):
        if "modality" in entry:
            entry.update(num_channels=task.in_channels, channel_def=images, modality=modality)
            if task.intensity == "z_score":
                entry.update(value_range=[])  # no bounds
    output = content["network_data_format"]["outputs"]["pred"]
    output.update(num_channels=task.out_channels, channel_def=label_names(task))
    labels = content["network_data_format"].get("post_processed_outputs", {}).get("pred")
    if labels is not None:
        labels.update(channel_def=label_names(task), value_range=[0, max(map(int, label_names(task)))])
    dataset = manifest_dataset(weights)
    content.update(
        data_source=f"{dataset}; trained on its domain {_source(manifest)!r}, see docs/data_license.txt",
        image_classes=_images(task),
        label_classes=f"single-channel label map, 0 background; regions: {_regions(task)}",
        pred_classes=_prediction(task),
        eval_metrics=weights.evaluation,
    )
    return content


def _tensors(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the descriptions of all inputs and outputs of all networks."""
    formats = [value for key, value in content.items() if key.endswith("_data_format")]
    return [entry for form in formats for part in ("inputs", "outputs") for entry in form[part].values()]


def _images(task: Task) -> str:
    scaled = "z-scored slice by slice" if task.intensity == "z_score" else "scaled to [0, 1]"
    return f"{task.in_channels} channel(s), {scaled} for the network"


def _regions(task: Task) -> str:
    return ", ".join(f"{name} (label values {values})" for name, values in task.regions.items())


def _prediction(task: Task) -> str:
    if task.activation == "sigmoid":
        return f"logits, a channel a region: {', '.join(task.regions)}; sigmoid above 0.5 is inside the region"
    return "logits of background and exclusive classes, in the order of the label values; softmax"


def _source(manifest: Mapping[str, Any]) -> str:
    return str(manifest.get("source_domain", "unknown"))


def manifest_dataset(weights: Weights) -> str:
    """Return the name and hash of the data set that the weights were trained on."""
    facts = weights.manifest.get("dataset", {})
    return _dataset(facts.get("name", "unknown"), facts.get("sha256", "unknown"))


def _dataset(name: str, sha256: str) -> str:
    return f"data set {name!r} (dataset.json with SHA-256 {sha256})"


def label_names(task: Task) -> dict[str, str]:
    """Return label value -> name in the label maps that inference writes, 0 background first.

    Where regions are nested, a class has the name of the smallest region that it lies in.
    """
    sizes = {name: len(values) for name, values in task.regions.items()}
    names = {"0": "background"}
    for values in task.encoding.classes[1:]:
        within = [name for name, members in task.regions.items() if values[0] in members]
        names[str(values[0])] = min(within, key=lambda name: sizes[name])
    return names


def performance_section(weights: Weights) -> str:
    """Return Markdown that says what was measured with these weights, or that nothing was."""
    record = weights.evaluation
    if not record:
        return "These weights were packed without an evaluation; `eval_metrics` in `metadata.json` is empty."
    if "domains" not in record:
        return "What was measured with these weights is in `eval_metrics` of `metadata.json`."
    # It may be another one than the weights were trained on, with more unseen domains.
    dataset = _dataset(record["dataset"], record["dataset_sha256"])
    lines = [
        f"Measured with these very weights (SHA-256 {record['model_sha256'][:12]}...) on the split "
        f"`{record.get('split', 'test')}` of {dataset}, by `evaluate.json`. Dice in percent and "
        "average surface distance, mean ± standard deviation over n cases on their original grid; one training, seed "
        f"{record.get('seed')}.",
        "",
        "| domain | role | region | n | Dice | surface distance |",
        "|---|---|---|---|---|---|",
    ]
    for name, domain in record["domains"].items():
        for region, values in domain["regions"].items():
            key = next(key for key in values if key.startswith("asd_"))
            lines.append(
                f"| {name} | {domain['role']} | {region} | {domain['n']} | {_spread(values['dice'], 1)} | "
                f"{_spread(values[key], 2)} {key.removeprefix('asd_')} |"
            )
    return "\n".join(lines)


def _spread(values: Mapping[str, float | None], digits: int) -> str:
    mean, sd = values["mean"], values["sd"]
    if mean is None:
        return "-"
    return f"{mean:.{digits}f}" if sd is None else f"{mean:.{digits}f} ± {sd:.{digits}f}"


def describe_readme(text: str, weights: Weights, bundle: str) -> str:
    """Return a bundle's README with the performance of its weights and the paths of its files in its own folder.

    Args:
        text: of the README in the repository.
        weights: packed weights.
        bundle: name of the bundle's folder.

    Raises:
        ValueError: the README has no place for the performance.
    """
    start, end = PERFORMANCE
    if start not in text or end not in text:
        raise ValueError(f"docs/README.md: no lines {start} and {end} around the performance. Put them back.")
    before, _, rest = text.partition(start)
    filled = f"{before}{start}\n{performance_section(weights)}\n{end}{rest.partition(end)[2]}"
    filled = filled.replace(WITHOUT_WEIGHTS, "The bundle holds trained weights and no data.")
    filled = filled.replace(PLACE, PACKED_PLACE)
    described = f"`metadata.json` describes these weights: {_images(weights.task)}; regions: {_regions(weights.task)}."
    filled = filled.replace(SHIPPED_TASK, described)
    for name in PHASE_BUNDLES.values():
        filled = filled.replace(f"bundles/{name}/", "" if name == bundle else f"../{name}/")
    return filled


def data_licence(weights: Weights, licence: str | None) -> str:
    """Return the text of ``docs/data_license.txt`` of a bundle with weights.

    Args:
        weights: packed weights.
        licence: source and licence of the training data, as its packer states them; None if not stated.
    """
    stated = (
        licence.strip()
        if licence is not None
        else (
            "Its source and licence were not stated when this bundle was packed. Ask whoever gave you the bundle "
            "before you use or pass on the weights: the licence of the data may restrict them."
        )
    )
    return (
        "Data licence\n\n"
        "This bundle contains no data. It contains weights that were trained on the source domain "
        f"{_source(weights.manifest)!r} of the\n{manifest_dataset(weights)}.\n\n{stated}\n"
    )
