"""Pictures of cases: what is shown, where it lies, and whose it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from PIL import Image

from mixstyleflow_monai.data import RegionEncoding
from mixstyleflow_monai.evaluation import CasePictures, case_picture_path, draw_case, read_case_picture

ENCODING = RegionEncoding({"disc": [1, 2], "cup": [2]})
ROOT = Path(__file__).parents[2]
YELLOW, BLUE = (255, 212, 0), (0, 213, 255)


def block(shape: tuple[int, ...], *, value: int = 1, at: slice = slice(8, 16)) -> torch.Tensor:
    label = torch.zeros(1, *shape)
    label[:, at, at] = value
    return label


def tiles_of(picture: Image.Image) -> list[np.ndarray]:
    return np.split(np.array(picture), 3, axis=1)


def where(tile: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Return rows and columns of the pixels of a colour, relative to the tile's size."""
    return np.argwhere((tile == colour).all(-1)) / np.array(tile.shape[:2])


def test_label_and_prediction_are_outlined_each_on_the_image() -> None:
    image = torch.full((1, 32, 64), 90, dtype=torch.uint8)
    label = block((32, 64))
    prediction = block((32, 64), value=2, at=slice(20, 28))
    plain, reference, predicted = tiles_of(draw_case(image, label, prediction, ENCODING))
    assert (plain == 90).all()
    # (x, y) = (8 to 16 of 32, 8 to 16 of 64); rows are y.
    assert where(reference, YELLOW).min(0) == pytest.approx([8 / 64, 8 / 32], abs=0.01)
    assert where(reference, YELLOW).max(0) == pytest.approx([16 / 64, 16 / 32], abs=0.01)
    assert where(predicted, BLUE).min(0) == pytest.approx([20 / 64, 20 / 32], abs=0.01)
    assert plain.shape == (256, 128, 3)


def test_an_outline_has_a_darker_line_beside_it() -> None:
    yellow = torch.tensor(YELLOW, dtype=torch.uint8).reshape(3, 1, 1).repeat(1, 32, 32)
    _, reference, _ = tiles_of(draw_case(yellow, block((32, 32)), torch.zeros(1, 32, 32), ENCODING))
    assert ((reference == [127, 106, 0]).all(-1)).sum() > 200


def test_every_region_keeps_its_outline_beside_and_on_another() -> None:
    """A cup one pixel inside its disc, and one that fills it."""
    for inner in (slice(5, 27), slice(4, 28)):
        label = block((32, 32), at=slice(4, 28))
        label[:, inner, inner] = 2
        tile = tiles_of(draw_case(torch.zeros(1, 32, 32), label, label, ENCODING))[1]
        yellow, blue = len(where(tile, YELLOW)), len(where(tile, BLUE))
        assert min(yellow, blue) > 0.3 * max(yellow, blue)


def test_a_region_that_fills_the_image_has_an_outline() -> None:
    tile = tiles_of(draw_case(torch.zeros(1, 32, 32), torch.ones(1, 32, 32), torch.zeros(1, 32, 32), ENCODING))[1]
    assert len(where(tile, YELLOW)) == 4 * 255


@pytest.mark.parametrize("start", [100, 101, 102, 103, 104, 105, 106, 107])
def test_a_part_of_a_pixel_is_seen_in_a_large_image(start: int) -> None:
    label = block((2048, 2048), at=slice(start, start + 1))
    tile = tiles_of(draw_case(torch.zeros(1, 2048, 2048), label, label, ENCODING))[1]
    assert len(where(tile, YELLOW)) == 1


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PLS"])
def test_a_volume_is_shown_by_the_slice_with_most_label_and_upright(codes: str) -> None:
    """A mark at the front of the patient's right side, in whatever order the file has its axes."""
    lps = np.zeros((20, 20, 6), dtype=np.float32)
    lps[2:5, 3:6, 4] = 1
    lps[3, 4, 1] = 1
    spacing = np.diag([-1.0, -1.0, 2.0, 1.0])
    start = nibabel.orientations.io_orientation(spacing)
    turn = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(codes))
    turned = nibabel.Nifti1Image(lps, spacing).as_reoriented(turn)
    affine = torch.as_tensor(turned.affine)
    label = MetaTensor(torch.as_tensor(np.asarray(turned.dataobj).copy())[None], affine=affine)
    picture = draw_case(torch.zeros(1, *label.shape[1:]), label, torch.zeros_like(label), ENCODING)
    outline = where(tiles_of(picture)[1], YELLOW)
    assert outline.min(0) == pytest.approx([3 / 20, 2 / 20], abs=0.01)
    assert outline.max(0) == pytest.approx([6 / 20, 5 / 20], abs=0.01)


