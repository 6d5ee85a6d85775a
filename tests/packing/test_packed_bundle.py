"""A packed bundle runs where neither the repository nor the package is, and passes what the Model Zoo checks."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES
from mixstyleflow_monai.packing import pack

SCHEMA = Path(__file__).resolve().parents[1] / "bundles" / "meta_schema_20240725.json"
# One process that packs and unpacks, in a run with several.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packed")]

# First a command that knows the bundle by the path of a configuration alone. Then what the Model Zoo's
# ci/verify_bundle.py does in the mode "full", of which "min" is the first half, in its order.
ZOO_CHECKS = """
import json, os, sys
import torch
from monai.bundle import ckpt_export, create_workflow, verify_metadata, verify_net_in_out

bundle = sys.argv[1]
files = {"meta_file": f"{bundle}/configs/metadata.json", "config_file": f"{bundle}/configs/inference.json"}
verify_net_in_out(net_id="network_def", **files)
print("package:", sys.modules["mixstyleflow_monai"].__file__)

sys.path = [bundle, *sys.path]
metadata = json.load(open(files["meta_file"]))
assert all(os.path.exists(f"{bundle}/{name}") for name in ("LICENSE", "models/model.pt"))
assert metadata["version"] in metadata["changelog"]
verify_metadata(meta_file=files["meta_file"], filepath=f"{bundle}/eval/schema.json")
for kind in ("train", "inference"):
    config = {**files, "config_file": f"{bundle}/configs/{kind}.json", "logging_file": f"{bundle}/configs/logging.conf"}
    print(kind, create_workflow(workflow_type=kind, bundle_root=bundle, **config).check_properties())
verify_net_in_out(net_id="network_def", bundle_root=bundle, **files)
made = {"filepath": f"{bundle}/models/verify_model.ts", "ckpt_file": f"{bundle}/models/model.pt"}
ckpt_export(net_id="network_def", bundle_root=bundle, **made, **files)
torch.jit.load(made["filepath"])
torch.jit.load(f"{bundle}/models/model.ts")
"""

# A workflow that is opened from Python with nothing but the path of its configuration.
PROPERTIES = """
import sys
from monai.bundle import create_workflow

file = f"{sys.argv[1]}/configs/inference.json"
print(create_workflow(config_file=file, workflow_type="inference", logging_file=False).check_properties())
print("package:", sys.modules["mixstyleflow_monai"].__file__)
"""


@dataclass(frozen=True)
class Environment:
    """An interpreter with the requirements and without the package, and a working directory with nothing in it."""

    python: Path
    folder: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the interpreter with the text of its streams captured."""
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [self.python, "-W", "ignore", *arguments],
            cwd=self.folder,
            env={**variables, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )

    def output(self, *arguments: str) -> str:
        """Run, and return the standard output of a run that must succeed."""
        finished = self.run(*arguments)
        assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-4000:]
        return finished.stdout


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A new virtual environment with the dependencies of this one."""
    root = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root / "venv")], check=True, timeout=120)
    scheme = {"base": str(root / "venv"), "platbase": str(root / "venv")}
    site_packages = Path(sysconfig.get_path("purelib", scheme="venv", vars=scheme))
    # A folder named in a .pth file joins the path without its own .pth files, one of which is the editable install.
    dependencies = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (site_packages / "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    (root / "elsewhere").mkdir()
    return Environment(root / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python"), root / "elsewhere")


@pytest.fixture(scope="session")
def zips(outputs: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The three bundles, packed."""
    folder = tmp_path_factory.mktemp("dist")
    for phase, name in PHASE_BUNDLES.items():
        pack(name, str(outputs[phase]), str(folder), exports=("ts", "pt2") if phase == 3 else "ts")
    return {phase: next(folder.glob(f"{name}_v*.zip")) for phase, name in PHASE_BUNDLES.items()}


