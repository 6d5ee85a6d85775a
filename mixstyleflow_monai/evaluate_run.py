"""Commands on a finished run: its evaluation on another data set, and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixstyleflow_monai import bundle_paths
from mixstyleflow_monai.artifacts import differences, read_manifest, sha256_file, write_json
from mixstyleflow_monai.bundle_runs import (
    MODEL,
    TABLES,
    TRAININGS,
    check_places,
    evaluate_model,
    is_evaluated,
    join_evaluations,
)
from mixstyleflow_monai.data.dataset_description import EVERY_SPLIT, SPLITS, check_files, read_json
from mixstyleflow_monai.options import checked_switch
from mixstyleflow_monai.stopping import only_one

REQUEST_FILE = "evaluate.json"
OTHER = "Give another --output_dir, or move it away."


def evaluate(
    run_dir: str,
    dataset_dir: str,
    output_dir: str,
    split: str = SPLITS[-1],
    device: str | None = None,
    bundles_dir: str | None = None,
    case_pictures: bool = True,
) -> None:
    """Evaluate the networks of a finished run on another data set, print the table and write the report.

    Stopped and started again it goes on with what is missing, also after more of the run has been trained.

    Args:
        run_dir: the --output_dir of `run`, or the folder of one training of phase 1 or 3.
        dataset_dir: folder with dataset.json, of the same task as that of the training.
        output_dir: folder for evaluation.json, .csv and report.html, and a folder for each network.
        split: test, validation or train; or all, which evaluates on every case of a data set of other sites, as is done
            with one whose source_domain is null.
        device: cpu, cuda or cuda:1; default: the first GPU if torch finds one, otherwise the CPU.
        bundles_dir: folder of the bundles; default: the checkout's, or those that came with the package.
        case_pictures: write a picture of every case, and show some of them in the report.
    """
    case_pictures = checked_switch(case_pictures, "case_pictures")
    networks = _networks(Path(run_dir))
    out = Path(output_dir).resolve()
    if any((out / name).exists() for name in ("models", "checkpoints", "run.json")):
        raise ValueError(f"--output_dir {output_dir}: holds a training, whose own evaluation would be there. {OTHER}")
    description = _checked_dataset(dataset_dir, networks, split)
    split = split if description.source_domain else EVERY_SPLIT
    check_places(out, description, run_dir=Path(run_dir).resolve())
    root = bundle_paths.bundles_dir(bundles_dir)
    request = {
        "run_dir": str(Path(run_dir).resolve()),
        "dataset_sha256": description.sha256,
        "split": split,
        "networks": {name: sha256_file(path) for name, path in networks.items()},
    }
    with only_one(out):
        _check_same_request(out, request)
        for name, path in networks.items():
            folder = out / name
            if not is_evaluated(folder, path, description.sha256, split):
                options: dict[str, Any] = {"case_pictures": case_pictures}
                options |= {} if device is None else {"device": device}
                evaluate_model(
                    root, TRAININGS[name], str(description.path), folder, ckpt_path=str(path), split=split, **options
                )
        join_evaluations(out, list(networks))
    begun = [name for name in TRAININGS if name not in networks and (Path(run_dir) / name).is_dir()]
    if begun:
        print(f"note: {', '.join(begun)} of {run_dir} has no network yet. Evaluate again when it is trained.")


def report(run_dir: str, output: str | None = None) -> None:
    """Write what a run or an evaluation gave as one HTML file, with tables, every case and pictures.

    `run` and `evaluate` write it at their end; this makes it anew, or elsewhere.

    Args:
        run_dir: the --output_dir of `run` or `evaluate`, or a folder that a bundle's evaluate.json wrote to.
        output: file to write; default: report.html in that folder.
    """
    from mixstyleflow_monai.report.run_report import write_report

    print(f"wrote {write_report(Path(run_dir), None if output is None else Path(output))}")


def _networks(run_dir: Path) -> dict[str, Path]:
    """Return the networks of a run by the name of their training; each belongs to its manifest."""
    found = {name: run_dir / name / MODEL for name in TRAININGS if (run_dir / name / MODEL).is_file()}
    if not found and (run_dir / MODEL).is_file():
        phase = read_manifest(run_dir / MODEL, kind="segmentation_network")["phase"]
        found = {f"phase{phase}": run_dir / MODEL}
    if not found.keys() <= TRAININGS.keys() or not found:
        raise ValueError(
            f"--run_dir {run_dir}: no trained network in {', '.join(TRAININGS)}, nor in {MODEL}. Give the --output_dir "
            "of `run`, or of phase 1 or 3."
        )
    for path in found.values():
        read_manifest(path, kind="segmentation_network")
    return found


def _checked_dataset(dataset_dir: str, networks: dict[str, Path], split: str) -> Any:
    """Return the data set if every network may be evaluated on it."""
    from mixstyleflow_monai.data import Task, load_dataset
    from mixstyleflow_monai.engines import check_training_data

    description = check_files(load_dataset(str(dataset_dir)))
    if not description.select(split):
        raise ValueError(f"{description.path}: has no case in the split {split}. Give another --split.")
    for path in networks.values():
        Task.from_model(path).check_dataset(description)
        check_training_data(path, description, split)
    return description


def _check_same_request(out: Path, request: dict[str, Any]) -> None:
    """Refuse a folder that holds something else: it would be replaced, or mixed with this.

    The networks of a run that were not trained then may come in addition.
    """
    from mixstyleflow_monai.report.run_report import REPORT_FILE, check_replaceable

    path = out / REQUEST_FILE
    then: Any = read_json(path, remedy=OTHER) if path.is_file() else None
    check_replaceable(out / REPORT_FILE)
    if not isinstance(then, dict) or "networks" not in then:
        for name in (*TABLES, REQUEST_FILE, *TRAININGS):
            if (out / name).exists():
                raise ValueError(f"{out / name}: is there, and not of this command; it would be replaced. {OTHER}")
    else:
        # A run may have been moved, and more of it trained: its networks tell whether it is the same.
        known = {**then, "run_dir": request["run_dir"], "networks": {**request["networks"], **then["networks"]}}
        if different := differences(known, request):
            raise ValueError(f"{out}: holds another evaluation ({'; '.join(different)}). {OTHER}")
    write_json(path, request)
