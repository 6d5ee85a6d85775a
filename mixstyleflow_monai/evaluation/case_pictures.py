"""A picture of every evaluated case: the image, its label and the prediction side by side."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, Orientation
from PIL import Image, ImageColor
from scipy.ndimage import binary_dilation, binary_erosion
from torch import Tensor

from mixstyleflow_monai.artifacts import atomic_path
from mixstyleflow_monai.data import RegionEncoding
from mixstyleflow_monai.data.loading import image_loader
from mixstyleflow_monai.report.figures import CONTOUR_COLOURS

logger = logging.getLogger(__name__)
FOLDER = "case_pictures"
TILES = ("image", "label", "prediction")
"""What a picture shows, from left to right."""
SIDE = 256
"""Longest side of a tile in pixels."""


class CasePictures:
    """Write ``case_pictures/DOMAIN/CASE-xxxxxxxx.jpg`` of every case that an evaluator goes through.

    Attach to the same evaluator as `DomainEvaluation`. Of a volume it is the slice in which the label has most
    foreground, the same one whatever the prediction, so that pictures of several networks can be put side by side; it
    is shown as radiologists see it, front up and the patient's right on the left. Each picture says in its comment
    which case, network and data set it is of (`read_case_picture`). One that cannot be written ends the pictures with a
    warning, and not the evaluation.

    Args:
        encoding: regions of the label values.
        output_dir: folder for ``case_pictures``.
        model_sha256: of the network that predicts.
        dataset_sha256: of the description of the data set.
        enabled: False writes nothing.
    """

    def __init__(
        self,
        encoding: RegionEncoding,
        output_dir: str | os.PathLike[str],
        *,
        model_sha256: str,
        dataset_sha256: str,
        enabled: bool = True,
    ) -> None:
        self.encoding = encoding
        self.output_dir = Path(output_dir)
        self.facts = {"model_sha256": model_sha256, "dataset_sha256": dataset_sha256}
        self.enabled = enabled
        # The network's own input is cropped, scaled and clipped; what is shown is the file. Whether an image has 8
        # bits tells its range; the type of a volume tells nothing, and may be one that torch does not have.
        self._loaders = {
            dimensions: Compose([image_loader("image", dtype), EnsureChannelFirstd("image")])
            for dimensions, dtype in ((2, None), (3, np.float32))
        }

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        if self.enabled:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Write the pictures of a batch."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            if not self.enabled:
                return
            try:
                self._write(item, output)
            except Exception as error:  # whatever it is, hours of evaluation are worth more than a picture
                self.enabled = False
                logger.warning(
                    "no picture of case %s in %s, and none of the cases after it (%s: %s)",
                    item["case_id"],
                    self.output_dir / FOLDER,
                    type(error).__name__,
                    error,
                )

    def _write(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> None:
        load = self._loaders[output["label"].ndim - 1]
        image = load({"image": item["image"].meta["filename_or_obj"]})["image"]
        picture = draw_case(image, output["label"], output["pred"], self.encoding)
        comment = {"domain": item["domain"], "case_id": item["case_id"], **self.facts}
        with atomic_path(case_picture_path(self.output_dir, item["domain"], item["case_id"])) as partial:
            # Whole colours: halved ones would smear outlines of a pixel's width.
            picture.save(partial, quality=85, subsampling=0, comment=json.dumps(comment))


def case_picture_path(output_dir: str | os.PathLike[str], domain: str, case_id: str) -> Path:
    """Return where the picture of a case is; names that a file cannot have stay apart by a hash."""
    code = hashlib.sha256(case_id.encode()).hexdigest()[:8]
    other = "" if _plain(domain) == domain else f"-{hashlib.sha256(domain.encode()).hexdigest()[:8]}"
    return Path(output_dir) / FOLDER / f"{_plain(domain)}{other}" / f"{_plain(case_id)}-{code}.jpg"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:80]


def read_case_picture(path: Path, facts: Mapping[str, str]) -> list[Image.Image] | None:
    """Return the tiles of a picture in the order of `TILES`.

    Args:
        path: of the picture.
        facts: what its comment has to say: domain, case_id, model_sha256 and dataset_sha256.

    Returns:
        None if there is no such picture, or one of another case, network or data set.
    """
    if not path.is_file():
        return None
    try:
        with Image.open(path) as opened:
            found = json.loads(opened.info.get("comment", b"{}"))
            picture = opened.convert("RGB")
    except (OSError, ValueError):  # of another program, or damaged
        return None
    if found != facts:
        return None
    width = picture.width // len(TILES)
    return [picture.crop((n * width, 0, (n + 1) * width, picture.height)) for n in range(len(TILES))]


def draw_case(image: Tensor, label: Tensor, prediction: Tensor, encoding: RegionEncoding) -> Image.Image:
    """Return the three tiles of a case in one picture.

    Args:
        image: (C, H, W[, D]) as in its file.
        label: (1, H, W[, D]); as a `MetaTensor` of a volume its affine tells how it lies.
        prediction: label map of the same shape.
        encoding: regions, which are outlined each in a colour.
    """
    spacing = (1.0, 1.0)
    if label.ndim == 4:
        image, label, prediction, spacing = _key_slice(image, label, prediction, encoding)
    shape = np.array([size * step for size, step in zip(label.shape[1:], spacing, strict=True)])
    width, height = np.maximum(1, np.round(shape * SIDE / shape.max())).astype(int).tolist()
    shown = Image.fromarray(_displayed(image)).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    tiles = [shown, *(_outlined(shown, encoding.masks(plain)) for plain in (label, prediction))]
    picture = Image.new("RGB", (width * len(tiles), height))
    for number, tile in enumerate(tiles):
        picture.paste(tile, (number * width, 0))
    return picture


def _key_slice(
    image: Tensor, label: Tensor, prediction: Tensor, encoding: RegionEncoding
) -> tuple[Tensor, Tensor, Tensor, tuple[float, float]]:
    """Return image, label and prediction of the slice with most foreground, and its pixel size in mm."""
    affine = label.affine if isinstance(label, MetaTensor) else torch.eye(4)
    turn = Orientation(axcodes="LPS", labels=None)
    given = (image, label, prediction)
    volumes: list[Any] = [turn(MetaTensor(_without_meta(volume), affine=affine)) for volume in given]
    area = encoding.masks(_without_meta(volumes[1])).any(0).sum((0, 1))
    # Without any foreground the middle one; `argmax` alone would take an end of the volume.
    index = int(area.argmax()) if bool(area.any()) else len(area) // 2
    first, second = (float(size) for size in volumes[1].pixdim[:2])
    planes = [_without_meta(volume)[..., index] for volume in volumes]
    return planes[0], planes[1], planes[2], (first, second)


def _without_meta(tensor: Tensor) -> Tensor:
    return torch.as_tensor(tensor).as_subclass(torch.Tensor)


def _displayed(image: Tensor) -> np.ndarray:
    """Return an image (C, H, W) of any type as 8-bit values, rows first; the first three of several channels."""
    array = _without_meta(image).cpu().numpy()
    # MONAI's readers put the horizontal axis first.
    array = array[:3].transpose(2, 1, 0) if len(array) >= 3 else array[0].T
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    array = np.nan_to_num(array.astype(np.float32))
    # A few voxels of a scanner's volume are much brighter than all others.
    low, high = np.percentile(array, (0.5, 99.5))
    scaled = (array - low) / max(float(high - low), 1e-12)
    return np.ascontiguousarray((scaled.clip(0, 1) * 255).round().astype(np.uint8))


def _outlined(image: Image.Image, masks: Tensor) -> Image.Image:
    """Return the image with the outline of each mask (K, H, W); dashes in turn where outlines coincide."""
    array = np.array(image)
    inside = np.stack([_at_size(mask.T, image.size) for mask in _without_meta(masks).cpu().numpy()])
    edges = np.stack([mask & ~binary_erosion(mask) for mask in inside])
    # Darker beside them, so that a yellow line is seen on yellow too; before any line is drawn, that none is darkened.
    around = np.stack([binary_dilation(mask) & ~mask for mask in inside])
    array[around.any(0) & ~edges.any(0)] //= 2
    rows, columns = np.indices(array.shape[:2])
    turn = (rows + columns) // 4 % np.maximum(edges.sum(0), 1)
    for number, edge in enumerate(edges):
        colour = ImageColor.getrgb(CONTOUR_COLOURS[number % len(CONTOUR_COLOURS)])
        array[edge & (edges[:number].sum(0) == turn)] = colour
    return Image.fromarray(array)


def _at_size(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a mask (rows, columns) at another size (width, height); a small part stays when it shrinks."""
    share = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
    return np.asarray(share) > (0.0 if mask.size > size[0] * size[1] else 0.5)
