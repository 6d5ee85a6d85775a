"""From files to the network's grid and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from numpy.typing import NDArray

from mixstyleflow_monai.data import LabelMapd, RegionEncoding, RegionMasksd, RegionProbabilitiesd, preprocessing
from mixstyleflow_monai.data.transforms import ScaleSlicesToUnitRanged

ONE = RegionEncoding({"organ": [1]})
NESTED = RegionEncoding({"disc": [1, 2], "cup": [2]})
Writer = Callable[..., str]


def ball(shape: tuple[int, ...], radius: float = 8.0) -> NDArray[np.uint8]:
    """Return a disc around the middle of the first two axes, the same in all slices, off centre."""
    x, y = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    disc = (x - shape[0] / 2 - 2) ** 2 + (y - shape[1] / 2 + 1) ** 2 < radius**2
    return np.broadcast_to(disc.reshape(*disc.shape, *(1,) * (len(shape) - 2)), shape).astype(np.uint8)


def texture(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def dice(a: Any, b: Any) -> float:
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    return 2.0 * float((a & b).sum()) / float(a.sum() + b.sum())


def there_and_back(transform: Compose, item: dict[str, str]) -> dict[str, Any]:
    """Bring image and label to the network's grid, and the label's mask back to the image's."""
    data = transform(item)
    data["pred"] = MetaTensor(data["label"].as_tensor().float(), meta=data["image"].meta)
    inverse = Invertd("pred", orig_keys="image", transform=transform, nearest_interp=False, to_tensor=True)
    result: dict[str, Any] = inverse(data)
    return result


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PSR", "IRP"])
@pytest.mark.parametrize("pixel_spacing", [None, (1.25, 1.0)])
def test_volume_comes_back_to_its_own_grid_with_its_mask(
    axes: str, pixel_spacing: tuple[float, float] | None, tmp_path: Path, write_volume: Writer
) -> None:
    shape = (36, 30, 5)
    image = write_volume(tmp_path / "image.nii.gz", texture(shape), axes=axes)
    label = write_volume(tmp_path / "label.nii.gz", ball(shape), axes=axes)
    transform = preprocessing((48, 32), pixel_spacing=pixel_spacing, encoding=ONE)
    result = there_and_back(transform, {"image": image, "label": label})
    assert result["image"].shape == (1, 48, 32, 5)
    reference = nib.load(label)
    assert result["pred"].shape == (1, *reference.shape)
    np.testing.assert_allclose(result["pred"].affine.numpy(), reference.affine, atol=1e-5)
    assert dice(result["pred"][0] > 0.5, reference.get_fdata()) > 0.9


@pytest.mark.parametrize("axes", ["LPS", "LAS", "PSR", "RSA"])
def test_slices_of_all_orientations_face_the_same_way(axes: str, tmp_path: Path, write_volume: Writer) -> None:
    array = texture((20, 24, 3))
    transform = preprocessing((32, 32), pixel_spacing=(1.0, 1.0))
    first, second = (
        transform({"image": write_volume(tmp_path / f"{name}.nii.gz", array, axes=name)})["image"]
        for name in ("RAS", axes)
    )
    torch.testing.assert_close(first.as_tensor(), second.as_tensor(), atol=1e-4, rtol=0)


def test_pixel_spacing_sets_the_size_of_things_in_pixels_whatever_the_voxels(
    tmp_path: Path, write_volume: Writer
) -> None:
    areas = []
    for spacing in ((1.0, 1.0, 3.0), (0.5, 0.5, 3.0)):
        size = round(40 / spacing[0])
        item = {
            "image": write_volume(tmp_path / "i.nii.gz", texture((size, size, 2)), spacing=spacing),
            "label": write_volume(tmp_path / "l.nii.gz", ball((size, size, 2), 8 / spacing[0]), spacing=spacing),
        }
        areas.append(int(preprocessing((48, 48), pixel_spacing=(1.0, 1.0), encoding=ONE)(item)["label"].sum()))
    assert areas[0] == pytest.approx(areas[1], rel=0.06)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".jpg"])
@pytest.mark.parametrize("colour", [False, True])
def test_image_comes_back_to_its_own_grid_with_its_mask(
    suffix: str, colour: bool, tmp_path: Path, write_image: Writer
) -> None:
    rows, columns = 60, 44
    values = np.random.default_rng(0).integers(0, 255, (rows, columns, 3) if colour else (rows, columns), np.uint8)
    image = write_image(tmp_path / f"image{suffix}", values)
    mask = ball((rows, columns))
    label = write_image(tmp_path / "label.png", mask)
    result = there_and_back(preprocessing((48, 32), encoding=ONE), {"image": image, "label": label})
    assert result["image"].shape == (3 if colour else 1, 48, 32)
    assert result["pred"].shape == (1, columns, rows)  # horizontal axis first, as MONAI reads
    assert dice((result["pred"][0] > 0.5).T, mask) > 0.9


