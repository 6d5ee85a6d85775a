"""One command for the whole method: the three phases, the evaluation and its table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixstyleflow_monai import bundle_paths, bundle_runs
from mixstyleflow_monai.artifacts import differences, sha256_file, write_json
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.bundle_runs import (
    MODEL,
    TABLES,
    TRAININGS,
    check_places,
    evaluate_model,
    is_evaluated,
    join_evaluations,
)
from mixstyleflow_monai.data.dataset_description import check_files, read_json
from mixstyleflow_monai.done_phases import check_finished, is_done, made_from
from mixstyleflow_monai.evaluation.summary import BASELINE
from mixstyleflow_monai.option_numbers import is_expression
from mixstyleflow_monai.options import (
    check_image_level,
    check_loss,
    check_overlays,
    check_settings,
    check_style_levels,
    checked_switch,
    overrides_by_phase,
    words,
)
from mixstyleflow_monai.stopping import only_one

if TYPE_CHECKING:
    from mixstyleflow_monai.data.dataset_description import DatasetDescription
    from mixstyleflow_monai.tracking import WholeRun

OTHER_FOLDER = "Give another --output_dir, or move the file away."
# What a run may go on with differently: where and in what portions it computes, and how often it shows or saves.
RESOURCE_IDS = ("device", "cache_rate", "preview_interval", "checkpoint_interval")
# What phases that others are made from leave, relative to their folders.
EARLIER = {1: MODEL, 2: "models/style_flows.pt"}
REQUEST_FILE = "run.json"
# Configuration ids that say how a run is tracked, and not what it computes.
TRACKING_IDS = ("tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0")


@dataclass(frozen=True)
class Step:
    """One training of a run.

    Attributes:
        name: folder below the run's.
        phase: 1, 2 or 3.
        overlays: configuration files laid over the bundle's train.json, in order.
        overrides: configuration values by id.
        artifact: what it leaves, relative to its folder.
    """

    name: str
    phase: int
    overlays: tuple[str, ...]
    overrides: Mapping[str, Any]
    artifact: str = MODEL


def run(
    dataset_dir: str,
    output_dir: str,
    phases: str | int | Sequence[int] = (1, 2, 3),
    seed: int = 0,
    overlay: str | Sequence[str] = (),
    baseline: bool = False,
    bundles_dir: str | None = None,
    tracking: str | None = None,
    case_pictures: bool = True,
    **overrides: Any,
) -> None:
    """Train the three phases, evaluate Phase I and Phase III, print the table and write the report.

    Stopped and started again with the same arguments it goes on where it was; what is done is skipped. Every value of
    the bundles' configurations can be given, for all phases, such as --max_epochs 20, --image_size "[160,160]",
    --batch_size 10 or --device cpu, and for one phase with phaseN: in front, such as --phase2:max_epochs 50.

    Args:
        dataset_dir: folder with dataset.json.
        output_dir: folder for everything that is written: phase1/, phase2/, phase3/, evaluation.json, .csv and
            report.html.
        phases: which phases, for example 1,2,3; earlier ones must be done already if they are left out.
        seed: of every phase.
        overlay: names of overlay files in the bundles' configs folders, such as "demo"; a bundle may lack some.
        baseline: also train and evaluate the equal-steps baseline, Phase III without a stylizer, in baseline/.
        bundles_dir: folder of the bundles; default: the checkout's, or those that came with the package.
        tracking: "mlflow" for one MLflow run of all phases with a child run a phase, in mlruns.db below output_dir or
            where --tracking_uri or MLFLOW_TRACKING_URI says; or a file with MONAI's tracking settings.
        case_pictures: write a picture of every test case, and show some of them in the report.
        **overrides: configuration values of all phases by id, for example --max_epochs 20; "phaseN:" in front means
            one phase only, for example --phase2:max_epochs 50.
    """
    if tracking is not None and tracking != "mlflow" and not Path(str(tracking)).is_file():
        raise ValueError(f"tracking={tracking!r}: expected mlflow, or a file with MONAI's tracking settings.")
    description = _load_dataset(dataset_dir)
    root = bundle_paths.bundles_dir(bundles_dir)
    out = Path(output_dir).resolve()
    check_places(out, description)
    wanted = _parse_phases(phases)
    baseline = _checked_baseline(baseline, wanted)
    case_pictures = checked_switch(case_pictures, "case_pictures")
    overlays = words(overlay)
    check_overlays(root, overlays)
    by_phase = overrides_by_phase(root, overrides, run)
    _check_own(by_phase)
    _check_earlier(by_phase, wanted)
    steps = _steps(root, out, str(description.path), wanted, seed, overlays, by_phase, baseline)
    _check_steps(root, steps, description)
    request = _request(root, description.sha256, seed, overlays, by_phase)
    with only_one(out):
        _begin(root, out, steps, request)
        with _tracked(tracking, out, description, request, by_phase) as whole:
            for step in steps:
                _train(root, out, step, description.sha256, whole, tracking)
            for step in (evaluated := [step for step in steps if step.phase != 2]):
                _evaluate(root, out, step, description, whole, case_pictures=case_pictures)
            if evaluated:
                join_evaluations(out, _evaluated(out, description.sha256), whole)


def _check_steps(root: Path, steps: Sequence[Step], description: Any) -> None:
    """Check the settings of each phase, and those that have to fit each other."""
    settings = {step.name: _settings(root, step) for step in steps}
    if {"phase1", "phase2"} <= settings.keys():
        check_image_level(settings["phase1"], settings["phase2"])
    if {"phase1", "phase3"} <= settings.keys():
        check_loss(settings["phase1"], settings["phase3"])
    earlier = {phase: settings[f"phase{phase}"] for phase in (1, 2) if f"phase{phase}" in settings}
    for step in steps:
        if step.phase == 3 and "phase2" in settings:  # which is checked for itself by then
            check_style_levels(settings["phase2"], settings["phase3"])
        check_settings(step.phase, settings[step.name], description, earlier)


def _checked_baseline(baseline: bool | str, phases: Sequence[int]) -> bool:
    asked = checked_switch(baseline, "baseline")
    if asked and 3 not in phases:
        raise ValueError(
            f"--baseline with --phases {','.join(map(str, phases))}: it is phase 3 without styles. Add phase 3, or "
            "leave it out."
        )
    return asked


def _check_own(by_phase: Mapping[int, Mapping[str, Any]]) -> None:
    """Refuse options that would have phases miss each other's files, or a result bear the name of another method."""
    given = set().union(*by_phase.values())
    if "method" in given:
        raise ValueError(
            "--method: is only the name that a training records, and does not choose what is trained. For another "
            "method use `benchmark --methods`, for the training without styles --baseline."
        )
    if by_phase.get(3, {}).get("stylizer", {}) is None:
        raise ValueError(
            "--stylizer null: would name a training without styles after the method. That training is the baseline: "
            "give --baseline."
        )
    for name in sorted(given & {"imports", "initialize", "run", "bundle_root"}):
        raise ValueError(f"--{name}: is what a bundle consists of, and no setting. Leave it out.")
    for name in sorted(given & {"model_dir", "model_path", "checkpoint_dir"}):
        raise ValueError(
            f"--{name}: each phase has a folder of its own below --output_dir, where the next looks for it."
        )


