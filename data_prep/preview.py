"""Pictures of a data set (``python -m data_prep preview``): a contact sheet a domain, and all domains' intensities."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from data_prep.building import scratch_folder
from data_prep.contact_sheet import CASES_PER_SHEET, domain_sheet
from data_prep.intensity_histograms import CASES_PER_DOMAIN, draw_intensities, save_histograms
from mixstyleflow_monai.data.case_checks import check_headers
from mixstyleflow_monai.data.dataset_description import load_dataset
from mixstyleflow_monai.report import AUTHOR

PREVIEW_FOLDER = "preview"
HISTOGRAM_FILE = "intensities.png"


def preview_dataset(dataset: str | os.PathLike[str], output: str | os.PathLike[str] | None = None) -> list[Path]:
    """Write ``cases_DOMAIN.png`` for each domain and ``intensities.png`` for all of them.

    Everything is drawn before the first file is put in place, so that an error leaves an earlier preview as it was, and
    so does an end that is asked for (Ctrl-C, SIGTERM).
    Memory does not grow with the number of cases: at most 24 a domain are drawn and 50 are read for the histograms,
    at equal steps, one after the other.

    Args:
        dataset: folder of the data set, or its ``dataset.json``.
        output: folder for the files, made where it is absent; files of an earlier preview are replaced, others are left
            alone. ``preview`` beside ``dataset.json`` by default.

    Returns:
        The files: the sheets, source first, and then the histograms.

    Raises:
        FileNotFoundError: no data set there.
        ValueError: the data set breaks its rules, a case cannot be read, or the output cannot be written or would
            replace a file of someone else's.
    """
    description = check_headers(load_dataset(dataset))
    target = Path(os.path.abspath(description.path.parent / PREVIEW_FOLDER if output is None else output))
    if target.exists() and not target.is_dir():
        raise ValueError(f"--output {target}: is a file; give a folder.")
    domains = description.domains
    for name in (*_file_names(domains), HISTOGRAM_FILE):
        _check_ours(target / name)
    sizes = [len(description.select(domain=domain)) for domain in domains]
    steps = sum(min(size, CASES_PER_SHEET) + min(size, CASES_PER_DOMAIN) for size in sizes)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the final place, because a rename is atomic within one file system only.
        place = target if target.is_dir() else target.parent
        with scratch_folder(place, target.name) as scratch:
            drawn = []
            with tqdm(total=steps, desc=f"preview {description.name}", unit="case") as progress:
                for domain, file in zip(domains, _file_names(domains), strict=True):
                    drawn.append(domain_sheet(description, domain, scratch / file, progress=progress))
                intensities = {domain: draw_intensities(description, domain, progress=progress) for domain in domains}
            drawn.append(save_histograms(description, intensities, scratch / HISTOGRAM_FILE))
            target.mkdir(exist_ok=True)
            return [path.replace(target / path.name) for path in drawn]
    except OSError as error:
        raise ValueError(
            f"--output {target}: cannot be written ({error.strerror or error}). Give another folder with --output."
        ) from error


def _check_ours(path: Path) -> None:
    """Raise if a file is there that no preview wrote."""
    if not path.exists():
        return
    try:
        with Image.open(path) as image:
            ours = image.info.get("Author") == AUTHOR
    except OSError:
        ours = False
    if not ours:
        raise ValueError(
            f"--output {path.parent}: {path.name} is there and was not written by preview (or by an earlier version of "
            "it), which would replace it. Give another folder with --output, or move the file away."
        )


def _file_names(domains: Sequence[str]) -> list[str]:
    """Return a file name for each domain, without signs that a file system may refuse; numbered where two are equal."""
    names: list[str] = []
    for domain in domains:
        plain = "cases_" + re.sub(r"[^\w.-]+", "_", domain)
        name, number = plain, 1
        # Some file systems take upper and lower case for the same.
        while name.casefold() in (used.casefold() for used in names):
            number += 1
            name = f"{plain}_{number}"
        names.append(name)
    return [f"{name}.png" for name in names]