@pytest.mark.parametrize("percentiles", [None, (2, 98)])
@pytest.mark.parametrize("dims", [2, 3])
def test_every_slice_of_every_channel_goes_from_0_to_1(
    percentiles: tuple[float, float] | None, dims: int, tmp_path: Path, write_volume: Writer, write_image: Writer
) -> None:
    if dims == 3:
        values = 300 * texture((20, 24, 4)) * np.array([1, 5, 0.1, 2], dtype=np.float32) - 900
        path = write_volume(tmp_path / "image.nii.gz", values)
    else:
        path = write_image(tmp_path / "a.png", np.random.default_rng(0).integers(40, 90, (30, 20, 3), np.uint8))
    image = preprocessing((32, 16), percentiles=percentiles)({"image": path})["image"]
    assert image.dtype == torch.float32
    assert image.shape == ((1, 32, 16, 4) if dims == 3 else (3, 32, 16))
    low, high = image.as_tensor().amin((1, 2)), image.as_tensor().amax((1, 2))
    torch.testing.assert_close(low, torch.zeros_like(low))
    torch.testing.assert_close(high, torch.ones_like(high))


@pytest.mark.parametrize("dtype", ["i1", "u2", ">i2", "<u4", "i8", ">f4", "f8"])
def test_every_type_of_voxel_is_read(dtype: str, tmp_path: Path) -> None:
    values = np.arange(20 * 20 * 3).reshape(20, 20, 3) % 100
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    nib.save(nib.Nifti1Image(values.astype(dtype), np.eye(4), header), tmp_path / "a.nii")
    nib.save(nib.Nifti1Image(values.astype("f4"), np.eye(4)), tmp_path / "b.nii")
    image, same = (preprocessing((32, 32))({"image": str(tmp_path / name)})["image"] for name in ("a.nii", "b.nii"))
    torch.testing.assert_close(image.as_tensor(), same.as_tensor())


def test_percentiles_tame_a_single_bright_voxel(tmp_path: Path, write_volume: Writer) -> None:
    array = texture((20, 20, 3))
    array[5, 5] = 1e4
    path = write_volume(tmp_path / "image.nii.gz", array)
    plain, clipped = (preprocessing((32, 32), percentiles=p)({"image": path})["image"] for p in (None, (2, 98)))
    assert float(plain.std()) < 0.1
    assert float(clipped.std()) > 0.15


def test_constant_slice_becomes_zero_not_nan() -> None:
    image = torch.stack([torch.full((1, 4, 4), 7.0), torch.arange(16.0).reshape(1, 4, 4)], dim=-1)
    scaled = ScaleSlicesToUnitRanged("image")({"image": image})["image"]
    assert not scaled[..., 0].any()
    assert float(scaled[..., 1].max()) == 1.0


def test_large_image_does_not_alias_when_it_becomes_small(tmp_path: Path, write_image: Writer) -> None:
    stripes = np.zeros((128, 128), np.uint8)
    stripes[:, ::2] = 255  # finer than the network's grid can show: grey at best
    stripes[:16, :] = 0  # what the range is scaled by
    stripes[-16:, :] = 255
    image = preprocessing((32, 32))({"image": write_image(tmp_path / "a.png", stripes)})["image"]
    assert float(image[0, 4:-4, 10:-10].std()) < 0.05


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("size", [(64, 96), (16, 16)])
def test_label_lies_on_the_image_wherever_the_grid_goes(
    dims: int, size: tuple[int, int], tmp_path: Path, write_volume: Writer, write_image: Writer
) -> None:
    mask = ball((64, 64), radius=19.3)
    if dims == 2:
        paths = [write_image(tmp_path / f"{name}.png", mask) for name in ("image", "label")]
    else:
        volume = np.stack([mask, mask], axis=-1)
        paths = [
            write_volume(tmp_path / f"{n}.nii.gz", volume.astype(t)) for n, t in (("image", "f4"), ("label", "u1"))
        ]
    data = preprocessing(size, encoding=ONE)({"image": paths[0], "label": paths[1]})

    def centre(values: torch.Tensor) -> torch.Tensor:
        plane = values.as_tensor()[0].double() if dims == 2 else values.as_tensor()[0, ..., 0].double()
        axes = [torch.arange(n, dtype=torch.float64) for n in plane.shape]
        return torch.stack([(plane.sum(1) * axes[0]).sum(), (plane.sum(0) * axes[1]).sum()]) / plane.sum()

    # In pixels of the file; nearest neighbours may be off by half a one, and a coarse grid rounds the disc.
    moved = (centre(data["image"]) - centre(data["label"])) * 64 / torch.tensor(size)
    assert float(moved.abs().max()) < 1.0


