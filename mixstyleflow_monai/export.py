"""Networks in forms that run without this package: TorchScript, ``torch.export`` program, ONNX.

Each form takes any batch and any image size whose sides are multiples of 16 pixels, from 32 on.
"""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.data import save_net_with_metadata
from torch import Tensor

from mixstyleflow_monai.artifacts import atomic_path
from mixstyleflow_monai.networks import DualDecoderNet

FORMATS = ("ts", "pt2", "onnx")
"""Suffixes: TorchScript, ``torch.export`` program, ONNX (needs the packages onnx and onnxscript)."""

TOLERANCE = 1e-4
"""Largest difference of an exported network's logits from the network's own, in units of the largest logit, if above 1.

Float32 alone makes torch's own logits differ by 8e-5 from those in double precision at 512 pixels."""


def export_program(network: DualDecoderNet) -> torch.export.ExportedProgram:
    """Return the segmentation path of a network as a ``torch.export`` program with dynamic sizes.

    Args:
        network: in eval mode, on the CPU.

    Returns:
        A program (B, in_channels, H, W) -> (B, out_channels, H, W); H and W are multiples of 16 from 32 to 4096. Below
        32, where the latent has a single row or column, torch.export sees another program.
    """
    batch = torch.export.Dim("batch", min=1, max=1024)
    height, width = (16 * torch.export.Dim(name, min=2, max=256) for name in ("rows", "columns"))
    example = torch.rand(2, network.in_channels, 48, 64, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(network, (example,), dynamic_shapes={"x": {0: batch, 2: height, 3: width}})
    for node in program.graph.nodes:
        # Source lines with the paths of the machine that exported.
        node.meta.pop("stack_trace", None)
    return program


def export_network(
    network: DualDecoderNet,
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write the segmentation path of a network in the form that the suffix names, atomically.

    Args:
        network: network; it is put into eval mode and onto the CPU.
        path: file that ends in one of `FORMATS`.
        metadata: content of ``metadata.json``, kept in a TorchScript file as MONAI's ``ckpt_export`` does.
        config: content of ``inference.json``, likewise.

    Raises:
        ValueError: another suffix, or ONNX without the packages that it needs.
    """
    target = Path(path)
    form = target.suffix.removeprefix(".")
    if form not in FORMATS:
        raise ValueError(f"{path}: no export form ends in {target.suffix!r}; expected .{', .'.join(FORMATS)}.")
    network = network.cpu().eval()
    with atomic_path(target) as partial, warnings.catch_warnings(), torch.no_grad():
        # torch deprecates TorchScript, which MONAI's tools still use, and parts of its own exporter.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        if form == "ts":
            extra = {"inference.json": json.dumps(config).encode()} if config is not None else None
            save_net_with_metadata(
                torch.jit.script(network),
                str(partial),
                include_config_vals=False,
                append_timestamp=False,
                meta_values=dict(metadata) if metadata is not None else None,
                more_extra_files=extra,
            )
            _tidy_archive(partial, target.stem)
        elif form == "pt2":
            torch.export.save(export_program(network), partial)
            _tidy_archive(partial, target.stem)
        else:
            _save_onnx(export_program(network), partial)
    return target


def _tidy_archive(path: Path, name: str) -> None:
    """Name the folder inside a file of torch's after the file to be, and leave out where its source lines came from.

    torch names that folder after the temporary file, and ``.debug_pkl`` holds paths of the machine that exported.
    """
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries.items():
            if not entry.endswith(".debug_pkl"):
                archive.writestr(zipfile.ZipInfo(f"{name}/{entry.split('/', 1)[1]}"), content)


def _save_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"{path.suffix}: ONNX needs the packages onnx and onnxscript ({error}). Install "
            "mixstyleflow_monai[export], or leave ONNX out."
        ) from error
    exported = torch.onnx.export(program, dynamo=True, verbose=False)
    if exported is None:
        raise RuntimeError(f"{path}: torch.onnx.export returned no program.")
    exported.save(str(path))


def load_exported(path: str | os.PathLike[str]) -> Callable[[Tensor], Tensor]:
    """Return an exported network as a function of images (B, C, H, W); ONNX runs in onnx's reference evaluator."""
    form = Path(path).suffix.removeprefix(".")
    if form == "ts":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            scripted: Callable[[Tensor], Tensor] = torch.jit.load(str(path), map_location="cpu")
        return scripted
    if form == "pt2":
        program: Callable[[Tensor], Tensor] = torch.export.load(str(path)).module()
        return program
    if form != "onnx":
        raise ValueError(f"{path}: not an exported network by its name; expected .{', .'.join(FORMATS)}.")
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(path))
    name = evaluator.input_names[0]

    def run(images: Tensor) -> Tensor:
        outputs: Any = evaluator.run(None, {name: images.numpy()})
        return torch.from_numpy(outputs[0])

    return run


@torch.no_grad()
def check_export(network: DualDecoderNet, path: str | os.PathLike[str], seed: int = 0) -> float:
    """Return the largest difference of an exported network's logits from the network's own on random images.

    In units of the largest logit, if that is above 1. Sizes are drawn anew for each image and differ from the export.

    Raises:
        ValueError: the difference is above `TOLERANCE`.
    """
    exported = load_exported(path)
    network = network.cpu().eval()
    generator = torch.Generator().manual_seed(seed)
    worst = 0.0
    for batch in (1, 3):
        rows, columns = (16 * int(n) for n in torch.randint(2, 7, (2,), generator=generator))
        images = torch.rand(batch, network.in_channels, rows, columns, generator=generator)
        expected = network(images)
        difference = float((exported(images) - expected).abs().max())
        worst = max(worst, difference / max(1.0, float(expected.abs().max())))
    if not worst <= TOLERANCE:
        raise ValueError(
            f"{path}: logits differ by {worst:.2g} from those of the network, more than {TOLERANCE:.0e}. Leave this "
            "form out, or report the torch version that made it."
        )
    return worst
