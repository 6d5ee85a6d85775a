"""The task: what a network must be told about its images and labels, from training to deployment.

Phase I takes these facts from the data set and its configuration; they travel in the manifest beside each model, so
that evaluation and inference cannot be run with another size, spacing or region list than training was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from monai.transforms import Compose, EnsureChannelFirstd

from mixstyleflow_monai.artifacts import manifest_path, read_manifest
from mixstyleflow_monai.data.dataset_description import DatasetDescription, load_dataset
from mixstyleflow_monai.data.loading import image_loader
from mixstyleflow_monai.data.regions import RegionEncoding
from mixstyleflow_monai.data.transforms import (
    LABEL_KEY,
    ScaleSlicesToUnitRanged,
    StandardizeSlicesd,
    preprocessing,
)
from mixstyleflow_monai.networks import NORMALIZATIONS

VOLUME_PERCENTILES = (2.0, 98.0)
"""Intensity percentiles to which volumes are clipped, as in the prepared prostate set of MaxStyle."""

INTENSITIES = ("slice_range", "data_range", "z_score")


@dataclass(frozen=True)
class Task:
    """Shape and meaning of a network's input and output.

    Attributes:
        in_channels: image channels.
        regions: region name -> label values, in channel order.
        image_size: (width, height) of the network's input in pixels, of volumes left-right and front-back, multiples of
            16; see `mixstyleflow_monai.data.transforms.InPlaneGeometryd`.
        spatial_dims: 2 for images, 3 for volumes that are read slice by slice.
        pixel_spacing: (mm, mm) in plane to which volumes are resampled, or None to resize the whole slice.
        percentiles: (low, high) clip of each case and channel, or None.
        intensity: "slice_range", "data_range", "z_score" or a window (low, high), see `preprocessing`. Percentiles go
            with "slice_range" and "z_score" only.
        activation: "sigmoid" for a channel a region, "softmax" for exclusive classes.
        image_activation: last activation of the image decoder, "sigmoid", or "instance_norm" for z-scored images.
        normalization: layers that the encoder has besides, "san_saw", or None; see `DualDecoderNet`.
    """

    in_channels: int
    regions: dict[str, list[int]]
    image_size: tuple[int, int]
    spatial_dims: int = 2
    pixel_spacing: tuple[float, float] | None = None
    percentiles: tuple[float, float] | None = None
    intensity: str | tuple[float, float] = "slice_range"
    activation: str = "sigmoid"
    image_activation: str = "sigmoid"
    normalization: str | None = None

    def __post_init__(self) -> None:
        """Normalise sequences and check the values."""
        if self.spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims={self.spatial_dims!r}: expected 2 (images) or 3 (volumes).")
        pixels = _numbers("image_size", self.image_size, "[width, height], multiples of 16, such as [224,224]")
        if any(not n.is_integer() for n in pixels):
            raise ValueError(f"image_size={list(pixels)}: expected two whole numbers of pixels, multiples of 16.")
        size = tuple(int(n) for n in pixels)
        if len(size) != 2 or any(n < 16 or n % 16 for n in size):
            padded = [max(16, (n + 15) // 16 * 16) for n in (size if len(size) == 2 else (224, 224))]
            raise ValueError(
                f"image_size={list(size)}: expected two multiples of 16 (the encoder halves the size four times). "
                f"Use {padded}."
            )
        object.__setattr__(self, "image_size", size)
        if self.pixel_spacing is not None:
            spacing = _numbers("pixel_spacing", self.pixel_spacing, "such as [1.0,1.0], or null")
            if len(spacing) != 2 or any(not s > 0 for s in spacing):
                raise ValueError(f"pixel_spacing={list(spacing)}: expected two positive numbers in mm, or null.")
            object.__setattr__(self, "pixel_spacing", spacing)
        if self.percentiles is not None:
            limits = _numbers("percentiles", self.percentiles, "such as [2,98], or null")
            if len(limits) != 2 or not 0 <= limits[0] < limits[1] <= 100:
                raise ValueError(f"percentiles={list(limits)}: expected 0 <= low < high <= 100, or null.")
            object.__setattr__(self, "percentiles", limits)
        object.__setattr__(self, "intensity", _checked_intensity(self.intensity, self.percentiles))
        if (self.intensity == "z_score") != (self.image_activation == "instance_norm"):
            raise ValueError(
                f"image_activation={self.image_activation!r} with intensity={self.intensity!r}: 'instance_norm' "
                "rebuilds z-scored images and 'sigmoid' those in [0, 1]. Change one of the two."
            )
        if self.normalization is not None and self.normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization={self.normalization!r}: expected one of {NORMALIZATIONS}, or null.")
        object.__setattr__(self, "regions", {name: list(values) for name, values in self.regions.items()})
        _ = self.encoding

    @classmethod
    def from_dataset(
        cls,
        dataset: DatasetDescription | str | os.PathLike[str],
        image_size: Sequence[int],
        *,
        pixel_spacing: Sequence[float] | str | None = None,
        percentiles: Sequence[float] | str | None = "auto",
        intensity: Sequence[float] | str = "auto",
        **settings: Any,
    ) -> Task:
        """Take channels, regions and dimensions from a data set, the rest from the arguments.

        ``intensity="auto"`` scales volumes, whose units are arbitrary, by the range of each slice after clipping, and
        images by the range of their data type. ``intensity="z_score"`` comes with the image activation that goes with
        it. ``percentiles="auto"`` clips volumes to their 2-98 percentiles unless ``intensity`` is a window or the range
        of the data type, and leaves 2-D images alone. ``pixel_spacing`` is used for volumes only, since 2-D
        images carry no spacing.
        """
        description = dataset if isinstance(dataset, DatasetDescription) else load_dataset(dataset)
        # On the command line of a bundle, null is a word.
        pixel_spacing = None if pixel_spacing == "null" else pixel_spacing
        percentiles = None if percentiles == "null" else percentiles
        volumes = description.spatial_dims == 3
        if intensity == "auto":
            intensity = "slice_range" if volumes or percentiles not in ("auto", None) else "data_range"
        if percentiles == "auto":
            percentiles = VOLUME_PERCENTILES if volumes and intensity in ("slice_range", "z_score") else None
        if intensity == "z_score":
            settings.setdefault("image_activation", "instance_norm")
        return cls(
            in_channels=description.channels,
            regions=description.regions,
            image_size=image_size,  # type: ignore[arg-type]
            spatial_dims=description.spatial_dims,
            pixel_spacing=pixel_spacing if volumes else None,  # type: ignore[arg-type]
            percentiles=percentiles,  # type: ignore[arg-type]
            intensity=intensity,  # type: ignore[arg-type]
            **settings,
        )

    @classmethod
    def from_model(cls, model_path: str | os.PathLike[str], defaults: Mapping[str, Any] | None = None) -> Task:
        """Read the task from the manifest beside a model; the defaults where there is no model yet.

        The defaults are what an untrained bundle describes, so that its network can be built, checked and exported.

        Raises:
            FileNotFoundError: neither model nor defaults, or a model without its manifest: the defaults may not be
                what it was trained for.
            ValueError: the manifest is of another file or tells no task.
        """
        if defaults is not None and not os.path.exists(model_path):
            return cls(**defaults)
        manifest = read_manifest(model_path)
        try:
            return cls(**manifest["task"])
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{manifest_path(model_path)}: no task of this version in it ({error}). Give a model of phase 1 or 3, "
                "or train it again with this version."
            ) from error

    def check_dataset(self, description: DatasetDescription) -> DatasetDescription:
        """Return the data set if it is of this task.

        Raises:
            ValueError: other channels, dimensions or regions than the model was trained with; names both.
        """
        for name, own, found in (
            ("channels", self.in_channels, description.channels),
            ("spatial_dims", self.spatial_dims, description.spatial_dims),
            ("regions", self.regions, description.regions),
        ):
            if _in_order(own) != _in_order(found):
                raise ValueError(
                    f"{description.path}: {name} is {found}, but the model was trained with {own}. Give a data set of "
                    "the same task, or train phase 1 on this one."
                )
        return description

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values that rebuild the task.

        A task without further layers reads as it did before there were any.
        """
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        if self.normalization is None:
            del values["normalization"]
        return values

    def with_image_size(self, image_size: Sequence[int]) -> Task:
        """Return the task at another input size."""
        return replace(self, image_size=image_size)  # type: ignore[arg-type]

    def with_normalization(self, normalization: str | None) -> Task:
        """Return the task of a network with other layers of normalization."""
        return replace(self, normalization=normalization)

    @property
    def encoding(self) -> RegionEncoding:
        """Translator between label maps and channels."""
        return RegionEncoding(self.regions, self.activation)

    @property
    def out_channels(self) -> int:
        """Channels of the network's segmentation output."""
        return self.encoding.out_channels

    @property
    def classes(self) -> int:
        """Exclusive classes that the regions tell apart, background included."""
        return len(self.encoding.classes)

    def network_settings(self) -> dict[str, Any]:
        """Return the arguments of `DualDecoderNet`."""
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "image_activation": self.image_activation,
            "normalization": self.normalization,
            "classes": self.classes,
        }

    def training_preprocessing(self) -> Compose:
        """Return transforms of image and label to the network's grid."""
        return preprocessing(self.image_size, **self._input_settings(), encoding=self.encoding)

    def training_augmentation(self, name: str) -> Compose:
        """Return a recipe of `mixstyleflow_monai.data.augmentation` for images of this task.

        The recipes are for images in [0, 1]: z-scored ones are scaled there slice by slice, and z-scored again.
        """
        from mixstyleflow_monai.data.augmentations import augmentation  # inference does without it

        recipe = augmentation(name, self.image_size, self.in_channels)
        if self.intensity != "z_score":
            return recipe
        return Compose([ScaleSlicesToUnitRanged("image"), *recipe.transforms, StandardizeSlicesd("image")])

    def inference_preprocessing(self) -> Compose:
        """Return transforms of the image alone."""
        return preprocessing(self.image_size, **self._input_settings())

    def _input_settings(self) -> dict[str, Any]:
        return {
            "pixel_spacing": self.pixel_spacing,
            "percentiles": self.percentiles,
            "intensity": self.intensity,
        }

    def evaluation_preprocessing(self) -> Compose:
        """Return transforms of the image, with the label as it is on disk, on its original grid."""
        load_label = [image_loader(LABEL_KEY), EnsureChannelFirstd(LABEL_KEY)]
        return Compose([*self.inference_preprocessing().transforms, *load_label])


