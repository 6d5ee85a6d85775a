"""Running the bundles of a checkout or installation, evaluating what they left, and joining their evaluations."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mixstyleflow_monai.artifacts import atomic_path, check_writable, sha256_file, write_json
from mixstyleflow_monai.bundle_errors import is_mistake, record_factory, root_cause
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, check_no_hash
from mixstyleflow_monai.data.dataset_description import SPLITS, DatasetDescription

if TYPE_CHECKING:
    from mixstyleflow_monai.tracking import WholeRun

TRAININGS = {"phase1": 1, "phase3": 3, "baseline": 3}
"""Folders of a run that have a network to evaluate, and the phase that made each."""
MODEL = "models/model.pt"
"""The network that a training publishes, relative to its folder."""
TABLES = ("evaluation.json", "evaluation.csv")


def check_places(out: Path, description: DatasetDescription, **others: Path) -> None:
    """Refuse to write among the files of a data set, and paths that MONAI cannot read.

    Args:
        out: folder to write to.
        description: the data set.
        **others: further paths that configurations get, by option.

    Raises:
        ValueError: ``out`` is the folder of the data set or cannot be written, or there is a ``#`` in a path.
    """
    check_no_hash(dataset_dir=description.path, output_dir=out, **others)
    if out == description.path.parent.resolve():
        raise ValueError(f"--output_dir {out}: is the data set's own folder. Give another one.")
    check_writable(output_dir=out)


def run_bundle(files: list[str], settings: dict[str, Any]) -> None:
    """Run configuration files of a bundle with MONAI, in this process.

    Args:
        files: configuration files, later ones laid over earlier ones.
        settings: values by id.
    """
    import monai.bundle

    with warnings.catch_warnings(), short_interrupts():
        # The configurations that are run here came with this package.
        warnings.filterwarnings("ignore", message="parsing config_file", category=UserWarning)
        configs = Path(files[0]).parent
        monai.bundle.run(
            config_file=files,
            meta_file=str(configs / "metadata.json"),
            logging_file=str(configs / "logging.conf"),
            **{name: for_monai(value) for name, value in settings.items()},
        )


def for_monai(value: Any) -> Any:
    """Return a value as MONAI takes it: it passes over an option that is None, as if it had not been given."""
    return "$None" if value is None else value


@contextmanager
def short_interrupts() -> Iterator[None]:
    """Log a stop or a user's mistake without the traceback, which MONAI would log once for every engine."""
    factory = logging.getLogRecordFactory()
    logging.setLogRecordFactory(record_factory(_is_told_elsewhere))
    try:
        yield
    finally:
        logging.setLogRecordFactory(factory)


def _is_told_elsewhere(error: BaseException) -> bool:
    return isinstance(error, KeyboardInterrupt | SystemExit) or is_mistake(root_cause(error))


def is_evaluated(folder: Path, model: Path, dataset_sha256: str, split: str = SPLITS[-1]) -> bool:
    """Say whether a folder holds the evaluation of this model on this split of this data set."""
    path = folder / TABLES[0]
    if not path.is_file() or not path.with_suffix(".csv").is_file():
        return False
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # damaged: it is made anew
        return False
    return bool(
        isinstance(record, dict)
        and record.get("model_sha256") == sha256_file(model)
        # Records of earlier versions have no split; there was one only.
        and record.get("split", SPLITS[-1]) == split
        and record.get("dataset_sha256") == dataset_sha256
    )


def evaluate_model(root: Path, phase: int, dataset: str, folder: Path, **options: Any) -> None:
    """Evaluate a network, which writes its tables into a folder.

    Args:
        root: folder of the bundles.
        phase: that made the network, 1 or 3.
        dataset: path of the dataset.json.
        folder: to write to; the network is in its ``models/`` unless the option ``ckpt_path`` says otherwise.
        **options: of the bundle's evaluate.json.
    """
    bundle = root / PHASE_BUNDLES[phase]
    settings = {"dataset_dir": dataset, "output_dir": str(folder), "bundle_root": str(bundle), "show_table": False}
    settings["replace"] = True  # what a run's own folders hold is the run's
    run_bundle([str(bundle / "configs" / "evaluate.json")], {**settings, **options})


def join_evaluations(out: Path, names: Sequence[str], whole: WholeRun | None = None) -> None:
    """Join the evaluations of trainings, print them side by side and write the report.

    Args:
        out: folder with a folder for each of the trainings.
        names: those of `TRAININGS` that were evaluated on the same cases.
        whole: MLflow run of the whole, which gets them, or None.
    """
    from mixstyleflow_monai.evaluation import in_order, print_table, read_cases
    from mixstyleflow_monai.report.run_report import write_report

    records = [json.loads((out / name / TABLES[0]).read_text(encoding="utf-8")) for name in names]
    tables = [
        read_cases(out / name / TABLES[1]).assign(method=record.get("method", ""))
        for name, record in zip(names, records, strict=True)
    ]
    written = [out / name for name in TABLES]
    write_json(written[0], records)
    with atomic_path(written[1]) as partial:
        pd.concat(tables).to_csv(partial, index=False)
    print_table(in_order(records))
    if whole is not None:
        whole.results(dict(zip(names, records, strict=True)), written)
    # Last, so that a disk that is full by then costs the report alone.
    page = write_report(out)
    if whole is not None:
        whole.results({}, [page])
    print(f"wrote {os.path.relpath(written[0])}, {written[1].name} and {page.name}")
