"""The README's figure: source images, the same in sampled styles, and images of unseen sites.

``python -m benchmarks.figure --run runs/demo --dataset_dir runs/demo/dataset --output docs/figures/styles.png``
"""

from __future__ import annotations

from pathlib import Path

import fire
import torch

from mixstyleflow_monai.data import DatasetDescription, SliceDataset, Task, load_dataset
from mixstyleflow_monai.engines import load_network, load_style_flows
from mixstyleflow_monai.engines.style_preview import stylised_rows
from mixstyleflow_monai.networks import DualDecoderNet, untracked_batch_norm
from mixstyleflow_monai.report import save_panel
from mixstyleflow_monai.styles import FlowStyleMix

COLUMNS = 5


def middle_slices(description: DatasetDescription, task: Task, domain: str, count: int) -> torch.Tensor:
    """Return the middle slices of the first test cases of a domain, (count, c, H, W)."""
    transform = task.training_preprocessing()
    images = []
    for item in description.datalist("test", domain)[:count]:
        slices = SliceDataset([item], transform, slices="labelled", progress=False)
        images.append(slices[len(slices) // 2]["image"])
    return torch.stack(images)


def main(run: str, dataset_dir: str, output: str = "docs/figures/styles.png", seed: int = 0) -> None:
    """Draw the figure from a finished run.

    Args:
        run: folder of a run with phase1/ and phase2/.
        dataset_dir: its data set.
        output: PNG to write.
        seed: of the styles.
    """
    description = load_dataset(dataset_dir)
    model = Path(run) / "phase1" / "models" / "model.pt"
    task = Task.from_model(model)
    network = DualDecoderNet(**task.network_settings())
    load_network(network, model)
    stylizer = FlowStyleMix(load_style_flows(Path(run) / "phase2" / "models" / "style_flows.pt", model))
    source = middle_slices(description, task, description.source_domain, COLUMNS)
    with torch.no_grad(), untracked_batch_norm(network):
        latent = network.encode(source)
        rows = {f"source\n{description.source_domain}": source}
        for number in range(2):
            styled = stylised_rows(stylizer, network, source, latent, seed + number)
            if number == 0:
                rows["stylised,\nin domain"] = styled["in domain"]
            rows[f"stylised,\nout of domain {number + 1}"] = styled["out of domain"]
    order = sorted(rows, key=lambda name: (not name.startswith("source"), "out" in name))
    panel = {name: rows[name] for name in order}
    for domain in description.unseen_domains:
        panel[f"unseen\n{domain}"] = middle_slices(description, task, domain, COLUMNS)
    save_panel(output, panel)


if __name__ == "__main__":
    fire.Fire(main)