def _check_earlier(by_phase: Mapping[int, Mapping[str, Any]], phases: Sequence[int]) -> None:
    """Refuse another folder for a phase that is trained here, and one without what that phase leaves."""
    for phase, artifact in EARLIER.items():
        name = f"phase{phase}_dir"
        given = {str(values[name]) for values in by_phase.values() if name in values}
        for value in (value for value in given if not is_expression(value)):
            if phase in phases:
                raise ValueError(
                    f"--{name} {value}: phase {phase} is among --phases {','.join(map(str, phases))}, and the phases "
                    "after it use that one. Leave out the one or the other."
                )
            if not (Path(value) / artifact).is_file():
                raise ValueError(f"--{name} {value}: no {artifact} there. Give the folder of a trained phase {phase}.")
            # What the phases of this run take as well was checked by their names alone.
            unused = sorted(set(by_phase[phase]).difference(*(by_phase[other] for other in phases)))
            if unused:
                raise ValueError(
                    f"--{', --'.join(unused)}: only phase {phase} has that, and it comes from --{name} {value} as it "
                    "was trained. Leave it out, or train that phase here."
                )


def _load_dataset(dataset_dir: str) -> Any:
    from mixstyleflow_monai.data import check_headers, load_dataset

    description = load_dataset(str(dataset_dir))
    description.select("train")  # Refuses one without a source domain before its files are read.
    return check_headers(check_files(description))