def _in_order(value: Any) -> Any:
    """Return the values of each region in order, and anything else as it is."""
    return {name: sorted(values) for name, values in value.items()} if isinstance(value, Mapping) else value


def _numbers(name: str, values: Any, expected: str) -> tuple[float, ...]:
    """Return the values as numbers; the error names the option and what is expected."""
    try:
        # A word is a sequence of letters, and "224" one of digits.
        return tuple(float(value) for value in ([values] if isinstance(values, str) else values))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}={values!r}: expected two numbers, {expected}.") from error


def _checked_intensity(
    intensity: str | Sequence[float], percentiles: Sequence[float] | None
) -> str | tuple[float, float]:
    if isinstance(intensity, str):
        if intensity not in INTENSITIES:
            raise ValueError(f"intensity={intensity!r}: expected one of {INTENSITIES} or a window [low, high].")
        checked: str | tuple[float, float] = intensity
    else:
        window = _numbers("intensity", intensity, f"a window [low, high], or one of {INTENSITIES}")
        if len(window) != 2 or not window[0] < window[1]:
            raise ValueError(f"intensity={list(window)}: expected a window of two numbers, low < high.")
        checked = (window[0], window[1])
    if percentiles is not None and checked not in ("slice_range", "z_score"):
        raise ValueError(
            f"percentiles={list(percentiles)} with intensity={intensity!r}: both say where to clip. Set percentiles to "
            'null, or intensity to "slice_range".'
        )
    return checked
