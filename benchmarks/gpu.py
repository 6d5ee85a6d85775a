"""Does everything run on a GPU, how fast, and with the CPU's results? ``python -m benchmarks.gpu OUTPUT``.

Three parts, some minutes on one data-centre GPU:

- steps: time and largest memory of a training step of Phase I and Phase III in every precision, compiled and not;
- same: losses of the first steps and gradients of the first on the GPU against those of the CPU, from the same weights
  and images, without noise; float32 without TF32 must agree, mixed precision must be near;
- phases: the three phases, their evaluation and an inference of the bundles on the embedded phantom, in mixed precision
  and compiled; the network is evaluated on the CPU as well, and the mean Dice must agree.

The report is printed and written to ``OUTPUT/gpu.json``. The exit code is 1 if results differ by more than the limits.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fire
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.steps import Setting, flattened, relative_difference, run_steps
from mixstyleflow_monai.artifacts import write_json
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir

LIMITS = {"float32": 1e-3, "mixed": 0.05, "dice": 0.5}
"""Relative differences of losses, and the difference of the mean Dice in percent."""
PARTS = ("same", "steps", "phases")


def main(
    output: str,
    device: str = "cuda",
    parts: str = ",".join(PARTS),
    size: int = 224,
    batch_size: int = 20,
    steps: int = 20,
    compile: bool | str = True,
    epochs: int = 2,
) -> None:
    """Run the parts and write the report.

    Args:
        output: folder for the report, the phantom and the trainings.
        device: to test; "cpu" tries out this script.
        parts: some of same, steps and phases, separated by commas.
        size: height and width of the images of a step.
        batch_size: images a step.
        steps: timed steps of each setting.
        compile: backend of the compiled settings, see the option ``compile`` of the bundles.
        epochs: of each phase.

    Raises:
        ValueError: an unknown part, or a device that is not there.
        SystemExit: results differ.
    """
    chosen = list(parts) if isinstance(parts, tuple | list) else parts.split(",")
    if not chosen or not set(chosen) <= set(PARTS):
        raise ValueError(f"--parts {parts!r}: expected some of {', '.join(PARTS)}.")
    from mixstyleflow_monai.engines.computation import checked_device

    place = checked_device(device)
    console = Console(width=120)
    report: dict[str, Any] = {"device": _name(place), "torch": torch.__version__, "cuda": torch.version.cuda}
    console.print(report)
    if "same" in chosen:
        report["same"] = _same(place, size=size, batch_size=min(batch_size, 4))
        console.print_json(data=report["same"])
    if "steps" in chosen:
        report["steps"] = _steps(place, size, batch_size, steps, compile)
        console.print(_table(report["steps"], f"{batch_size} images of {size} x {size} a step"))
    if "phases" in chosen:
        report["phases"] = _phases(Path(output), place, compile, epochs)
        console.print_json(data=report["phases"])
    write_json(Path(output) / "gpu.json", report)
    wrong = [name for name, ok in _verdicts(report).items() if not ok]
    if wrong:
        raise SystemExit(f"results differ by more than {LIMITS}: {', '.join(wrong)}")


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"


def _same(device: torch.device, **options: Any) -> dict[str, Any]:
    """Compare three steps with those of the CPU in float32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    result: dict[str, Any] = {}
    # Adam's first steps have the size of the learning rate however small the gradient, and so blow up rounding.
    options["learning_rate"] = 1e-4
    for styled in (False, True):
        expected = run_steps(torch.device("cpu"), Setting(), steps=3, styled=styled, **options)
        for name, setting in (("float32", Setting()), ("mixed", Setting(amp=True))):
            found = run_steps(device, setting, steps=3, styled=styled, **options)
            losses = [abs(a - b) / abs(b) for a, b in zip(found.losses, expected.losses, strict=True)]
            gradients = relative_difference(flattened(found.gradients), flattened(expected.gradients))
            phase = "phase 3" if styled else "phase 1"
            result[f"{phase}, {name}"] = {"loss": max(losses), "gradient": gradients}
    return result


