"""The deterministic part of the input pipeline, the same for images and for volumes.

A volume is a stack of slices along its last axis; everything here treats a 2-D image as it treats one slice.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    InvertibleTransform,
    MapTransform,
    Orientationd,
    Resized,
    ResizeWithPadOrCropd,
    ScaleIntensityRanged,
    ScaleIntensityRangePercentilesd,
    Spacingd,
)
from monai.transforms.utils import allow_missing_keys_mode

from mixstyleflow_monai.data.loading import image_loader
from mixstyleflow_monai.data.regions import RegionEncoding

LABEL_KEY = "label"


class InPlaneGeometryd(MapTransform, InvertibleTransform):
    """Bring the in-plane grid to ``image_size``, whatever the number of spatial dimensions. Invertible.

    Volumes are put into LPS order first, so that the slices of all sites face the same way, as DICOM shows them. With
    ``pixel_spacing`` they are resampled in plane to that spacing and cropped or zero-padded around the centre; the
    slice thickness stays. Otherwise, and for 2-D images (which have no known spacing), the whole image is resized.

    Args:
        keys: what to change; ``"label"`` is interpolated by nearest neighbour, all else linearly.
        image_size: (width, height) in pixels: the first and the second axis of the arrays. As MONAI's readers have it,
            the first one is the horizontal one (x).
        pixel_spacing: (mm, mm) in plane, or None.
    """

    def __init__(
        self, keys: KeysCollection, image_size: Sequence[int], pixel_spacing: Sequence[float] | None = None
    ) -> None:
        super().__init__(keys)
        size = tuple(int(n) for n in image_size)
        labels = [key == LABEL_KEY for key in self.keys]
        # Resizing with plain "nearest" takes the corner of a pixel, not its centre, and so moves labels against images.
        bilinear, trilinear = (
            ["nearest-exact" if is_label else linear for is_label in labels] for linear in ("bilinear", "trilinear")
        )
        # Without the low-pass a large photograph aliases when it becomes a small one.
        smooth = [not is_label for is_label in labels]
        self.planar = Compose([Resized(self.keys, size, mode=bilinear, anti_aliasing=smooth)])
        orientation = Orientationd(self.keys, axcodes="LPS", labels=None)
        if pixel_spacing is None:
            self.volumetric = Compose(
                [orientation, Resized(self.keys, (*size, -1), mode=trilinear, anti_aliasing=smooth)]
            )
        else:
            spacing = (float(pixel_spacing[0]), float(pixel_spacing[1]), -1.0)
            sampling = ["nearest" if is_label else "bilinear" for is_label in labels]
            self.volumetric = Compose(
                [
                    orientation,
                    Spacingd(self.keys, pixdim=spacing, mode=sampling),
                    ResizeWithPadOrCropd(self.keys, spatial_size=(*size, -1)),
                ]
            )

    def _chain(self, data: Mapping[Hashable, Any]) -> Compose:
        key = next(key for key in self.keys if key in data)
        return self.volumetric if data[key].ndim == 4 else self.planar

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Apply to (C, H, W) or (C, H, W, D) tensors."""
        return dict(self._chain(data)(dict(data)))

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Go back to the original grid, with those of the keys that are there."""
        chain = self._chain(data)
        # Invertd gives the image's key alone, and lets only the transforms that it can see do without the others.
        with allow_missing_keys_mode(chain):
            return dict(chain.inverse(dict(data)))


class ScaleSlicesToUnitRanged(MapTransform):
    """Scale every channel of every slice to [0, 1] by its own minimum and maximum; a constant slice becomes 0."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Apply to (C, H, W) or (C, H, W, D) tensors."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            low, high = image.amin(dim=(1, 2), keepdim=True), image.amax(dim=(1, 2), keepdim=True)
            result[key] = (image - low) / (high - low).clamp_min(1e-6)
        return result


class StandardizeSlicesd(MapTransform):
    """Bring every channel of every slice to mean 0 and standard deviation 1; a constant slice becomes 0.

    The variance is the biased one plus 1e-5, as in the instance norm that rebuilds such images.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Apply to (C, H, W) or (C, H, W, D) tensors."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            centred = image - image.mean(dim=(1, 2), keepdim=True)
            result[key] = centred / (centred.square().mean(dim=(1, 2), keepdim=True) + 1e-5).sqrt()
        return result


class RefuseNonFinited(MapTransform):
    """Refuse images with NaN or infinite values, of which scaling by a range or by percentiles leaves nothing.

    Raises:
        ValueError: names the file.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check images of any shape."""
        for key in self.key_iterator(dict(data)):
            if not bool(torch.isfinite(torch.as_tensor(data[key])).all()):
                name = getattr(data[key], "meta", {}).get("filename_or_obj", "image")
                raise ValueError(f"{name}: the image has values that are not finite. Replace them, for example by 0.")
        return dict(data)


class ScaleDataRanged(MapTransform):
    """Scale images by the range of their data type: 8 bits / 255, 16 bits / 65535; floats must be in [0, 1] already.

    Keeps what a site's brightness and colours are, unlike scaling by an image's own minimum and maximum.

    Raises:
        ValueError: floats outside [0, 1] or integers of another type, which have no range of their own.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Apply to images in the data type they were loaded with."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            # MONAI turns 16-bit images into int32, because torch computes little in uint16.
            top = {torch.uint8: 255.0, torch.int32: 65535.0, torch.bool: 1.0}.get(image.dtype)
            if top is None and image.is_floating_point():
                top = 1.0
            low, high = float(image.min()), float(image.max())
            if top is None or low < 0 or high > top:
                name = getattr(image, "meta", {}).get("filename_or_obj", "image")
                raise ValueError(
                    f"{name}: values of type {image.dtype} from {low:g} to {high:g} have no data range that scales "
                    'them to [0, 1]. Set intensity to "slice_range" or to a window [low, high].'
                )
            result[key] = image.to(torch.float32) / top
        return result


