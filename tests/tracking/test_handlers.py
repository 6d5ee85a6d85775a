"""Tests of the handlers on a toy training, in which everything can be made to happen."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import StatsHandler

from mixstyleflow_monai.artifacts import write_manifest
from mixstyleflow_monai.tracking import EvaluationTracker, Store, TrainingTracker, WholeRun, embedded_store
from mixstyleflow_monai.tracking.contents import evaluation_values, executed_config, training_parameters
from mixstyleflow_monai.tracking.handlers import adopt
from mixstyleflow_monai.tracking.run import TrackedRun

FACTS = {
    "phase": 1,
    "seed": 5,
    "source_domain": "home",
    "dataset": {"name": "discs", "sha256": "abc"},
    "cases": {"train": ["a", "b"], "validation": ["c"]},
    "settings": {"batch_size": 4, "levels": [2, 3]},
    "task": {"image_size": [32, 32]},
}
RECORD = {
    "source_mean_dice": 90.0,
    "unseen_mean_dice": None,
    "domains": {
        "home/1": {"regions": {"disc": {"dice": {"mean": 90.0, "sd": 1.0}, "asd_px": {"mean": None, "sd": None}}}},
        "füern": {"regions": {"disc": {"dice": {"mean": 50.0, "sd": None}, "asd_px": {"mean": 2.5, "sd": None}}}},
    },
}


def options(folder: Path) -> dict[str, Any]:
    return {
        "tracking_uri": embedded_store(folder),
        "experiment_name": "discs",
        "run_name": "phase 1, seed 5",
        "output_dir": folder,
    }


class ToyTrainer(Engine):
    """Two steps an epoch with losses 1, 2, 3 ..., and a metric; an error comes after a number of steps."""

    def __init__(self, error: BaseException | None = None, after: int = 3) -> None:
        super().__init__(self._step)
        self.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        self.error, self.after = error, after
        self.add_event_handler(Events.EPOCH_COMPLETED, self._measure)

    def _step(self, engine: Any, batch: Any) -> list[dict[str, Any]]:
        if self.error is not None and engine.state.iteration > self.after:
            raise self.error
        loss = torch.tensor(float(engine.state.iteration))
        return [{"loss": loss, "loss_part": 10 * loss, "image": torch.zeros(2)}]

    @staticmethod
    def _measure(engine: Any) -> None:
        engine.state.metrics["reconstruction_psnr"] = 20.0 + engine.state.epoch


def train(folder: Path, trainer: ToyTrainer, max_epochs: int = 2, validator: Engine | None = None) -> None:
    StatsHandler(iteration_log=False).attach(trainer)
    TrainingTracker(facts=FACTS, validator=validator, **options(folder)).attach(trainer)
    trainer.run([0, 1], max_epochs=max_epochs)


def runs(folder: Path) -> list[Any]:
    store = Store(embedded_store(folder))
    return list(store.client.search_runs([store.experiment_id("discs")], order_by=["attributes.start_time ASC"]))


def curve(folder: Path, run: Any, name: str) -> list[tuple[int, float]]:
    metrics = Store(embedded_store(folder)).client.get_metric_history(run.info.run_id, name)
    return [(metric.step, metric.value) for metric in metrics]


def test_curves_are_those_of_the_training(folder: Path) -> None:
    trainer, validator = ToyTrainer(), Engine(lambda engine, batch: None)

    @trainer.on(Events.EPOCH_COMPLETED)
    def _validate(engine: Any) -> None:
        validator.state.metrics = {"val_mean_dice": engine.state.epoch / 10}
        validator.run([0], max_epochs=engine.state.epoch)

    train(folder, trainer, validator=validator)
    (run,) = runs(folder)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "phase 1, seed 5")
    assert curve(folder, run, "train_loss") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert curve(folder, run, "lr_group_0") == [(step, 0.5) for step in range(1, 5)]
    assert curve(folder, run, "loss_part") == [(1, 15.0), (2, 35.0)]
    assert curve(folder, run, "reconstruction_psnr") == [(1, 21.0), (2, 22.0)]
    assert {step: value for step, value in curve(folder, run, "val_mean_dice")} == {1: 0.1, 2: 0.2}


def test_parameters_say_what_was_trained_on_what_with_what(folder: Path) -> None:
    train(folder, ToyTrainer())
    parameters = runs(folder)[0].data.params
    expected = {
        "seed": "5",
        "source_domain": "home",
        "dataset": "discs",
        "dataset_sha256": "abc",
        "train_cases": "2",
        "batch_size": "4",
        "levels": "[2, 3]",
        "task.image_size": "[32, 32]",
        "max_epochs": "2",
        "epoch_length": "2",
        "version.torch": torch.__version__,
    }
    assert {name: parameters.get(name) for name in expected} == expected
    assert parameters["git_commit"]


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("out of memory"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_training_that_breaks_off_ends_its_run_and_the_next_one_resumes_it(
    error: BaseException, status: str, folder: Path
) -> None:
    with pytest.raises(type(error)):
        train(folder, ToyTrainer(error))
    (run,) = runs(folder)
    assert run.info.status == status
    # What came before the error is there, the steps of the unfinished epoch too.
    assert curve(folder, run, "train_loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    train(folder, ToyTrainer())
    (again,) = runs(folder)
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")


def test_finished_training_that_goes_on_stays_one_run_and_a_new_one_gets_another(folder: Path) -> None:
    train(folder, ToyTrainer())
    longer = ToyTrainer()
    # As a checkpoint of epoch 2 does, before the tracker starts.
    longer.add_event_handler(
        Events.STARTED, lambda engine: (setattr(engine.state, "epoch", 2), setattr(engine.state, "iteration", 4))
    )
    train(folder, longer, max_epochs=3)
    (run,) = runs(folder)
    assert run.data.tags["resumed.max_epochs"] == "3"
    assert curve(folder, run, "train_loss")[-1] == (6, 6.0)
    train(folder, ToyTrainer())
    assert [run.info.run_name for run in runs(folder)] == ["phase 1, seed 5", "phase 1, seed 5 (2)"]


def test_evaluation_goes_into_the_run_of_the_training(folder: Path) -> None:
    train(folder, ToyTrainer())
    (folder / "evaluation.json").write_text(json.dumps(RECORD))
    evaluator = Engine(lambda engine, batch: None)
    EvaluationTracker(model_path=folder / "none.pt", **options(folder)).attach(evaluator)
    evaluator.run([0])
    (run,) = runs(folder)
    values = {name: value for name, value in run.data.metrics.items() if "dice" in name or "asd" in name}
    assert values == {"source_mean_dice": 90.0, "dice/home_1/disc": 90.0, "dice/füern/disc": 50.0} | {
        "asd_px/füern/disc": 2.5
    }
    assert run.info.status == "FINISHED"
    assert [path.name for path in (folder / "mlruns").rglob("tables/*")] == ["evaluation.json"]


def test_evaluation_elsewhere_is_a_run_with_the_parameters_of_the_manifest(folder: Path) -> None:
    (folder / "flows.pt").write_bytes(b"x")
    write_manifest(folder / "flows.pt", "style_flows", facts=FACTS)
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state.metrics = {"val_log_likelihood": -1.5}
    EvaluationTracker(model_path=folder / "flows.pt", **options(folder)).attach(evaluator)
    evaluator.run([0])
    (run,) = runs(folder)
    assert run.data.params["dataset_sha256"] == "abc"
    assert run.data.metrics == {"evaluation/val_log_likelihood": -1.5}


def uploaded(folder: Path, run: Any) -> set[str]:
    """Names of all files that were uploaded to a run, with their folder."""
    client = Store(embedded_store(folder)).client
    tops = [entry.path for entry in client.list_artifacts(run.info.run_id) if entry.is_dir]
    return {entry.path for top in tops for entry in client.list_artifacts(run.info.run_id, top)}


def test_new_training_does_not_get_the_files_of_the_one_before(folder: Path) -> None:
    (folder / "panels").mkdir()
    for path in (folder / "panels" / "epoch_0009.png", folder / "evaluation.json"):
        path.write_text("of the training before")
        os.utime(path, (1e9, 1e9))
    trainer = ToyTrainer()
    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=1), lambda: (folder / "panels/epoch_0001.png").touch())
    train(folder, trainer)
    assert uploaded(folder, runs(folder)[0]) == {"panels/epoch_0001.png"}


def test_run_of_a_phase_that_the_whole_run_opens_gets_no_older_files(folder: Path) -> None:
    phase = folder / "phase1"
    (phase / "panels").mkdir(parents=True)
    (phase / "panels" / "epoch_0009.png").touch()
    os.utime(phase / "panels" / "epoch_0009.png", (1e9, 1e9))
    with WholeRun(folder, "discs", "all", {}) as whole, whole.phase(phase) as given:
        trainer = ToyTrainer()
        trainer.add_event_handler(Events.EPOCH_COMPLETED(once=1), lambda: (phase / "panels/epoch_0001.png").touch())
        del given["tracking"]
        TrainingTracker(facts=FACTS, output_dir=phase, **given).attach(trainer)
        trainer.run([0, 1], max_epochs=2)
    (run,) = (run for run in runs(folder) if "phase1" in run.info.run_name)
    assert uploaded(folder, run) == {"panels/epoch_0001.png"}


@pytest.mark.parametrize("same", [True, False])
def test_untracked_training_is_adopted_with_no_evaluation_of_other_weights(same: bool, folder: Path) -> None:
    (folder / "models").mkdir()
    (folder / "models" / "flows.pt").write_bytes(b"x")
    manifest = write_manifest(folder / "models" / "flows.pt", "style_flows", facts=FACTS)
    record = {**RECORD, "model_sha256": manifest["sha256"] if same else "0" * 64}
    (folder / "evaluation.json").write_text(json.dumps(record))
    run = TrackedRun.open(Store(embedded_store(folder)), "discs", "old", folder)
    adopt(run, folder, folder / "models" / "flows.pt")
    (found,) = runs(folder)
    assert ("source_mean_dice" in found.data.metrics) == same
    assert uploaded(folder, found) == {"models/flows.manifest.json", *(["tables/evaluation.json"] if same else [])}


def test_step_that_is_not_finite_does_not_take_the_epoch_along(folder: Path) -> None:
    class Skipping(ToyTrainer):
        def _step(self, engine: Any, batch: Any) -> list[dict[str, Any]]:
            (output,) = super()._step(engine, batch)
            return [{**output, "loss_part": output["loss_part"] * (torch.nan if engine.state.iteration == 1 else 1)}]

    train(folder, Skipping())
    assert curve(folder, runs(folder)[0], "loss_part") == [(1, 20.0), (2, 35.0)]


def test_executed_configuration_is_found_where_monai_gives_a_text(tmp_path: Path) -> None:
    assert executed_config(tmp_path, None) is None
    assert executed_config(tmp_path, f"{tmp_path} + '/config_2.json'") is None
    for number in (1, 2):
        (tmp_path / f"config_{number}.json").touch()
    assert executed_config(tmp_path, f"{tmp_path} + '/config_2.json'") == tmp_path / "config_2.json"
    assert executed_config(tmp_path, str(tmp_path / "config_1.json")) == tmp_path / "config_1.json"


def test_versions_and_commit_of_a_manifest_come_before_those_of_this_process() -> None:
    parameters = training_parameters({**FACTS, "versions": {"torch": "1.0"}, "git_commit": None})
    assert {name for name in parameters if name.startswith("version.")} == {"version.torch"}
    assert (parameters["version.torch"], parameters["git_commit"]) == ("1.0", "unknown")


def test_numbers_of_an_evaluation_have_a_name_a_domain_and_region() -> None:
    assert evaluation_values(RECORD)["asd_px/home_1/disc"] is None
    assert len(evaluation_values(RECORD)) == 6


def test_no_domain_and_no_split_takes_the_place_of_another() -> None:
    regions = RECORD["domains"]["füern"]  # type: ignore[index]
    values = evaluation_values({**RECORD, "domains": {"site #1": regions, "site @1": regions, "site _1": regions}})
    assert {name for name in values if name.startswith("dice/")} == {
        *("dice/site _1/disc", "dice/site _1/disc_2", "dice/site _1/disc_3")
    }
    assert list(evaluation_values({**RECORD, "split": "test"})) == list(evaluation_values(RECORD))
    validation = evaluation_values({**RECORD, "split": "validation"})
    assert list(validation) == [f"validation/{name}" for name in evaluation_values(RECORD)]
