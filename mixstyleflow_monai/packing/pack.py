"""Pack a bundle with weights into one zip file that runs without this repository."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mixstyleflow_monai.artifacts import atomic_path, case_counts, sha256_file, write_json
from mixstyleflow_monai.bundle_paths import PHASE_BUNDLES, bundles_dir
from mixstyleflow_monai.export import FORMATS, check_export, export_network
from mixstyleflow_monai.packing.description import data_licence, describe_metadata, describe_readme
from mixstyleflow_monai.packing.vendoring import vendor_configs, vendor_package
from mixstyleflow_monai.packing.weights import Weights, find_weights

logger = logging.getLogger(__name__)
CHECKSUMS = "SHA256SUMS"
# What of a bundle's folder is the bundle; the rest is what runs left there.
PARTS = ("LICENSE", "configs", "docs")
ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def pack(
    bundle: str,
    weights: str,
    output: str = "dist",
    exports: str | Sequence[str] = ("ts", "pt2"),
    data_license: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write ``<bundle>_v<version>.zip``, which runs on a machine without this repository.

    It holds the bundle's configurations and documents, this package, the weights with their manifest, exported
    networks, licences and ``SHA256SUMS``. Metadata and README describe these weights: channels, regions, data set and,
    where ``evaluation.json`` is in the weights' output folder, the metrics.

    Args:
        bundle: name of a bundle, for example phase3_mixstyleflow_segmentation, or its folder.
        weights: output folder of the training, or the file it published (model.pt, style_flows.pt).
        output: folder for the zip file.
        exports: forms of the network to add, some of ts (TorchScript), pt2 (torch.export), onnx.
        data_license: text file that names source and licence of the data that the weights were trained on.
        overwrite: replace a zip file that is there already.
    """
    source = _bundle_folder(bundle)
    phase = next(phase for phase, name in PHASE_BUNDLES.items() if name == source.name)
    forms = _forms(exports)
    licence = _licence(data_license)
    metadata = json.loads((source / "configs" / "metadata.json").read_text(encoding="utf-8"))
    target = Path(output) / f"{source.name}_v{metadata['version']}.zip"
    _check_target(target, overwrite)
    found = find_weights(phase, weights)
    if not found.evaluation:
        logger.warning("no evaluation.json in the output folder of %s: eval_metrics stays empty", weights)
    with tempfile.TemporaryDirectory(prefix="pack-") as folder:
        root = Path(folder) / source.name
        _stage(source, root, metadata, found, licence)
        metadata = json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))
        config = json.loads((root / "configs" / "inference.json").read_text(encoding="utf-8"))
        for form in tqdm(forms, desc="export"):
            exported = export_network(
                found.network, root / "models" / f"model.{form}", metadata=metadata, config=config
            )
            check_export(found.network, exported)
        _write_checksums(root)
        _write_zip(root, target)
    print(f"wrote {target} ({target.stat().st_size / 2**20:.1f} MiB)")


def _bundle_folder(bundle: str) -> Path:
    given = Path(str(bundle))
    names = tuple(PHASE_BUNDLES.values())
    folder = given.resolve() if (given / "configs" / "metadata.json").is_file() else None
    if folder is None and str(bundle) in names:
        folder = bundles_dir() / str(bundle)
    if folder is None or folder.name not in names:
        raise ValueError(f"bundle={bundle!r}: no such bundle. Give one of {', '.join(names)}, or the folder of one.")
    return folder


def _forms(exports: str | Sequence[str]) -> list[str]:
    # The command line gives "ts", ("ts", "pt2") or, for nothing, "".
    parts = exports if isinstance(exports, list | tuple) else str(exports).split(",")
    forms = [str(part).strip() for part in parts if str(part).strip()]
    unknown = [form for form in forms if form not in FORMATS]
    if unknown:
        raise ValueError(
            f"exports={','.join(forms)}: unknown {', '.join(unknown)}; expected some of {','.join(FORMATS)}."
        )
    return list(dict.fromkeys(forms))


def _licence(path: str | None) -> str | None:
    if path is None:
        return None
    if not Path(path).is_file():
        raise FileNotFoundError(f"data_license: {path}: no such file. Give a text file, or leave the option out.")
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"data_license: {path}: not a text in UTF-8. Give a text file.") from error


def _check_target(target: Path, overwrite: bool) -> None:
    for folder in (target.parent, *target.parent.parents):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"output={target.parent}: {folder} is a file. Give a folder.")
    if target.is_dir():
        raise ValueError(f"{target}: is a folder. Move it, or give another --output.")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target}: is there already. Give --overwrite to replace it, or another --output.")


def _stage(source: Path, root: Path, metadata: dict[str, Any], weights: Weights, licence: str | None) -> None:
    """Write the unpacked bundle, but for the exports and the checksums."""
    root.mkdir()
    for part in PARTS:
        if (source / part).is_dir():
            shutil.copytree(source / part, root / part)
        else:
            shutil.copyfile(source / part, root / part)
    vendor_package(root)
    (root / "models").mkdir()
    for file in weights.files:
        copy = root / "models" / file.name
        shutil.copyfile(file, copy)
        if file.suffix == ".json":
            _without_cases(copy)

    def of_these_weights(name: str, content: dict[str, Any]) -> dict[str, Any]:
        if "untrained_task" in content:
            content["untrained_task"] = weights.task.to_json()
        if name in ("inference", "evaluate"):
            # The weights are in the bundle, wherever its output goes.
            for key in ("ckpt_path", "model_dir"):
                if key in content:
                    content[key] = content[key].replace("@output_dir", "@bundle_root")
        return content

    vendor_configs(root / "configs", of_these_weights)
    write_json(root / "configs" / "metadata.json", describe_metadata(metadata, weights))
    readme = root / "docs" / "README.md"
    text = describe_readme(readme.read_text(encoding="utf-8"), weights, source.name)
    readme.write_text(text, encoding="utf-8")
    (root / "docs" / "data_license.txt").write_text(data_licence(weights, licence), encoding="utf-8")


def _without_cases(path: Path) -> None:
    """Put numbers in the place of a manifest's case ids: they come from file names, which may be patients' names."""
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if "cases" in manifest:
        write_json(path, {**manifest, "cases": case_counts(manifest)})


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def _write_checksums(root: Path) -> None:
    """Write a line a file, in the form that ``sha256sum --check`` reads."""
    lines = [f"{sha256_file(path)}  {path.relative_to(root).as_posix()}\n" for path in _files(root)]
    (root / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def _write_zip(root: Path, target: Path) -> None:
    """Write the folder as a zip file with its name as the only top entry; the same files give the same bytes."""
    with atomic_path(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _files(root):
            info = zipfile.ZipInfo((Path(root.name) / path.relative_to(root)).as_posix(), ZIP_DATE)
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, path.read_bytes())
