"""Ignite handler that turns an evaluator's predictions into per-domain results."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from torch import Tensor

from mixstyleflow_monai.artifacts import differences, write_json
from mixstyleflow_monai.data import RegionEncoding
from mixstyleflow_monai.data.dataset_description import read_json
from mixstyleflow_monai.evaluation.metrics import CaseResult, dice_percent, surface_distance
from mixstyleflow_monai.evaluation.summary import Record, print_table, summarise, write_cases
from mixstyleflow_monai.processes import gather_objects, is_first

logger = logging.getLogger(__name__)


class DomainEvaluation:
    """Compare label maps with references on the original grid and write ``evaluation.json`` and ``.csv``.

    Attach to an evaluator whose output items hold ``pred``, an integer label map (1, ...) on the original grid, and
    ``label``, the reference (1, ...) as on disk, and whose batch items hold ``case_id``, ``domain`` and, where it is
    known, ``group``.

    Of several processes (`mixstyleflow_monai.data.ProcessSampler`) the first one writes, with the rows of all of them
    in the order of the data set and every case once.

    Args:
        encoding: regions of the label values.
        source_domain: name of the domain that was trained on.
        output_dir: folder to write to.
        phase: 1 or 3.
        seed: of the training.
        facts: further entries of the record.
        show_table: print the table at the end.
        replace: whether the evaluation of another data set or split may be replaced.
    """

    def __init__(
        self,
        encoding: RegionEncoding,
        source_domain: str,
        output_dir: str | os.PathLike[str],
        *,
        phase: int,
        seed: int = 0,
        facts: Mapping[str, Any] | None = None,
        show_table: bool = True,
        replace: bool = True,
    ) -> None:
        self.encoding = encoding
        self.source_domain = source_domain
        self.output_dir = Path(output_dir)
        self.phase = phase
        self.seed = seed
        self.facts = dict(facts or {})
        self.show_table = show_table
        self.replace = replace
        self.results: list[CaseResult] = []
        self.record: Record = {}

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Any) -> None:
        self.results = []
        if not self.replace:
            self._check_other()

    def _check_other(self) -> None:
        """Refuse to write over the evaluation of another data set or split, before anything is computed."""
        path = self.output_dir / "evaluation.json"
        if not path.is_file():
            return
        then = read_json(path, remedy="Move it away, or give another --output_dir.")
        if not isinstance(then, dict):
            raise ValueError(
                f"{path}: is no evaluation of one training, and would be replaced. Give another --output_dir."
            )
        names = [name for name in ("dataset_sha256", "split") if name in self.facts and name in then]
        different = differences({name: then[name] for name in names}, {name: self.facts[name] for name in names}, 20)
        if different:
            raise ValueError(
                f"{path}: holds another evaluation ({'; '.join(different)}), which would be replaced. Give another "
                "--output_dir, with --ckpt_path for the model that is here, or --replace true."
            )

    def _collect(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            of_case = {"case_id": item["case_id"], "domain": item["domain"], "group": item.get("group", "")}
            self.results += compare_case(output["pred"], output["label"], self.encoding, **of_case)

    def _finish(self, engine: Any) -> None:
        self.results = in_order_of_cases(gather_objects(self.results))
        self.record = summarise(self.results, self.source_domain, phase=self.phase, seed=self.seed, facts=self.facts)
        engine.state.metrics.update({f"{name}_dice": self.record[f"{name}_mean_dice"] for name in ("source", "unseen")})
        if not is_first():
            return
        write_cases(self.output_dir / "evaluation.csv", self.results, phase=self.phase, seed=self.seed)
        write_json(self.output_dir / "evaluation.json", self.record)
        logger.info("wrote %s", self.output_dir / "evaluation.json")
        if self.show_table:
            print_table([self.record])


def in_order_of_cases(parts: Sequence[Sequence[CaseResult]]) -> list[CaseResult]:
    """Return the rows of all processes as one process would have them.

    Args:
        parts: by process, the rows of its cases: of every n-th case of n processes, or of all cases in each.
    """
    by_process = [[list(rows) for _, rows in groupby(part, key=lambda row: row.case_id)] for part in parts]
    cases = (case for turn in zip_longest(*by_process) for case in turn if case is not None)
    once = {case[0].case_id: case for case in cases}
    return [row for case in once.values() for row in case]


def compare_case(
    prediction: Tensor, label: Tensor, encoding: RegionEncoding, *, case_id: str, domain: str, group: str = ""
) -> list[CaseResult]:
    """Return a row a region for one case.

    Args:
        prediction: label map (1, H, W[, D]).
        label: reference of the same shape; as a `MetaTensor` of a volume its affine gives the voxel size in mm.
        encoding: regions.
        case_id: id of the case.
        domain: its domain.
        group: its patient or field.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != label.shape:
        raise ValueError(
            f"case {case_id}: prediction {tuple(prediction.shape)} and label {tuple(label.shape)} are on different "
            "grids. Image and label files must have the same size; check the data set."
        )
    volume = label.ndim == 4
    spacing = [float(s) for s in label.pixdim] if volume and isinstance(label, MetaTensor) else None
    predicted = encoding.masks(torch.as_tensor(prediction).as_subclass(torch.Tensor))
    reference = encoding.masks(torch.as_tensor(label).as_subclass(torch.Tensor))
    unit = "mm" if spacing is not None else "px"
    return [
        CaseResult(case_id, domain, name, dice_percent(p, r), surface_distance(p, r, spacing), unit, group)
        for name, p, r in zip(encoding.names, predicted, reference, strict=True)
    ]