@pytest.fixture
def unpacked(zips: dict[int, Path], tmp_path: Path) -> dict[int, Path]:
    """The three bundles, unpacked into folders that are not beside each other."""
    for phase, path in zips.items():
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / f"un packed {phase}")
    return {phase: tmp_path / f"un packed {phase}" / name for phase, name in PHASE_BUNDLES.items()}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A colour photograph of a disc."""
    y, x = np.mgrid[:40, :48]
    disc = 255 * ((y - 20) ** 2 + (x - 24) ** 2 < 100)
    path = tmp_path / "images" / "disc.png"
    path.parent.mkdir()
    Image.fromarray(np.stack([disc] * 3, axis=-1).astype(np.uint8)).save(path)
    return path


def vendored(bundle: Path) -> str:
    """The line that tells that the package is the one in the bundle."""
    return f"package: {bundle / 'mixstyleflow_monai' / '__init__.py'}"


def test_environment_has_neither_the_package_nor_the_repository(clean: Environment) -> None:
    finished = clean.run("-c", "import mixstyleflow_monai")
    assert "ModuleNotFoundError: No module named 'mixstyleflow_monai'" in finished.stderr


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_bundle_passes_the_checks_of_the_model_zoo(phase: int, clean: Environment, unpacked: dict[int, Path]) -> None:
    (unpacked[phase] / "eval").mkdir()
    shutil.copy(SCHEMA, unpacked[phase] / "eval" / "schema.json")
    text = clean.output("-c", ZOO_CHECKS, str(unpacked[phase]))
    assert vendored(unpacked[phase]) in text
    assert "train []\n" in text
    assert "inference []\n" in text


@pytest.mark.parametrize("phase", [2, 3])
def test_inference_runs_from_any_folder_and_writes_into_the_bundle(
    phase: int, clean: Environment, unpacked: dict[int, Path], image: Path
) -> None:
    bundle = unpacked[phase]
    config = str(bundle / "configs" / "inference.json")
    clean.output("-m", "monai.bundle", "run", "--config_file", config, "--input", str(image))
    if phase == 2:
        assert [path.name[:12] for path in (bundle / "styles").iterdir()] == ["styles_0001_"]
    else:
        label = np.asarray(Image.open(bundle / "predictions" / "disc_seg.png"))
        assert label.shape == (40, 48)
        assert set(np.unique(label)) <= {0, 1, 2}
    assert list(clean.folder.iterdir()) == []


def test_output_goes_elsewhere_and_the_weights_stay_those_of_the_bundle(
    clean: Environment, unpacked: dict[int, Path], image: Path, tmp_path: Path
) -> None:
    config = str(unpacked[3] / "configs" / "inference.json")
    output = ["--output_dir", str(tmp_path / "out put")]
    clean.output("-m", "monai.bundle", "run", "--config_file", config, "--input", str(image), *output)
    assert (tmp_path / "out put" / "predictions" / "disc_seg.png").is_file()


def test_command_of_the_readme_runs_in_the_folder_of_the_bundle(
    clean: Environment, unpacked: dict[int, Path], image: Path
) -> None:
    text = (unpacked[3] / "docs" / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(
        r"^python (-m monai\.bundle run --config_file \S+inference\.json) .\n +--input IMAGES$", text, re.M
    )
    Environment(clean.python, unpacked[3]).output(*command.split(), "--input", str(image))
    assert (unpacked[3] / "predictions" / "disc_seg.png").is_file()


def test_package_of_the_bundle_comes_before_an_installed_one(unpacked: dict[int, Path], tmp_path: Path) -> None:
    """Weights belong to the code that they were packed with. This environment has the package installed."""
    installed = Environment(Path(sys.executable), tmp_path)
    assert vendored(unpacked[1]) in installed.output("-c", PROPERTIES, str(unpacked[1]))


def test_bundle_without_its_package_uses_an_installed_one(
    unpacked: dict[int, Path], image: Path, tmp_path: Path
) -> None:
    shutil.rmtree(unpacked[3] / "mixstyleflow_monai")
    config = str(unpacked[3] / "configs" / "inference.json")
    command = ["-m", "monai.bundle", "run", "--config_file", config, "--input", str(image)]
    Environment(Path(sys.executable), tmp_path).output(*command)
    assert (unpacked[3] / "predictions" / "disc_seg.png").is_file()


@pytest.mark.parametrize("phase", PHASE_BUNDLES)
def test_checksums_hold_after_unpacking(phase: int, unpacked: dict[int, Path]) -> None:
    lines = (unpacked[phase] / "SHA256SUMS").read_text().splitlines()
    assert len(lines) > 50
    for line in lines:
        assert hashlib.sha256((unpacked[phase] / line[66:]).read_bytes()).hexdigest() == line[:64]


def test_metadata_and_task_are_those_of_the_weights(unpacked: dict[int, Path]) -> None:
    metadata = json.loads((unpacked[3] / "configs" / "metadata.json").read_text())
    assert metadata["eval_metrics"]["source_mean_dice"] == 85.0
    config = json.loads((unpacked[3] / "configs" / "inference.json").read_text())
    assert config["untrained_task"]["regions"] == {"disc": [1, 2], "cup": [2]}
