"""How good must reconstructions be to stylise? ``python -m benchmarks.reconstruction RUN DATASET [RUN DATASET ...]``.

For finished runs of phase 1, and better of phases 1 and 2: the reconstruction PSNR of the Phase I network, and the
Dice that this network reaches on source images, on their reconstructions, and on images stylised out of domain, once
with the decoder's lost detail added back and once as they are decoded. A large fall says that the hard examples are
other anatomy and not the same anatomy in another style.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from mixstyleflow_monai.data import SliceDataset, Task, load_dataset
from mixstyleflow_monai.engines import load_network, load_style_flows
from mixstyleflow_monai.engines.style_preview import batch_dice, choose_slices, stylised_rows
from mixstyleflow_monai.losses import peak_signal_to_noise_ratio
from mixstyleflow_monai.networks import DualDecoderNet, untracked_batch_norm
from mixstyleflow_monai.styles import FlowStyleMix

COLUMNS = ("run", "PSNR dB", "plain", "reconstruction", "stylised, detail", "stylised, decoded")


def measure(run: Path, dataset_dir: Path) -> list[float]:
    """Return PSNR and the Dice values of one run; those of stylised images only where there are flows."""
    model = run / "phase1" / "models" / "model.pt"
    task, description = Task.from_model(model), load_dataset(dataset_dir)
    network = DualDecoderNet(**task.network_settings())
    load_network(network, model)
    network.eval()
    flows = run / "phase2" / "models" / "style_flows.pt"
    cases = description.datalist("validation") + description.datalist("test", description.source_domain)
    dataset = SliceDataset(cases, task.training_preprocessing(), slices="labelled", progress=False)
    images, target = choose_slices(dataset, 40, torch.device("cpu"))
    with torch.no_grad(), untracked_batch_norm(network):
        latent = network.encode(images)
        reconstruction = network.decode_image(latent)
    shown = [images, reconstruction]
    for output in ("detail", "decoded") if flows.is_file() else ():
        stylizer = FlowStyleMix(load_style_flows(flows, model), output=output)
        shown.append(stylised_rows(stylizer, network, images, latent)["out of domain"])
    dice = [batch_dice(network, shown_images, target, task.encoding) for shown_images in shown]
    return [float(peak_signal_to_noise_ratio(reconstruction, images).mean()), *dice]


def main(arguments: list[str]) -> None:
    """Print a row a run."""
    if not arguments or len(arguments) % 2:
        raise SystemExit(__doc__)
    table = Table(*COLUMNS, title="Dice of the Phase I network, percent")
    for run, dataset_dir in zip(arguments[::2], arguments[1::2], strict=True):
        table.add_row(run, *(f"{value:.1f}" for value in measure(Path(run), Path(dataset_dir))))
    Console(width=140).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
