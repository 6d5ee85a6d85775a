"""What it saves on a CPU under Linux to let the C library keep memory: ``python -m benchmarks.allocator``.

glibc gives large tensors back to the system when they are freed and asks for them again in the next layer; each new
page is a fault, which costs most on virtual machines. With `KEEP` in the environment it keeps them. Both ways take the
same training steps of Phase III in processes of their own, turn about; printed are CPU seconds a step and their ratio
in the same round. The numbers that a training computes are the same.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys

import fire
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.steps import Setting, run_steps

KEEP = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
}
"""One heap for all threads, tensors of up to 4 GiB in it, and up to 16 GiB of it kept when free."""


def main(
    rounds: int = 3, steps: int = 12, size: int = 96, batch_size: int = 20, amp: bool = True, child: bool = False
) -> None:
    """Measure and print.

    Args:
        rounds: of one process each way.
        steps: timed steps of a process.
        size: height and width of an image.
        batch_size: images a step.
        amp: bfloat16 rather than float32.
        child: take the steps in this process and print their median time and the last loss as JSON.
    """
    if child:
        torch.set_num_threads(1)
        setting = Setting(amp=amp)
        seen = run_steps(torch.device("cpu"), setting, steps=steps + 1, size=size, batch_size=batch_size, styled=True)
        print(json.dumps({"seconds": seen.median_cpu, "loss": seen.losses[-1]}))
        return
    options = [f"--{name}={value}" for name, value in {"steps": steps, "size": size, "batch_size": batch_size}.items()]
    command = [sys.executable, "-m", "benchmarks.allocator", "--child", *options, f"--amp={amp}"]
    table = Table("round", "as it comes", "memory kept", "ratio", "same loss", title="CPU s a step, one thread")
    ratios = []
    plain_environment = {name: value for name, value in os.environ.items() if name not in (*KEEP, "GLIBC_TUNABLES")}
    for number in range(1, rounds + 1):
        found = {}
        # Turn about, so that a load which grows or falls favours neither.
        for extra in (KEEP, {}) if number % 2 == 0 else ({}, KEEP):
            done = subprocess.run(command, env={**plain_environment, **extra}, check=True, stdout=subprocess.PIPE)
            found[bool(extra)] = json.loads(done.stdout)
        plain, kept = found[False], found[True]
        ratios.append(kept["seconds"] / plain["seconds"])
        same = str(kept["loss"] == plain["loss"])
        table.add_row(str(number), f"{plain['seconds']:.3f}", f"{kept['seconds']:.3f}", f"{ratios[-1]:.2f}", same)
    console = Console(width=100)
    console.print(table)
    libc = " ".join(platform.libc_ver())
    console.print(f"median ratio {statistics.median(ratios):.2f}, load {os.getloadavg()[0]:.1f}, {libc}")


if __name__ == "__main__":
    fire.Fire(main)
