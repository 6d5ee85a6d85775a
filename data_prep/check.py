"""Every check of a data set at one place (``python -m data_prep check``).

All problems are collected before any is told. An error is what training or evaluation would break or be falsified by; a
warning is what is unusual and may be meant. Cases are divided among processes, each of which holds a few slices of one
image at a time, so that memory does not grow with the number or the size of the volumes.
"""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text
from tqdm import tqdm

from data_prep.check_case import CaseJob, CaseResult, check_case
from data_prep.check_description import (
    Problem,
    dark_domains,
    domains_of_other_planes,
    duplicates,
    missing_regions,
    read_description,
    shown,
    small_domains,
)
from mixstyleflow_monai.artifacts import write_json
from mixstyleflow_monai.data.dataset_description import DatasetDescription, read_json
from mixstyleflow_monai.stopping import signals_as_exit

IMAGE_SIZE, PIXEL_SPACING = (224, 224), (0.625, 0.625)
"""Of the training configuration that is shipped, in pixels and mm."""
Field = tuple[tuple[int, ...], tuple[float, ...] | None]
# Reading is limited by the disk beyond this, and each process needs some 100 MB.
_MAX_WORKERS = 8
_SHOWN_PROBLEMS = 500
_REPORT_KEYS = {"format", "dataset", "cases", "errors", "warnings", "problems"}


def check_dataset(
    dataset: str | os.PathLike[str],
    *,
    fix_report: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    image_size: Sequence[float] = IMAGE_SIZE,
    pixel_spacing: Sequence[float] | None = PIXEL_SPACING,
    console: Console | None = None,
) -> int:
    """Check everything about a data set, print all problems in one table and say whether there are errors.

    Args:
        dataset: folder that holds ``dataset.json``, or the path of such a file. It is only read.
        fix_report: JSON file to write the same problems to; an earlier report is replaced, and nothing else.
        workers: processes, at least 1; one a core, and 8 at most, by default. With 1 no other process is started.
        image_size: pixels of the network's input, left-right and front-back, that training is to be given; for volumes,
            whose labels are looked for outside of them.
        pixel_spacing: mm of these pixels; None if whole slices are to be resized.
        console: where the table is printed; standard output by default.

    Returns:
        Exit status: 1 if there are errors, else 0, with warnings or without.

    Raises:
        FileNotFoundError: there is no such data set.
        ValueError: ``dataset.json`` is not readable JSON, the report would overwrite something else, a number of
            workers that is none, or a worker that was killed.
    """
    count = _worker_count(workers)
    field = _checked_field(image_size, pixel_spacing)
    description, problems = read_description(dataset)
    report = _report_path(fix_report, description)
    results = _check_cases(description, count, field)
    for case, result in zip(description.cases, results, strict=True):
        problems += [
            Problem(fault.severity, case.id, shown(fault.file, description), fault.text, fault.remedy)
            for fault in result.faults
        ]
    for check in (duplicates, missing_regions, dark_domains, domains_of_other_planes, small_domains):
        problems += check(description, results)
    problems.sort(key=lambda problem: problem.severity != "error")
    counts: Counter[str] = Counter(problem.severity for problem in problems)
    if report is not None:
        write_json(report, _report(description, problems, counts))
    # A pipe has no width of its own; Rich would fold the table at 80 columns.
    _print(console or Console(width=None if sys.stdout.isatty() else 160), description, problems, counts)
    return 1 if counts["error"] else 0


def _worker_count(workers: Any) -> int:
    if workers is None:
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(available, _MAX_WORKERS)
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"--workers: found {workers!r}, allowed: a whole number from 1, such as 4")
    return workers


def _checked_field(image_size: Any, pixel_spacing: Any) -> Field:
    """Check the two options that say what training sees of a volume."""
    if isinstance(pixel_spacing, str) and pixel_spacing.lower() in ("null", "none"):
        pixel_spacing = None
    for name, value, example in (
        ("image_size", image_size, "224,224"),
        ("pixel_spacing", pixel_spacing, "0.625,0.625"),
    ):
        if value is None and name == "pixel_spacing":
            continue
        numbers = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        good = [isinstance(n, int | float) and not isinstance(n, bool) and 0 < n < math.inf for n in numbers]
        if len(numbers) != 2 or not all(good):
            null = "" if name == "image_size" else ", or null"
            raise ValueError(f"--{name}: found {value!r}, allowed: two numbers above 0, such as {example}{null}")
    return tuple(int(n) for n in image_size), None if pixel_spacing is None else tuple(map(float, pixel_spacing))