def test_labels_stay_labels_on_every_grid(tmp_path: Path, write_image: Writer) -> None:
    label = np.zeros((50, 70), np.uint8)
    label[10:40, 10:60] = 1
    label[20:30, 25:45] = 2
    item = {"image": write_image(tmp_path / "i.png", label * 90), "label": write_image(tmp_path / "l.png", label)}
    target = preprocessing((96, 32), encoding=NESTED)(item)["label"]
    assert target.dtype == torch.uint8
    assert set(target.unique().tolist()) == {0, 1}
    assert not bool((target[1] > target[0]).any())  # the cup lies in the disc


def test_masks_for_metrics_are_probabilities_above_one_half() -> None:
    logits = torch.tensor([[-0.1, 0.0, 0.1], [5.0, -5.0, 0.2]])[:, None]
    target = torch.tensor([[1, 0, 1], [0, 0, 1]], dtype=torch.uint8)[:, None]
    result = RegionMasksd(NESTED)({"pred": logits, "label": target})
    assert result["pred"].tolist() == [[[0, 0, 1]], [[1, 0, 1]]]
    assert torch.equal(result["label"], target.float())


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_logits_become_probabilities_and_then_a_label_map(activation: str) -> None:
    encoding = RegionEncoding({"disc": [1, 2], "cup": [2]}, activation)
    label = torch.randint(3, (1, 8, 9), generator=torch.Generator().manual_seed(0))
    logits = 20 * (2 * encoding.target(label).float() - 1)
    steps = Compose([RegionProbabilitiesd("pred", encoding), LabelMapd("pred", encoding)])
    assert torch.equal(steps({"pred": logits})["pred"], label.to(torch.uint8))


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "size", "pixel_spacing", "least"),
    [
        ("spleen_ct", (160, 160), None, 0.95),
        ("spleen_ct", (176, 176), (0.8, 0.8), 0.95),
        ("cord_t2_psr", (64, 64), None, 0.95),
        ("cord_t2_psr", (64, 64), (1.0, 1.0), 0.98),
        # Grey matter is a few pixels wide: the grid must keep it.
        ("cord_t2star_las", (320, 320), None, 0.98),
        ("cord_t2star_las", (160, 160), (0.45, 0.45), 0.9),
    ],
)
def test_real_masks_survive_the_way_to_the_network_and_back(
    name: str, size: tuple[int, int], pixel_spacing: tuple[float, float] | None, least: float, shared_data: Path
) -> None:
    item = {key: str(shared_data / "volumes" / name / f"{key}.nii.gz") for key in ("image", "label")}
    transform = preprocessing(size, pixel_spacing=pixel_spacing, percentiles=(2, 98), encoding=ONE)
    result = there_and_back(transform, item)
    reference = nib.load(item["label"])
    assert result["pred"].shape[1:] == reference.shape
    assert float(result["image"].min()) >= 0
    assert float(result["image"].max()) <= 1
    assert dice(result["pred"][0] > 0.5, reference.get_fdata() > 0) > least


@pytest.mark.shared_data
def test_real_photographs_keep_their_masks(shared_data: Path) -> None:
    cell = RegionEncoding({"cell": [128, 255], "nucleus": [255]})
    folder = shared_data / "white_cells" / "yellow_stain"
    images = sorted((folder / "images").iterdir())[:3]
    for image in images:
        label = next((folder / "masks").glob(f"{image.stem}.*"))
        result = there_and_back(preprocessing((96, 96), encoding=cell), {"image": str(image), "label": str(label)})
        reference = preprocessing((96, 96), encoding=cell).transforms[0]({"image": str(image), "label": str(label)})
        masks = cell.masks(reference["label"][None])
        assert result["image"].shape == (3, 96, 96)
        assert dice(result["pred"][0] > 0.5, masks[0]) > 0.95
        assert dice(result["pred"][1] > 0.5, masks[1]) > 0.95