class RegionTransformd(MapTransform):
    """Convert each key with a `RegionEncoding`; subclasses say how.

    Args:
        keys: what to convert.
        encoding: regions of the label values.
    """

    def __init__(self, keys: KeysCollection, encoding: RegionEncoding) -> None:
        super().__init__(keys)
        self.encoding = encoding

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert the keys that are there."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.convert(result[key])
        return result

    @abstractmethod
    def convert(self, value: torch.Tensor) -> torch.Tensor:
        """Return what one value becomes."""


class EncodeRegionsd(RegionTransformd):
    """Turn an integer label map (1, ...) into the network's target channels, uint8 (out_channels, ...)."""

    def convert(self, value: torch.Tensor) -> torch.Tensor:
        """Return the target."""
        return self.encoding.target(torch.as_tensor(value))


class RegionProbabilitiesd(RegionTransformd):
    """Turn logits into probabilities (out_channels, ...): of regions, with softmax of background and classes."""

    def convert(self, value: torch.Tensor) -> torch.Tensor:
        """Return the probabilities."""
        return self.encoding.channel_probabilities(value[None])[0]


class LabelMapd(RegionTransformd):
    """Turn `RegionProbabilitiesd` into one integer label map, uint8 (1, ...), nested regions resolved."""

    def convert(self, value: torch.Tensor) -> torch.Tensor:
        """Return the label map."""
        return self.encoding.label_map(value)


class RegionMasksd(MapTransform):
    """Turn the logits ``pred`` and the training target ``label`` into binary region masks, for metrics.

    Region probabilities above 0.5 are inside.
    """

    def __init__(self, encoding: RegionEncoding) -> None:
        super().__init__(("pred", LABEL_KEY))
        self.encoding = encoding

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Apply to (out_channels, ...) tensors."""
        result = dict(data)
        result["pred"] = (self.encoding.probabilities(result["pred"][None])[0] > 0.5).float()
        result[LABEL_KEY] = self.encoding.masks_of_target(result[LABEL_KEY][None])[0]
        return result


def preprocessing(
    image_size: Sequence[int],
    *,
    pixel_spacing: Sequence[float] | None = None,
    percentiles: Sequence[float] | None = None,
    intensity: str | Sequence[float] = "slice_range",
    encoding: RegionEncoding | None = None,
) -> Compose:
    """Return the deterministic transforms from files to network input.

    Load, clip each case to its intensity percentiles, bring it to the network's grid, scale to [0, 1] or z-score.

    Args:
        image_size: (H, W) of the network's input, multiples of 16; see `InPlaneGeometryd`.
        pixel_spacing: see `InPlaneGeometryd`.
        percentiles: (low, high) in [0, 100] over the whole case and channel, or None for no clipping.
        intensity: how values come to [0, 1]: "slice_range", by minimum and maximum of each slice and channel;
            "data_range", see `ScaleDataRanged`; or a window (low, high), clipped, for example of Hounsfield units.
            "z_score" does not bring them there: mean 0 and standard deviation 1, see `StandardizeSlicesd`.
        encoding: if given, ``"label"`` is loaded as well and becomes the training target on the network's grid.

    Returns:
        Transform of ``{"image": path, ...}``; image float32 (C, H, W[, D]) in [0, 1] unless z-scored, a `MetaTensor`
        whose geometry ``Invertd`` can undo.
    """
    keys = ["image"] if encoding is None else ["image", LABEL_KEY]
    # Only the data range needs the type on disk; some of those that NIfTI has (big-endian ones) are not torch's.
    dtype = None if intensity == "data_range" else np.float32
    steps: list[Any] = [image_loader(keys, dtype), EnsureChannelFirstd(keys)]
    if encoding is None:  # `SliceDataset` looks at images and labels together
        steps.append(RefuseNonFinited("image"))
    if intensity == "data_range":
        steps.append(ScaleDataRanged("image"))
    steps.append(EnsureTyped(keys, dtype=torch.float32))
    if percentiles is not None:
        low, high = percentiles
        steps.append(
            ScaleIntensityRangePercentilesd(
                "image", lower=low, upper=high, b_min=0, b_max=1, clip=True, channel_wise=True
            )
        )
    elif not isinstance(intensity, str):
        low, high = intensity
        steps.append(ScaleIntensityRanged("image", a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True))
    steps.append(InPlaneGeometryd(keys, image_size, pixel_spacing))
    if intensity == "slice_range":
        steps.append(ScaleSlicesToUnitRanged("image"))
    elif intensity == "z_score":
        steps.append(StandardizeSlicesd("image"))
    if encoding is not None:
        steps.append(EncodeRegionsd(LABEL_KEY, encoding))
    return Compose(steps)