def _parse_phases(phases: str | int | Sequence[int]) -> tuple[int, ...]:
    parts = words(phases)
    numbers = tuple(sorted({int(part) for part in parts})) if all(part.strip().isdigit() for part in parts) else ()
    if not numbers or not set(numbers) <= set(PHASE_BUNDLES):
        raise ValueError(f"phases={phases!r}: expected some of 1, 2 and 3 separated by commas, for example 1,2,3.")
    return numbers


def _steps(
    root: Path,
    out: Path,
    dataset: str,
    phases: Sequence[int],
    seed: int,
    overlays: Sequence[str],
    by_phase: Mapping[int, Mapping[str, Any]],
    baseline: bool,
) -> list[Step]:
    steps: list[Step] = []
    for phase in phases:
        configs = root / PHASE_BUNDLES[phase] / "configs"
        files = tuple(str(configs / f"{o}.json") for o in overlays if (configs / f"{o}.json").is_file())
        common = {"dataset_dir": dataset, "seed": seed, "bundle_root": str(root / PHASE_BUNDLES[phase])}
        if phase >= 2:
            common["phase1_dir"] = str(out / "phase1")
        if phase == 3:
            common["phase2_dir"] = str(out / "phase2")
        settings = {**common, **by_phase[phase]}
        steps.append(Step(f"phase{phase}", phase, files, settings, EARLIER.get(phase, MODEL)))
        if phase == 3 and baseline:
            no_stylizer = str(configs / "methods" / f"{BASELINE}.json")
            steps.append(Step("baseline", phase, (*files, no_stylizer), settings))
    return steps


def _settings(root: Path, step: Step) -> dict[str, Any]:
    """Return the merged top level of a step's configuration files and its overrides."""
    settings: dict[str, Any] = {}
    for file in (str(root / PHASE_BUNDLES[step.phase] / "configs" / "train.json"), *step.overlays):
        settings |= json.loads(Path(file).read_text(encoding="utf-8"))
    return settings | dict(step.overrides)


def _begin(root: Path, out: Path, steps: Sequence[Step], request: Mapping[str, Any]) -> None:
    """Check what is in the folder already, and record what is asked for."""
    _check_same_request(out, request)
    check_finished(
        {out / step.name / step.artifact: _settings(root, step) for step in steps}, request["dataset_sha256"]
    )
    write_json(out / REQUEST_FILE, request)


