"""Start MONAI Label with a trained bundle: make the app folder, check the weights, start the server on this machine.

Runs in the environment that ``tools/monai_label/setup.sh`` makes. MONAI Label itself only logs a warning where weights
are missing or do not fit, so they are checked here before it starts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from mixstyleflow_monai.artifacts import check_lineage, manifest_path, read_manifest, sha256_file, write_json
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir
from mixstyleflow_monai.engines import copy_network
from mixstyleflow_monai.packing.description import describe_metadata
from mixstyleflow_monai.packing.weights import find_weights

BUNDLE = PHASE_BUNDLES[3]
FLOWS = "style_flows.pt"


def install_bundle(app: Path, bundle: Path, weights: Path | None, flows: Path | None = None) -> Path:
    """Put a bundle with its weights into the folder ``model`` of an app, and return where it is.

    A network that was fine-tuned there is kept, if it descends from the weights given.

    Args:
        app: folder of the MONAI Label app.
        bundle: the Phase III bundle, unpacked or of the checkout.
        weights: ``model.pt`` or a folder that holds it; None for the bundle's own, or those in the app already.
        flows: ``style_flows.pt`` to fine-tune with, or None.

    Raises:
        FileNotFoundError: no weights, or none with a manifest.
        ValueError: weights that are not of Phase III, not those of their manifest, or other ones than those in the app.
    """
    target = app / "model" / BUNDLE
    model = target / "models" / "model.pt"
    # Fine-tuning in the app leaves an evaluation behind that is of the weights before.
    found = find_weights(3, weights or (target if model.is_file() else bundle), stale_evaluation=True)
    if model.is_file():
        present = find_weights(3, model, stale_evaluation=True).manifest
        if found.manifest["sha256"] not in (present["sha256"], *present["ancestors"]):
            raise ValueError(
                f"{model}: the app has other weights ({present['sha256'][:12]}...), which do not descend from those "
                f"given ({found.manifest['sha256'][:12]}...). Give another app folder (--app FOLDER, make label "
                "LABEL_APP=FOLDER), or move these away."
            )
    for part in ("LICENSE", "configs", "docs", "mixstyleflow_monai"):
        if (bundle / part).is_dir():
            shutil.copytree(bundle / part, target / part, dirs_exist_ok=True)
        elif (bundle / part).is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(bundle / part, target / part)
    if not model.is_file():
        copy_network(found.files[0], model)
    if flows is not None:
        _copy_flows(flows, model)
    metadata = json.loads((target / "configs" / "metadata.json").read_text(encoding="utf-8"))
    # A fine-tuned network in the app is not the one that was given, and has not its metrics.
    used = found if sha256_file(model) == found.manifest["sha256"] else find_weights(3, model, stale_evaluation=True)
    write_json(target / "configs" / "metadata.json", describe_metadata(metadata, used))
    return target


def _copy_flows(flows: Path, model: Path) -> None:
    """Put flows beside the network that they, or its ancestor, were made from."""
    flows = flows / FLOWS if flows.is_dir() else flows
    check_lineage(read_manifest(model), read_manifest(flows, kind="style_flows"))
    target = model.with_name(FLOWS)
    if target.is_file() and sha256_file(target) == sha256_file(flows):
        return
    shutil.copy(flows, target)
    shutil.copy(manifest_path(flows), manifest_path(target))


def install_app(app: Path) -> Path:
    """Make a folder with MONAI Label's app for bundles, unless it is there, and return it.

    Raises:
        RuntimeError: MONAI Label is not installed in this environment.
    """
    if not (app / "main.py").is_file():
        sample = Path(sys.prefix) / "monailabel" / "sample-apps" / "monaibundle"
        if not sample.is_dir():
            raise RuntimeError(
                f"{sample}: MONAI Label's app for bundles is not there. Run this in the environment that "
                "tools/monai_label/setup.sh makes (`make label` does)."
            )
        shutil.copytree(sample, app, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (app / "model").mkdir(exist_ok=True)
    return app


def server_command(app: Path, studies: Path, host: str, port: int) -> list[str]:
    """Return the command of the server.

    ``zoo_source ngc`` keeps it from asking the network for a list of bundles, and ``sam2 false`` from downloading one.
    """
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(app), "--studies", str(studies)]
    command += ["--conf", "models", BUNDLE, "--conf", "zoo_source", "ngc", "--conf", "sam2", "false"]
    return [*command, "--host", host, "--port", str(port)]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=Path, required=True, help="folder of the images to label")
    parser.add_argument("--weights", type=Path, help="model.pt of phase 3, or the folder of its training")
    parser.add_argument("--flows", type=Path, help="style_flows.pt of phase 2, to fine-tune with hard examples")
    parser.add_argument("--bundle", type=Path, help="the bundle; default: the checkout's")
    parser.add_argument("--app", type=Path, default=Path("runs/monai_label"), help="folder of the app, made if absent")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; MONAI Label has no log-in by default"
    )
    parser.add_argument("--port", type=int, default=8111)
    parser.add_argument("--prepare_only", action="store_true", help="make and check the app, and start no server")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Prepare the app and become the server."""
    options: Any = parse(arguments)
    try:
        if not options.studies.is_dir():
            raise FileNotFoundError(f"{options.studies}: no such folder. Give the folder of the images to label.")
        app = install_app(options.app.absolute())
        place = install_bundle(app, options.bundle or bundles_dir() / BUNDLE, options.weights, options.flows)
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"bundle: {place}", flush=True)
    command = server_command(app, options.studies.absolute(), options.host, options.port)
    if options.prepare_only:
        return 0
    # The server starts `python` by name for some of its tasks.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.call(command, env={**os.environ, "PATH": path})


if __name__ == "__main__":
    sys.exit(main())