def _report_path(fix_report: Any, description: DatasetDescription) -> Path | None:
    """Check before the long work that the report can be written, and that it takes the place of no data."""
    if fix_report is None:
        return None
    if isinstance(fix_report, bool) or not str(fix_report):
        raise ValueError("--fix-report: found no name, expected the JSON file to write, such as report.json")
    path = Path(fix_report)
    if path.suffix.lower() != ".json":
        raise ValueError(f"--fix-report {path}: expected a name that ends in .json, such as report.json")
    if path.is_dir():
        raise ValueError(f"--fix-report {path}: is a folder; give the name of a file in it, such as {path}/report.json")
    files = (description.path, *(file for case in description.cases for file in (case.image, case.label)))
    if os.path.realpath(path) in {os.path.realpath(file) for file in files}:
        raise ValueError(f"--fix-report {path}: is a file of the data set; give another name.")
    if not path.parent.is_dir():
        raise ValueError(f"--fix-report {path}: there is no folder {path.parent}; make it first.")
    if path.exists() and not _is_report(path):
        raise ValueError(
            f"--fix-report {path}: exists and is not a report of an earlier check, so it is not replaced; give another "
            "name, or remove it first."
        )
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(
            f"--fix-report {path}: nothing can be written to {path.parent} ({error.strerror}); give another folder."
        ) from error
    return path


def _is_report(path: Path) -> bool:
    """Say whether a file is one that :func:`check_dataset` wrote."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and set(content) == _REPORT_KEYS and content["format"] == 1


def _check_cases(description: DatasetDescription, workers: int, field: Field) -> list[CaseResult]:
    """Check each case alone; results are in the order of the cases."""
    facts = (description.spatial_dims, description.channels, description.regions, *field)
    jobs = [CaseJob(case, *facts) for case in description.cases]
    with _mapping(jobs, min(workers, len(jobs))) as results:
        try:
            return list(tqdm(results, total=len(jobs), desc=f"check {description.name}", unit="case"))
        except BrokenProcessPool as error:
            raise ValueError(
                f"{description.path}: a worker ended before it was done, most often because memory ran out; "
                "try again with --workers 1."
            ) from error


@contextmanager
def _mapping(jobs: Sequence[CaseJob], workers: int) -> Iterator[Iterator[CaseResult]]:
    """Yield the results one after the other, computed here or in processes of their own."""
    if workers <= 1:
        yield map(check_case, jobs)
        return
    # Not forked: the progress bar has a thread, and a fork copies locks that threads hold.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    with signals_as_exit():
        try:
            with _interrupts_ignored():
                results = pool.map(check_case, jobs)
            yield results
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Start processes that ignore Ctrl-C, which reaches all of them: the first one ends the others."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _end_with_parent() -> None:
    """Make this worker end when the process that started it is gone, which it would otherwise wait for without end."""

    def wait() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _report(description: DatasetDescription, problems: Sequence[Problem], counts: Counter[str]) -> dict[str, Any]:
    return {
        "format": 1,
        "dataset": description.name,
        "cases": len(description.cases),
        "errors": counts["error"],
        "warnings": counts["warning"],
        "problems": [dataclasses.asdict(problem) for problem in problems],
    }


def _print(
    console: Console, description: DatasetDescription, problems: Sequence[Problem], counts: Counter[str]
) -> None:
    """Print all problems in one table, and how many there are."""
    if problems:
        columns = [Column(name, overflow="fold") for name in ("case", "file", "fault", "remedy")]
        table = Table(Column("severity", no_wrap=True), *columns, title=f"{description.path}", show_lines=True)
        for problem in problems[:_SHOWN_PROBLEMS]:
            # Text, because brackets in names are no markup.
            table.add_row(
                Text(problem.severity, style="red" if problem.severity == "error" else "yellow"),
                *(Text(text) for text in (problem.case, problem.file, problem.fault, problem.remedy)),
            )
        console.print(table)
        if len(problems) > _SHOWN_PROBLEMS:
            console.print(f"... and {len(problems) - _SHOWN_PROBLEMS} more; --fix-report writes all of them.")
    found = ", ".join(f"{counts[kind]} {kind}{'' if counts[kind] == 1 else 's'}" for kind in ("error", "warning"))
    console.print(f"{description.name}: {len(description.cases)} cases checked, {found}", markup=False)
