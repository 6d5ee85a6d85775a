"""Train and evaluate the cells of a plan, each step in a process of its own."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mixstyleflow_monai.artifacts import differences, read_manifest, sha256_file, write_json
from mixstyleflow_monai.benchmark.data import source_name
from mixstyleflow_monai.benchmark.plan import PHASE_ONE, PHASE_TWO, Cell, Plan
from mixstyleflow_monai.benchmark.records import CONFIGS, START, find_record, read_object, write_record
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.bundle_runs import for_monai
from mixstyleflow_monai.data.dataset_description import SPLITS, read_json
from mixstyleflow_monai.engines.shifted_validation import FILE as SHIFTED_FILE
from mixstyleflow_monai.stopping import Programs, signals_as_exit
from mixstyleflow_monai.tracking import embedded_store

logger = logging.getLogger(__name__)
LAST_LINES = 15
REQUEST_FILE = "request.json"


@dataclass(frozen=True)
class Failure:
    """A cell that did not finish, and where its log is."""

    cell: Cell
    message: str
    log: Path


@dataclass(frozen=True)
class Workshop:
    """Where and how the cells of a plan are trained.

    Attributes:
        plan: what to train.
        datasets: folder of the data set of each source domain.
        output: folder for all trainings.
        records: folder for finished cells.
        reuse: further folders with finished cells.
        jobs: cells that train at the same time.
        tracking: "mlflow" or None.
        shifted_validation: whether networks are scored on shifted source validation images as well.
        programs: those that train, ended when this process is asked to end.
    """

    plan: Plan
    datasets: Mapping[str, Path]
    output: Path
    records: Path
    reuse: tuple[Path, ...] = ()
    jobs: int = 1
    tracking: str | None = None
    shifted_validation: bool = True
    programs: Programs = field(default_factory=Programs)

    def run(self) -> list[Failure]:
        """Train, evaluate and record every cell that is not recorded yet; return those that failed."""
        todo = [cell for cell in self.plan.cells if find_record((self.records, *self.reuse), self.plan, cell) is None]
        self._check_folders(todo)
        done = len(self.plan.cells) - len(todo)
        failures: list[Failure] = []
        with tqdm(total=len(self.plan.cells), initial=done, desc="cells", unit="cell") as bar:
            rest = todo
            for phase, shared in ((1, PHASE_ONE), (2, PHASE_TWO)):
                # Without the flows of a failed Phase II the methods that need none go on.
                wanted = [cell for cell in rest if phase == 1 or self.plan.needs_flows(cell.method)]
                start_of = {cell: Cell(cell.source, shared, cell.seed) for cell in wanted}
                broken = self._parallel(list(dict.fromkeys(start_of.values())), partial(self._train, phase))
                lost = {cell: start for cell, start in start_of.items() if start in broken}
                failures += [self._failure(cell, broken[start], at=start) for cell, start in lost.items()]
                rest = [cell for cell in rest if cell not in lost]
                bar.update(len(lost))

            def one(cell: Cell, slot: int) -> None:
                self._cell(cell, slot)
                bar.update()

            for cell, error in self._parallel(rest, one).items():
                failures.append(self._failure(cell, error))
                bar.update()
        return failures

    def folder(self, cell: Cell) -> Path:
        """Return the folder of a cell's training; Phase I and II are shared by the methods of a source and seed."""
        return training_folder(self.output, cell, self.plan.train_fraction)

    def _parallel(self, items: list[Any], work: Callable[[Any, int], Any]) -> dict[Any, Exception]:
        """Do some work for all items, ``jobs`` at a time; return the exceptions by item."""
        errors: dict[Any, Exception] = {}
        slots = list(range(self.jobs))

        def with_slot(item: Any) -> None:
            slot = slots.pop()
            try:
                work(item, slot)
            finally:
                slots.append(slot)

        with signals_as_exit(), ThreadPoolExecutor(self.jobs) as pool:
            try:
                futures = {pool.submit(with_slot, item): item for item in items}
                for future in as_completed(futures):
                    error = future.exception()
                    if isinstance(error, Exception):
                        errors[futures[future]] = error
                        logger.error("%s", error)
            except (KeyboardInterrupt, SystemExit) as end:
                pool.shutdown(wait=False, cancel_futures=True)
                self.programs.stop(asked=isinstance(end, KeyboardInterrupt))
                raise
        return errors

    def _check_folders(self, cells: list[Cell]) -> None:
        """Refuse folders with trainings of other settings: their results would be taken for those of these settings."""
        shared = [Cell(cell.source, name, cell.seed) for cell in cells for name in (PHASE_ONE, PHASE_TWO)]
        for cell in dict.fromkeys([*shared, *cells]):
            path = self.folder(cell) / REQUEST_FILE
            if not path.is_file():
                continue
            remedy = (
                f"Nothing else says with what settings {path.parent} was trained: restore the file, remove that folder "
                "to train it again, or give another --output_dir."
            )
            then = read_object(path, "the settings of a training", remedy)
            now = self.plan.request(cell)
            if CONFIGS in then:  # an earlier version did not write it
                now[CONFIGS] = self.plan.train_configs(cell)
            different = differences(then, now)
            if different:
                raise ValueError(
                    f"{path.parent}: holds a training with other settings ({'; '.join(different)}). Use the same "
                    "settings to go on, or another --output_dir; --reuse takes finished cells from there."
                )

    def _cell(self, cell: Cell, slot: int) -> None:
        if find_record((self.records, *self.reuse), self.plan, cell) is not None:
            return
        seconds = None if cell.method == PHASE_ONE else self._train(3, cell, slot)
        self._evaluate(cell, slot)
        device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
        start = self.folder(cell).parent / PHASE_ONE / "models" / "model.pt"
        facts = {
            "seconds": seconds,
            "device": device,
            CONFIGS: self.plan.train_configs(cell),
            **({START: sha256_file(start)} if start.is_file() else {}),
        }
        write_record(self.records, self.plan, cell, self.folder(cell), facts)

    def _train(self, phase: int, cell: Cell, slot: int) -> float | None:
        """Train unless it is done; return the seconds, or None where an earlier process did a part."""
        folder = self.folder(cell)
        if not (folder / REQUEST_FILE).is_file():
            write_json(folder / REQUEST_FILE, {**self.plan.request(cell), CONFIGS: self.plan.train_configs(cell)})
        artifact = folder / "models" / ("style_flows.pt" if phase == 2 else "model.pt")
        if _is_whole(artifact):
            return None
        fresh = not any((folder / "checkpoints").glob("*.pt"))
        beside = folder.parent
        options: dict[str, Any] = {
            "dataset_dir": str(self.datasets[cell.source]),
            "seed": cell.seed,
            **({"phase1_dir": str(beside / PHASE_ONE)} if phase > 1 else {}),
            **({"phase2_dir": str(beside / PHASE_TWO)} if phase > 2 else {}),
            **self.plan.overrides[phase],
        }
        start = time.monotonic()
        self._bundle(cell, self.plan.files(phase, cell.method if phase == 3 else None), options, slot)
        return round(time.monotonic() - start, 1) if fresh else None

    def _evaluate(self, cell: Cell, slot: int) -> None:
        folder = self.folder(cell)
        phase = 1 if cell.method == PHASE_ONE else 3
        configs = self.plan.root / PHASE_BUNDLES[phase] / "configs"
        # Bundles of an earlier version have not all of these options.
        settings = read_json(configs / "evaluate.json")
        shifted = self.shifted_validation and "shifted_validation" in settings
        if _is_evaluated(folder, shifted):
            return
        device = {key: value for key, value in self.plan.overrides[phase].items() if key == "device"}
        # A benchmark compares numbers, of more trainings than anyone looks at; what its folders hold is its own.
        shown = {"show_table": False, "case_pictures": False, **({"shifted_validation": True} if shifted else {})}
        shown |= {"replace": True} if "replace" in settings else {}
        options = {"dataset_dir": str(self.datasets[cell.source]), **shown, **device}
        self._bundle(cell, [configs / "evaluate.json"], options, slot)

    def _bundle(self, cell: Cell, files: list[Path], options: Mapping[str, Any], slot: int) -> None:
        """Run ``python -m monai.bundle run`` with its output in the cell's log."""
        folder = self.folder(cell)
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str([str(path) for path in files])]
        # Quoted as a Python text, a path of digits or with commas stays the path that it is.
        given = {
            **options,
            "output_dir": str(folder),
            "bundle_root": str(files[0].parent.parent),
            **self._tracking(cell),
        }
        command += [part for key, value in given.items() for part in (f"--{key}", repr(for_monai(value)))]
        with (folder / "log.txt").open("a", encoding="utf-8") as log:
            code = self.programs.run(command, log, self._environment(slot))
        if code:
            text = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
            tail = [line for line in text.splitlines() if line.strip()][-LAST_LINES:]
            cause = next((line for line in reversed(tail) if "error" in line.lower()), tail[-1] if tail else "")
            raise RuntimeError(f"{cell.name}: exit code {code}: {cause.strip()[:500]}")

    def _tracking(self, cell: Cell) -> dict[str, Any]:
        if self.tracking is None:
            return {}
        given = self.plan.overrides[1]
        return {
            "tracking": self.tracking,
            # MLFLOW_TRACKING_URI, which comes before it, reaches the training by its environment.
            "tracking_uri": given.get("tracking_uri") or embedded_store(self.output),
            "experiment_name": given.get("experiment_name", f"{self.plan.dataset_name}, benchmark"),
            "run_name": cell.name,
        }

    def _environment(self, slot: int) -> dict[str, str]:
        """Return the environment of a cell: its share of the cores, and a GPU of its own where there are several."""
        environment = dict(os.environ)
        if self.jobs > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.jobs)))
            gpus = torch.cuda.device_count()
            if gpus > 1:
                # A scheduler may have given this process some of the machine's, by number or by name.
                visible = environment.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
                environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[slot % gpus].strip()
        return environment

    def _failure(self, cell: Cell, error: Exception, *, at: Cell | None = None) -> Failure:
        return Failure(cell, str(error), self.folder(at or cell) / "log.txt")


def training_folder(output: Path, cell: Cell, train_fraction: float) -> Path:
    """Return the folder of a cell's training below that of its benchmark."""
    share = "" if train_fraction == 1.0 else f"_{train_fraction:g}"
    return output / f"{source_name(cell.source)}{share}" / f"seed{cell.seed}" / cell.method


def _is_evaluated(folder: Path, shifted: bool) -> bool:
    """Return whether the evaluation in a folder is whole and of the network that is there."""
    path = folder / "evaluation.json"
    wanted = [path, *([folder / SHIFTED_FILE] if shifted else [])]
    models = set()
    for file in wanted:
        try:
            record = read_object(file, "an evaluation", "") if file.is_file() else {}
        except ValueError:  # damaged: it is written anew
            record = {}
        # Someone may have evaluated another split in this folder since.
        models.add(record.get("model_sha256") if record.get("split", SPLITS[-1]) == SPLITS[-1] else None)
    if None in models or not path.with_suffix(".csv").is_file():
        return False
    return models == {sha256_file(folder / "models" / "model.pt")}


def _is_whole(artifact: Path) -> bool:
    try:
        return artifact.is_file() and bool(read_manifest(artifact))
    except (FileNotFoundError, ValueError):
        return False
