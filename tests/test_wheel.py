"""The built wheel holds exactly the sources, and works without the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import mixstyleflow_monai
from tests.small_dataset import SMALL, make_dataset

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("mixstyleflow_monai", "data_prep")
BUNDLES = ("phase1_base_segmentation", "phase2_style_flows", "phase3_mixstyleflow_segmentation")
BUNDLE_SOURCES = ("LICENSE", "configs", "docs")
PACKAGED_BUNDLES = "mixstyleflow_monai/bundles/"

# Building takes seconds: keep these tests in one worker, so that a parallel run builds once.
pytestmark = pytest.mark.xdist_group("wheel")


@dataclass(frozen=True)
class InstalledWheel:
    """An environment that holds the wheel and the running environment's dependencies, but not the checkout.

    Attributes:
        python: its interpreter; its children see the same environment.
        site_packages: where the wheel lies unpacked.
    """

    python: Path
    site_packages: Path

    def run(self, *arguments: str, cwd: Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run the interpreter in `cwd` (a folder outside the checkout) and capture its text."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [self.python, *arguments], cwd=cwd, env=environment, capture_output=True, encoding="utf-8", timeout=timeout
        )


def sources(root: Path) -> list[Path]:
    """Files that belong into the wheel, relative to the root of the project."""
    folders = [root / package for package in PACKAGES]
    folders += [root / "bundles" / bundle / name for bundle in BUNDLES for name in BUNDLE_SOURCES]
    paths = [path for folder in folders for path in [folder, *folder.rglob("*")]]
    return [path.relative_to(root) for path in paths if path.is_file() and "__pycache__" not in path.parts]


def build(source: Path, outdir: Path, *options: str) -> Path:
    """Build `source` with the tools of this environment, return the wheel."""
    command = [sys.executable, "-m", "build", "--no-isolation", *options, "--outdir", str(outdir), str(source)]
    finished = subprocess.run(command, cwd=outdir.parent, capture_output=True, encoding="utf-8", timeout=300)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (wheel,) = outdir.glob("*.whl")
    return wheel


def contents(wheel: Path) -> dict[str, bytes]:
    """Name and bytes of every file of the wheel, without the generated metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built, with the files in its bundles that a run in the checkout leaves there."""
    copy = tmp_path_factory.mktemp("source") / "checkout"
    for path in sources(ROOT):
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy / path)
    for bundle in BUNDLES:
        for left_behind in ("models/model.pt", "output/evaluation.json", "mlruns.db", "any_name/checkpoint.pt"):
            path = copy / "bundles" / bundle / left_behind
            path.parent.mkdir(exist_ok=True)
            path.write_text("left behind")
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="session")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(source, tmp_path_factory.mktemp("wheel") / "dist", "--wheel")


@pytest.fixture(scope="session")
def installed_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> InstalledWheel:
    """The wheel installed into an environment of its own."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    scheme = {"base": str(folder), "platbase": str(folder)}
    site_packages = Path(sysconfig.get_path("purelib", scheme="venv", vars=scheme))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)], check=True, timeout=300)
    # A folder named in a .pth file joins the path without its own .pth files being read, and one of those is what
    # the editable install of the checkout consists of.
    dependencies = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (site_packages / "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    return InstalledWheel(python, site_packages)


def test_wheel_holds_exactly_the_sources(source: Path, wheel: Path) -> None:
    expected = {}
    for path in sources(source):
        name = path.as_posix()
        name = f"mixstyleflow_monai/{name}" if name.startswith("bundles/") else name
        expected[name] = (source / path).read_bytes()
    found = contents(wheel)
    assert sorted(found) == sorted(expected)
    assert found == expected


def test_every_tracked_file_of_a_bundle_is_a_source() -> None:
    """A new kind of file in a bundle must be added to the build's allow list and to BUNDLE_SOURCES."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files of the bundles are sources is not known")
    command = ["git", "-C", str(ROOT), "ls-files", "bundles"]
    tracked = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.split()
    assert [path for path in tracked if path.split("/")[2] not in BUNDLE_SOURCES] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_wheel_is_marked_as_typed(wheel: Path, package: str) -> None:
    assert f"{package}/py.typed" in contents(wheel)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_wheel_carries_what_monai_needs_of_each_bundle(wheel: Path, bundle: str) -> None:
    names = set(contents(wheel))
    configs = ("train.json", "evaluate.json", "inference.json", "metadata.json", "logging.conf")
    needed = {"LICENSE", "docs/README.md", *(f"configs/{name}" for name in configs)}
    assert {f"{PACKAGED_BUNDLES}{bundle}/{name}" for name in needed} <= names


def test_source_distribution_builds_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    # Without options `build` makes the source distribution first and the wheel from that.
    assert contents(build(source, tmp_path / "dist")) == contents(wheel)


def test_installed_wheel_is_imported_and_not_the_checkout(installed_wheel: InstalledWheel, tmp_path: Path) -> None:
    code = (
        "import importlib.metadata, sys, mixstyleflow_monai as package; print(package.__file__); "
        "print(importlib.metadata.version('mixstyleflow_monai')); print(*sys.path, sep='\\n')"
    )
    finished = installed_wheel.run("-c", code, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    file, version, *search_path = finished.stdout.splitlines()
    assert Path(file).is_relative_to(installed_wheel.site_packages)
    assert version == mixstyleflow_monai.__version__
    assert str(ROOT) not in search_path


def test_importing_the_package_does_not_import_torch(installed_wheel: InstalledWheel, tmp_path: Path) -> None:
    code = "import sys, mixstyleflow_monai; print('torch' in sys.modules)"
    assert installed_wheel.run("-c", code, cwd=tmp_path).stdout.split() == ["False"]


@pytest.mark.parametrize("bundle", BUNDLES)
def test_bundles_lie_in_the_installed_package(installed_wheel: InstalledWheel, bundle: str) -> None:
    installed = installed_wheel.site_packages / PACKAGED_BUNDLES / bundle
    original = ROOT / "bundles" / bundle
    assert (installed / "configs" / "logging.conf").read_bytes() == (original / "configs/logging.conf").read_bytes()
    assert not (installed / "models").exists()


def test_installed_data_prep_lists_its_commands(installed_wheel: InstalledWheel, tmp_path: Path) -> None:
    finished = installed_wheel.run("-m", "data_prep", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert {"folder", "phantom", "resplit"} <= set((finished.stdout + finished.stderr).split())


@pytest.mark.slow
def test_installed_wheel_runs_all_phases_and_writes_only_below_the_output(
    installed_wheel: InstalledWheel, tmp_path: Path
) -> None:
    dataset = make_dataset(tmp_path / "discs")
    before = {path: path.stat().st_mtime_ns for path in installed_wheel.site_packages.rglob("*.json")}
    options = [text for key, value in SMALL.items() for text in (f"--{key}", json.dumps(value))]
    command = ["-m", "mixstyleflow_monai", "run", "--dataset_dir", str(dataset), "--output_dir", "my run", *options]
    finished = installed_wheel.run(*command, cwd=tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    records = json.loads((tmp_path / "my run" / "evaluation.json").read_text())
    assert [record["phase"] for record in records] == [1, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["discs", "my run"]
    assert {path: path.stat().st_mtime_ns for path in installed_wheel.site_packages.rglob("*.json")} == before
