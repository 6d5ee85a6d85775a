"""Phase I, equal-steps baseline and Phase III on the two phantoms: ``python -m benchmarks.phantom``."""

from __future__ import annotations

from pathlib import Path

import fire

from benchmarks.experiment import Experiment, report, run_experiments
from data_prep.phantom import make_phantom

TASKS = ("prostate", "fundus")


def main(output: str = "runs/phantom", seeds: tuple[int, ...] = (0, 1, 2), tasks: tuple[str, ...] = TASKS) -> None:
    """Make the phantoms (data seed 0), run all seeds of training, and print the tables. Goes on where it stopped.

    Args:
        output: folder for data sets, runs and tables.
        seeds: of the trainings.
        tasks: "prostate", "fundus".
    """
    root = Path(output)
    tasks = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    seeds = (seeds,) if isinstance(seeds, int) else tuple(seeds)
    experiments = []
    for task in tasks:
        dataset = root / "data" / task
        make_phantom(task, str(dataset), seed=0)
        experiments.append(Experiment(f"{task}_phantom", dataset, seeds))
    run_experiments(experiments, root)
    report(experiments, root)


if __name__ == "__main__":
    fire.Fire(main)