def _request(
    root: Path, dataset_sha256: str, seed: int, overlays: Sequence[str], by_phase: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what a run's results depend on, as JSON values."""
    files = [root / name / "configs" / f"{o}.json" for name in PHASE_BUNDLES.values() for o in ("train", *overlays)]
    request = {
        "dataset_sha256": dataset_sha256,
        "seed": seed,
        "overlay": list(overlays),
        **{
            f"phase {phase}": {n: value for n, value in values.items() if n not in (*TRACKING_IDS, *RESOURCE_IDS)}
            for phase, values in by_phase.items()
        },
        **{f"SHA-256 of {f.relative_to(root).as_posix()}": sha256_file(f) for f in files if f.is_file()},
    }
    loaded: dict[str, Any] = json.loads(json.dumps(request))
    return loaded


def _check_same_request(out: Path, request: Mapping[str, Any]) -> None:
    """Refuse to go on in a folder that holds a run with other settings: its results would be a mixture."""
    from mixstyleflow_monai.report.run_report import REPORT_FILE, check_replaceable

    path = out / REQUEST_FILE
    then: Any = read_json(path, remedy=OTHER_FOLDER) if path.is_file() else None
    check_replaceable(out / REPORT_FILE)
    ours = isinstance(then, dict) and {"dataset_sha256", "seed", "overlay"} <= then.keys()
    for name in (*TABLES, REQUEST_FILE):
        if (out / name).exists() and not ours:
            raise ValueError(f"{out / name}: is there, and not of a run; it would be replaced. {OTHER_FOLDER}")
    begun = {file.parts[-3] for kind in ("models", "checkpoints") for file in out.glob(f"*/{kind}/*")}
    if ours and begun:
        for phase in PHASE_BUNDLES:
            # What is asked of a phase that has nothing yet may still change.
            if not begun & ({f"phase{phase}", "baseline"} if phase == 3 else {f"phase{phase}"}):
                then[f"phase {phase}"] = request.get(f"phase {phase}")
        different = differences(_flat(then), _flat(request))
        if different:
            raise ValueError(
                f"{out}: holds a run with other settings ({'; '.join(different)}). Use the same settings to go on, or "
                "another --output_dir for a new run."
            )


def _flat(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of each phase one by one, so that a message names those that differ."""
    flat: dict[str, Any] = {}
    for name, value in request.items():
        flat |= {f"{name}, {option}": v for option, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _tracked(
    tracking: str | None,
    out: Path,
    description: Any,
    request: Mapping[str, Any],
    by_phase: Mapping[int, Mapping[str, Any]],
) -> AbstractContextManager[WholeRun | None]:
    """Return the MLflow run of the whole as a context manager; an empty one if tracking is another or off."""
    if tracking != "mlflow":
        return nullcontext()
    from mixstyleflow_monai.tracking import WholeRun

    given = {name: value for values in by_phase.values() for name, value in values.items() if name in TRACKING_IDS}
    hashes = ("SHA-256", "dataset_sha256")
    return WholeRun(
        out,
        str(given.get("experiment_name", description.name)),
        str(given.get("run_name", f"{out.name}, seed {request['seed']}")),
        {
            "dataset": description.name,
            "dataset_sha256": description.sha256,
            "source_domain": description.source_domain,
            **{name: value for name, value in request.items() if not name.startswith(hashes)},
        },
        given.get("tracking_uri"),
    )


def _train(
    root: Path,
    out: Path,
    step: Step,
    dataset_sha256: str,
    whole: WholeRun | None = None,
    tracking: str | None = None,
) -> None:
    folder = out / step.name
    # Again: what it was made from may have been trained to its end just now.
    check_finished({folder / step.artifact: _settings(root, step)}, dataset_sha256)
    if is_done(folder / step.artifact):
        print(f"{folder} is done, skipped", flush=True)
        if whole is not None:
            whole.finished_phase(folder, folder / step.artifact)
        return
    configs = root / PHASE_BUNDLES[step.phase] / "configs"
    with _phase_run(whole, folder, tracking) as options:
        bundle_runs.run_bundle(
            [str(configs / "train.json"), *step.overlays], {**step.overrides, "output_dir": str(folder), **options}
        )


def _phase_run(
    whole: WholeRun | None, folder: Path, tracking: str | None = None
) -> AbstractContextManager[dict[str, Any]]:
    """Return the options with which a phase is tracked, as a context manager; none if it is not."""
    if whole is not None:
        return whole.phase(folder)
    return nullcontext({"tracking": tracking} if tracking not in (None, "mlflow") else {})


def _evaluate(
    root: Path,
    out: Path,
    step: Step,
    description: DatasetDescription,
    whole: WholeRun | None = None,
    *,
    case_pictures: bool = True,
) -> None:
    folder = out / step.name
    # Someone may have evaluated another split in this folder since.
    if is_evaluated(folder, folder / step.artifact, description.sha256):
        return
    with _phase_run(whole, folder) as options:
        device = {name: step.overrides[name] for name in ("device",) if name in step.overrides}
        shown = {"case_pictures": case_pictures}
        evaluate_model(root, step.phase, str(description.path), folder, **shown, **device, **options)


def _evaluated(out: Path, dataset_sha256: str) -> list[str]:
    """Return the trainings in a run's folder that were evaluated on the test cases of its data set."""
    models = {name: out / name / MODEL for name in TRAININGS}
    names = [n for n, model in models.items() if model.is_file() and is_evaluated(out / n, model, dataset_sha256)]
    later = [models[name] for name in names if name != "phase1"]
    # A Phase I that the later trainings did not start from (theirs is that of --phase1_dir) is not beside them.
    return [name for name in names if name != "phase1" or made_from(later, models[name])]
