"""What a benchmark will train: its cells, and the hash that tells whether a finished cell is still the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.data import DatasetDescription
from mixstyleflow_monai.data.schema_checks import did_you_mean

ARITHMETIC = 1
"""Raised when the code of a training changes so that the same settings give other results: finished cells of an older
number are not reused."""

DEFAULT_METHOD = "mixstyleflow"
BASELINE = "no_stylizer"
PHASE_ONE = "phase1"
"""Pseudo-method: the network that all methods of a seed start from, as it is."""
PHASE_TWO = "phase2"
"""Pseudo-method: the flows that the methods of a seed share. Not a cell: it has no score."""

# What the plan itself decides, so that a command line may not.
OWN_SETTINGS = frozenset(
    {"seed", "dataset_dir", "output_dir", "bundle_root", "phase1_dir", "phase2_dir", "phase1_model", "flows_path"}
    | {"model_dir", "model_path", "checkpoint_dir", "resume", "method", "stylizer", "perturbation", "made_from"}
    | {"normalization", "hard_pass", "run_name", "train"}
)

# Where runs are tracked decides no result.
TRACKING_SETTINGS = frozenset({"tracking_uri", "experiment_name"})

# What a stylizer of another method takes as well, and what is then its own strength.
STRENGTHS = ("probability", "alpha")
STYLE_TARGETS = ("FlowStyleMix", "PermutedStyleMix")

# A method that changed one of these would not be trained on the same footing.
SHARED_SETTINGS = frozenset(
    {"max_epochs", "epoch_length", "batch_size", "learning_rate", "lr_schedule", "selection", "augmentation", "slices"}
    | {"loss", "seed", "dataset_dir", "phase1_dir", "warm_start", "noise_std", "val_interval"}
    | {"weight_average", "selection_stylizer", "selection_made_from", "optimizer", "lr_scheduler", "averaging"}
    | {"reconstruction_weight", "amp", "train", "validate"}
)


@dataclass(frozen=True)
class Preset:
    """Settings of a published table.

    Attributes:
        overlays: configuration files, in order.
        overrides: configuration values as on the command line.
        sources: "all", or None for the data set's own source domain.
        methods: of the table, where they exist here; MixStyleFlow as the paper states it.
        seeds: of the trainings.
    """

    overlays: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    sources: str | None = None
    methods: tuple[str, ...] = (
        BASELINE,
        "mix_style",
        "dsu",
        "efd_mix",
        "tri_d",
        "rand_conv",
        "max_style",
        "san_saw",
        "paper_styles",
    )
    seeds: tuple[int, ...] = (0, 1, 2)


# Without the overlay presets/paper: its probability of styles would become that of the other methods, too.
PRESETS: dict[str, Preset] = {
    # MixStyleFlow, MICCAI 2025, Table 2: 600, 100 and 1600 epochs, batch 20, learning rate 1e-4, which are the
    # defaults but for the flows' batch, 384 x 384.
    "paper-prostate": Preset(
        overrides={"phase1:image_size": [384, 384], "phase1:pixel_spacing": None, "phase2:batch_size": 20}
    ),
    # Table 3: every domain in turn the source; Phase III 100 epochs at 1e-3, 512 x 512; 100 epochs for the flows.
    "paper-fundus": Preset(("fundus",), {"phase2:max_epochs": 100, "phase2:batch_size": 20}, sources="all"),
}


@dataclass(frozen=True)
class Cell:
    """One method, trained on one source domain with one seed.

    Attributes:
        source: source domain.
        method: name of an overlay in ``configs/methods``, "mixstyleflow", or "phase1".
        seed: of all phases.
    """

    source: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Short name for logs."""
        return f"{self.source}, {self.method}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """Everything that decides the results of a benchmark.

    Attributes:
        root: folder of the bundles.
        cells: in the order in which they run.
        overlays: names of configuration files laid over every phase's train.json.
        overrides: configuration values by phase.
        train_fraction: share of the source domain's training cases.
        dataset_sha256: of the dataset.json.
        dataset_name: its name.
    """

    root: Path
    cells: tuple[Cell, ...]
    overlays: tuple[str, ...]
    overrides: Mapping[int, Mapping[str, Any]]
    train_fraction: float
    dataset_sha256: str
    dataset_name: str

    @property
    def sources(self) -> list[str]:
        """Source domains in order."""
        return list(dict.fromkeys(cell.source for cell in self.cells))

    @property
    def methods(self) -> list[str]:
        """Methods in order."""
        return list(dict.fromkeys(cell.method for cell in self.cells))

    @property
    def seeds(self) -> list[int]:
        """Seeds in order."""
        return list(dict.fromkeys(cell.seed for cell in self.cells))

    def files(self, phase: int, method: str | None = None) -> list[Path]:
        """Return the configuration files of a training: train.json, overlays that the bundle has, the method's."""
        configs = self.root / PHASE_BUNDLES[phase] / "configs"
        found = [configs / "train.json", *(configs / f"{name}.json" for name in self.overlays)]
        if method not in (None, DEFAULT_METHOD, PHASE_ONE):
            found.append(configs / "methods" / f"{method}.json")
        return [path for path in found if path.is_file()]

    def needs_flows(self, method: str) -> bool:
        """True if a method trains with the flows of Phase II, or its weights are selected with them."""
        if method == PHASE_ONE:
            return False
        settings = self.settings(3, method)
        return "@flows_path" in f"{settings['made_from']} {settings.get('selection_made_from')}"

    def settings(self, phase: int, method: str | None = None) -> dict[str, Any]:
        """Return the merged top level of the configuration files and the overrides."""
        merged: dict[str, Any] = {}
        for path in self.files(phase, method):
            merged |= json.loads(path.read_text(encoding="utf-8"))
        return merged | dict(self.overrides[phase])

    def request(self, cell: Cell) -> dict[str, Any]:
        """Return what the result of a cell depends on, as JSON values.

        The shipped train.json is not part of it: a new option whose default changes nothing would make every finished
        cell worthless. `ARITHMETIC` stands for it.
        """
        if cell.method == PHASE_ONE:
            phases = [1]
        elif cell.method == PHASE_TWO:
            phases = [1, 2]
        else:
            phases = [1, 2, 3] if self.needs_flows(cell.method) else [1, 3]
        laid_over = {
            str(phase): [
                json.loads(path.read_text(encoding="utf-8"))
                for path in self.files(phase, cell.method if phase == 3 else None)[1:]
            ]
            for phase in phases
        }
        request = {
            "arithmetic": ARITHMETIC,
            "dataset_sha256": self.dataset_sha256,
            "source": cell.source,
            "method": cell.method,
            "seed": cell.seed,
            "train_fraction": self.train_fraction,
            "overlays": laid_over,
            "overrides": {
                str(phase): {key: v for key, v in self.overrides[phase].items() if key not in TRACKING_SETTINGS}
                for phase in phases
            },
        }
        loaded: dict[str, Any] = json.loads(json.dumps(request))
        return loaded

    def train_configs(self, cell: Cell) -> dict[str, str]:
        """Return a SHA-256 of the train.json of each phase that a cell's result comes from.

        It is of the items that make the result; what is imported, checked and reported beside may change.
        """
        return {phase: _training_hash(self.files(int(phase))[0]) for phase in self.request(cell)["overlays"]}

    def cell_hash(self, cell: Cell) -> str:
        """Return the SHA-256 of `request`."""
        return hashlib.sha256(json.dumps(self.request(cell), sort_keys=True).encode()).hexdigest()