def test_pixels_keep_their_proportions_and_a_volume_without_label_has_its_middle_slice() -> None:
    affine = torch.diag(torch.tensor([-0.5, -1.0, 3.0, 1.0], dtype=torch.float64))
    label = MetaTensor(torch.zeros(1, 20, 20, 5), affine=affine)
    image = torch.zeros(1, 20, 20, 5)
    image[..., 2] = torch.linspace(0, 1000, 20)[None, :, None]
    picture = draw_case(image, label, torch.zeros(1, 20, 20, 5), ENCODING)
    assert picture.size == (3 * 128, 256)
    assert np.array(picture).max() == 255


@pytest.mark.parametrize("channels", [2, 4])
def test_other_numbers_of_channels_and_constant_images_are_shown(channels: int) -> None:
    image = torch.full((channels, 16, 16), 0.5)
    picture = draw_case(image, torch.zeros(1, 16, 16), torch.zeros(1, 16, 16), ENCODING)
    assert picture.size == (768, 256)


def evaluated(folder: Path, names: list[tuple[str, str]], *, enabled: bool = True) -> None:
    path = folder / "image.png"
    Image.fromarray(np.full((24, 32, 3), 200, dtype=np.uint8)).save(path)
    image = MetaTensor(torch.zeros(3, 16, 16), meta={"filename_or_obj": str(path)})

    def step(engine: Engine, item: tuple[str, str]) -> list[dict[str, torch.Tensor]]:
        engine.state.batch = [{"domain": item[0], "case_id": item[1], "image": image}]
        return [{"pred": block((32, 24)), "label": block((32, 24))}]

    engine = Engine(step)
    CasePictures(ENCODING, folder, model_sha256="abc", dataset_sha256="def", enabled=enabled).attach(engine)
    engine.run(names)
    assert engine.state.iteration == len(names)


def facts(domain: str, case: str, model: str = "abc", dataset: str = "def") -> dict[str, str]:
    return {"domain": domain, "case_id": case, "model_sha256": model, "dataset_sha256": dataset}


def test_every_case_has_its_picture_whatever_its_name(tmp_path: Path) -> None:
    names = [("site A", "001"), ("site/A", "001"), ("..", "a/b"), ("..", "a b"), ("x", "é" * 200)]
    evaluated(tmp_path, names)
    assert len(list(tmp_path.glob("case_pictures/*/*.jpg"))) == len(names)
    for domain, case in names:
        path = case_picture_path(tmp_path, domain, case)
        found = read_case_picture(path, facts(domain, case))
        assert found is not None
        assert [tile.size for tile in found] == [(256, 192)] * 3


def test_a_picture_of_another_network_data_set_or_program_is_none(tmp_path: Path) -> None:
    evaluated(tmp_path, [("x", "1")])
    path = case_picture_path(tmp_path, "x", "1")
    assert read_case_picture(path, facts("x", "1")) is not None
    assert read_case_picture(path, facts("x", "1", model="other")) is None
    assert read_case_picture(path, facts("x", "1", dataset="other")) is None
    Image.new("RGB", (9, 3)).save(path)
    assert read_case_picture(path, facts("x", "1")) is None
    path.write_bytes(b"no picture")
    assert read_case_picture(path, facts("x", "1")) is None


def test_switched_off_it_writes_nothing(tmp_path: Path) -> None:
    evaluated(tmp_path, [("x", "1")], enabled=False)
    assert not (tmp_path / "case_pictures").exists()


def test_a_picture_that_cannot_be_written_costs_no_evaluation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "case_pictures").write_text("in the way")
    evaluated(tmp_path, [("x", "1"), ("x", "2")])
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert warning.startswith("no picture of case 1 in ")
    assert "FileExistsError" in warning or "NotADirectoryError" in warning


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout")
def test_pictures_of_patients_in_a_bundle_are_not_committed() -> None:
    path = "bundles/phase3_mixstyleflow_segmentation/case_pictures/site/case.jpg"
    assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0