def _steps(device: torch.device, size: int, batch_size: int, steps: int, compile: bool | str) -> list[dict[str, Any]]:
    torch.backends.cudnn.allow_tf32 = True
    settings = [
        Setting(channels_last=False),
        Setting(),
        Setting(amp="bfloat16"),
        Setting(amp="bfloat16", compile=compile),
    ]
    if device.type == "cuda":
        settings.insert(3, Setting(amp="float16"))
    rows = []
    for styled in (False, True):
        for setting in settings:
            torch.compiler.reset()
            start = time.perf_counter()
            seen = run_steps(
                device, setting, steps=steps + 3, size=size, batch_size=batch_size, styled=styled, noise_std=0.05
            )
            rows.append(
                {
                    "phase": 3 if styled else 1,
                    "setting": str(setting),
                    "seconds_a_step": seen.median,
                    "images_a_second": batch_size / seen.median,
                    "memory_mib": seen.memory_mib,
                    "seconds_in_all": time.perf_counter() - start,
                }
            )
    return rows


def _table(rows: list[dict[str, Any]], title: str) -> Table:
    table = Table("phase", "setting", "ms a step", "images a s", "memory MiB", "s in all", title=title)
    for row in rows:
        numbers = (1000 * row["seconds_a_step"], row["images_a_second"], row["memory_mib"], row["seconds_in_all"])
        table.add_row(str(row["phase"]), row["setting"], *(f"{number:.0f}" for number in numbers))
    return table


def _phases(output: Path, device: torch.device, compile: bool | str, epochs: int) -> dict[str, Any]:
    """Train, evaluate and infer through ``monai.bundle``, and evaluate once more on the CPU in float32."""
    dataset = output / "phantom"
    if not (dataset / "dataset.json").is_file():
        _run("data_prep", "phantom", "prostate", str(dataset))
    folders = {phase: output / f"phase{phase}" for phase in PHASE_BUNDLES}
    before = {"phase1_dir": folders[1], "phase2_dir": folders[2]}
    result: dict[str, Any] = {}
    for phase in PHASE_BUNDLES:
        options: dict[str, Any] = {
            "device": str(device),
            "max_epochs": epochs,
            **dict(list(before.items())[: phase - 1]),
        }
        if phase != 2:
            options |= {"amp": True, "compile": compile}
        result[f"phase {phase}"] = _bundle(phase, ("train", "demo"), dataset, folders[phase], **options)
        result[f"phase {phase}, evaluation"] = _bundle(
            phase, ("evaluate",), dataset, folders[phase], device=str(device), **({} if phase == 2 else {"amp": True})
        )
    on_device = json.loads((folders[3] / "evaluation.json").read_text(encoding="utf-8"))
    result["phase 3, inference"] = _bundle(3, ("inference",), dataset, folders[3], device=str(device), amp=True)
    result["phase 3, evaluation on the CPU"] = _bundle(3, ("evaluate",), dataset, folders[3], device="cpu")
    on_cpu = json.loads((folders[3] / "evaluation.json").read_text(encoding="utf-8"))
    for name in ("source_mean_dice", "unseen_mean_dice"):
        result[name] = {"device": on_device[name], "cpu": on_cpu[name]}
    return result


def _bundle(phase: int, names: tuple[str, ...], dataset: Path, folder: Path, **options: Any) -> float:
    """Run a configuration and return the seconds."""
    configs = bundles_dir() / PHASE_BUNDLES[phase] / "configs"
    files = [str(configs / f"{name}.json") for name in names]
    given = {"dataset_dir": dataset, "output_dir": folder, **options}
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    start = time.perf_counter()
    _run("monai.bundle", "run", "--config_file", str(files), *words)
    return time.perf_counter() - start


def _run(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-m", module, *arguments], check=True)


def _verdicts(report: dict[str, Any]) -> dict[str, bool]:
    """Tell which results are within the limits."""
    verdicts = {name: values["loss"] <= LIMITS[name.split(", ")[1]] for name, values in report.get("same", {}).items()}
    for name, values in report.get("phases", {}).items():
        if isinstance(values, dict):
            verdicts[name] = abs(values["device"] - values["cpu"]) <= LIMITS["dice"]
    return verdicts


if __name__ == "__main__":
    fire.Fire(main)