def _training_hash(path: Path | str) -> str:
    content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    items = {name: value for name, value in content.items() if name not in ("imports", "initialize", "run")}
    return hashlib.sha256(json.dumps(items, sort_keys=True).encode()).hexdigest()


def known_methods(root: Path) -> list[str]:
    """Return the names that ``--methods`` takes."""
    folder = root / PHASE_BUNDLES[3] / "configs" / "methods"
    return [BASELINE, DEFAULT_METHOD, *sorted({path.stem for path in folder.glob("*.json")} - {BASELINE})]


def make_plan(
    root: Path,
    description: DatasetDescription,
    *,
    methods: Sequence[str],
    seeds: Sequence[int],
    sources: Sequence[str] | str | None = None,
    train_fraction: float = 1.0,
    overlays: Sequence[str] = (),
    overrides: Mapping[int, Mapping[str, Any]] | None = None,
) -> Plan:
    """Return the plan, with every name checked.

    Raises:
        ValueError: an unknown method or source, a method that changes what all must share, or nothing to do.
    """
    chosen_sources = _sources(description, sources)
    known = known_methods(root)
    for method in methods:
        if method not in known:
            raise ValueError(
                f"--methods: no method {method!r}, allowed: {', '.join(known)}{did_you_mean(method, known)}"
            )
    if not methods or not seeds:
        raise ValueError("--methods and --seeds: expected at least one of each.")
    wrong = [s for s in seeds if isinstance(s, bool) or not isinstance(s, int) or s < 0]
    if wrong:
        raise ValueError(f"--seeds: found {wrong[0]!r}, expected whole numbers of at least 0, such as 0,1,2.")
    number = isinstance(train_fraction, int | float) and not isinstance(train_fraction, bool)
    if not number or not 0.0 < train_fraction <= 1.0:
        raise ValueError(f"--train_fraction {train_fraction!r}: expected a share above 0 and up to 1, such as 0.1.")
    # Phase I is what all methods of a seed start from; its own score costs nothing.
    names = [PHASE_ONE, *dict.fromkeys(methods)]
    once = list(dict.fromkeys(seeds))
    cells = tuple(Cell(source, method, seed) for seed in once for source in chosen_sources for method in names)
    empty: dict[int, dict[str, Any]] = {phase: {} for phase in PHASE_BUNDLES}
    for key in sorted(set().union(*(overrides or empty).values())):
        if key.split("#")[0].split("::")[0] in OWN_SETTINGS:
            hint = did_you_mean(key.split("#")[-1], ["seeds", "methods", "sources", "dataset_dir", "output_dir"])
            raise ValueError(f"--{key}: is decided by the benchmark and cannot be given{hint}.")
    plan = Plan(
        root,
        cells,
        tuple(overlays),
        overrides or empty,
        float(train_fraction),
        description.sha256,
        description.name,
    )
    for method in methods:
        _check_footing(plan, method)
        _check_strength(plan, method)
    return plan


