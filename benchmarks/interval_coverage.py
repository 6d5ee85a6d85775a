"""How often intervals of a comparison hold the truth, by number of seeds: ``python -m benchmarks.interval_coverage``.

Differences of two methods are drawn with a true mean of 0: a share that a training has in all cases, and one of each
case. Counted is how often the bootstrap over cases and seeds, and Student's interval over seeds, hold 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import fire
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from mixstyleflow_monai.evaluation import paired_bootstrap


def coverage(
    seeds: int, ratio: float, *, cases: int, trials: int, resamples: int, seed: int = 0
) -> tuple[float, float]:
    """Return the shares of trials in which the bootstrap's and Student's interval hold the truth.

    Args:
        seeds: trainings.
        ratio: standard deviation between trainings, in standard errors of the mean over cases.
        cases: of each training, the same ones.
        trials: repetitions.
        resamples: of the bootstrap.
        seed: of the first trial.
    """
    held = np.zeros(2)
    for trial in range(trials):
        random = np.random.default_rng(seed + trial)
        of_case = random.normal(0.0, 1.0, size=cases)
        of_training = random.normal(0.0, ratio / np.sqrt(cases), size=(seeds, 1))
        found = paired_bootstrap(
            {("source", "unseen"): pd.DataFrame(of_case + of_training)}, resamples=resamples, seed=trial
        )
        if found is None or found.over_seeds is None:
            raise ValueError(f"seeds={seeds}: expected two or more.")
        held += [found.low <= 0 <= found.high, found.over_seeds[0] <= 0 <= found.over_seeds[1]]
    return float(held[0] / trials), float(held[1] / trials)


def main(
    seeds: Sequence[int] = (2, 3, 4, 5, 6),
    ratios: Sequence[float] = (0.3, 1.0, 3.0, 10.0),
    cases: int = 60,
    trials: int = 1000,
    resamples: int = 1000,
) -> None:
    """Measure and print.

    Args:
        seeds: numbers of trainings.
        ratios: standard deviations between trainings, in standard errors of the mean over cases.
        cases: of each training.
        trials: repetitions.
        resamples: of the bootstrap.
    """
    table = Table(
        title="Intervals that hold the truth, in percent: bootstrap over cases and seeds / Student over seeds"
    )
    table.add_column("seeds")
    for ratio in ratios:
        table.add_column(f"between seeds {ratio:g} times the error over cases")
    for count in tqdm(seeds, desc="numbers of seeds"):
        found = [coverage(count, ratio, cases=cases, trials=trials, resamples=resamples) for ratio in ratios]
        table.add_row(str(count), *(f"{100 * first:.0f} / {100 * second:.0f}" for first, second in found))
    Console(width=140).print(table)


if __name__ == "__main__":
    fire.Fire(main)