def _sources(description: DatasetDescription, sources: Sequence[str] | str | None) -> list[str]:
    if sources is None:
        if not description.source_domain:
            raise ValueError(
                f"--sources: source_domain of {description.path} is null. Name domains to train on, each alone, or "
                f"all; allowed: {', '.join(description.domains)}."
            )
        return [description.source_domain]
    if sources == "all":
        return list(description.domains)
    names = [sources] if isinstance(sources, str) else list(sources)
    for name in names:
        if name not in description.domains:
            hint = did_you_mean(str(name), description.domains)
            raise ValueError(
                f"--sources: {description.path} has no domain {name!r}, allowed: all, "
                f"{', '.join(description.domains)}{hint}"
            )
    return list(dict.fromkeys(names))


def _check_footing(plan: Plan, method: str) -> None:
    """Refuse a method whose overlay changes what all methods must have in common."""
    path = plan.root / PHASE_BUNDLES[3] / "configs" / "methods" / f"{method}.json"
    if not path.is_file():
        return
    given = json.loads(path.read_text(encoding="utf-8"))
    changed = sorted(key for key in given if key.split("#")[0] in SHARED_SETTINGS)
    if changed:
        raise ValueError(
            f"{path}: a method may not set {', '.join(changed)}: all methods must train on the same data for the same "
            "number of steps. Give these on the command line, for all methods."
        )


def _check_strength(plan: Plan, method: str) -> None:
    """Refuse an overlay meant for flow styles that would change the strength of another method's perturbation."""
    own = plan.root / PHASE_BUNDLES[3] / "configs"
    path = own / "methods" / f"{method}.json"
    if not path.is_file():
        return
    given = json.loads(path.read_text(encoding="utf-8"))
    defaults = json.loads((own / "train.json").read_text(encoding="utf-8"))
    for name in plan.overlays:
        overlay = own / f"{name}.json"
        content = json.loads(overlay.read_text(encoding="utf-8")) if overlay.is_file() else {}
        for key in STRENGTHS:
            changes = key in content and content[key] != defaults[key] and key not in given
            if changes and _takes([given.get("stylizer"), given.get("perturbation")], f"@{key}"):
                raise ValueError(
                    f"--overlay {name}: sets {key} to {content[key]!r} for flow styles, and {method} would train with "
                    f"it, too, and not with its own {defaults[key]!r}. Leave the overlay out and name a method that "
                    "has these styles, such as paper_styles or flow_and_image_styles; --phase3:"
                    f"{key} is for all methods alike."
                )


def _takes(part: Any, reference: str) -> bool:
    """Tell whether a perturbation other than a stylizer of levels takes a setting."""
    if isinstance(part, list):
        return any(_takes(value, reference) for value in part)
    if not isinstance(part, dict):
        return False
    foreign = not str(part.get("_target_", "")).endswith(STYLE_TARGETS)
    return (foreign and reference in part.values()) or any(_takes(value, reference) for value in part.values())
