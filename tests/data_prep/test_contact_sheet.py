"""Contact sheets: which cases and slices they show, and where the outlines are."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

import data_prep.contact_sheet as module
from data_prep.case_slices import middle_slice, read_picture, reduce_image, reduced_size
from data_prep.contact_sheet import COLOURS, contact_sheet, domain_sheet, spread
from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.data.dataset_description import Case, DatasetDescription, load_dataset, save_dataset
from tests.small_dataset import make_dataset

ORIENTATIONS = [
    (order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((1, -1), repeat=3)
]


def a_case(folder: Path, image: str = "image.nii.gz", label: str = "label.nii.gz", name: str = "a") -> Case:
    return Case(name, "home", name, "train", folder / image, folder / label, {}, None)


def stored_as(
    ras: NDArray[Any], spacing: NDArray[np.float64], order: tuple[int, ...], flips: tuple[int, ...]
) -> nib.Nifti1Image:
    """Store a RAS array in another axis order and direction, at the same place."""
    orientation = np.array([[order.index(axis), flips[order.index(axis)]] for axis in range(3)], dtype=float)
    moved = nib.apply_orientation(ras, orientation)
    return nib.Nifti1Image(moved, np.diag([*spacing, 1.0]) @ nib.orientations.inv_ornt_aff(orientation, ras.shape))


def renamed(folder: Path, **names: str) -> DatasetDescription:
    """Make the small data set with other names: ``home``, ``far`` or ``case`` (in front of the number)."""
    description = load_dataset(make_dataset(folder))
    domains = {"home": names.get("home", "home"), "far": names.get("far", "far")}
    cases = [
        {
            "id": names.get("case", "c") + case.id[1:],
            "domain": domains[case.domain],
            "group": case.group,
            "split": case.split,
            **{kind: Path(getattr(case, kind)).relative_to(folder).as_posix() for kind in ("image", "label")},
            "sha256": case.sha256,
            "spacing": None,
        }
        for case in description.cases
    ]
    content = {"format": 1, "name": "discs", "spatial_dims": 2, "channels": 1, "cases": cases}
    save_dataset(folder, {**content, "regions": names.get("regions", {"disc": [1]}), "source_domain": domains["home"]})
    return load_dataset(folder)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    figures: list[Figure] = []
    save = module.save_figure

    def keep(figure: Figure, path: Path) -> Path:
        figures.append(figure)
        return save(figure, path)

    monkeypatch.setattr(module, "save_figure", keep)
    return figures


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 51, 1000])
@pytest.mark.parametrize("count", [1, 2, 3, 24, 50])
def test_cases_are_taken_at_equal_steps_from_the_first_to_the_last(size: int, count: int) -> None:
    cases = [a_case(Path(), name=f"{number:04}") for number in range(size)]
    places = [int(case.id) for case in spread(cases, count)]
    assert len(places) == min(size, count)
    assert places[0] == 0
    assert places[-1] == (size - 1 if count > 1 else 0)
    steps = set(np.diff(places).tolist())
    assert all(step > 0 for step in steps)
    assert max(steps, default=0) - min(steps, default=0) <= 1


def test_a_slice_looks_the_same_however_the_volume_is_stored(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    image, label = random.normal(size=(5, 6, 9)), np.zeros((5, 6, 9), dtype=np.uint8)
    label[1:3, 2:4, 2:7] = 1
    spacing = np.array([0.5, 0.8, 3.0])
    for order, flips in ORIENTATIONS:
        for name, values in (("image", image), ("label", label)):
            nib.save(stored_as(values, spacing, order, flips), tmp_path / f"{name}.nii.gz")
        seen, mask, aspect = middle_slice(a_case(tmp_path))
        # Anterior at the top and right at the left: the first row is the last of A, the first column the last of R.
        assert np.allclose(seen, image[::-1, ::-1, 4].T)
        assert np.array_equal(mask, label[::-1, ::-1, 4].T)
        assert aspect == pytest.approx(0.8 / 0.5)


@pytest.mark.parametrize("coarse", [0, 1, 2])
def test_slices_are_across_the_coarsest_axis(coarse: int, tmp_path: Path) -> None:
    spacing = np.ones(3)
    spacing[coarse] = 4.0
    label = np.zeros((6, 7, 8), dtype=np.uint8)
    nib.save(nib.Nifti1Image(label, np.diag([*spacing, 1.0])), tmp_path / "label.nii.gz")
    nib.save(nib.Nifti1Image(label.astype(np.int16), np.diag([*spacing, 1.0])), tmp_path / "image.nii.gz")
    seen, _, aspect = middle_slice(a_case(tmp_path))
    assert sorted(seen.shape) == sorted(np.delete(label.shape, coarse))
    assert aspect == 1.0


@pytest.mark.parametrize("shape", [(400, 300), (1000, 10, 3), (17, 4000), (5, 5)])
def test_reduced_images_keep_their_mean_and_proportions(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    size = reduced_size(shape, 200)
    reduced = reduce_image(values, size)
    assert reduced.shape[:2] == size
    assert max(size) <= 200
    assert reduced.astype(float).mean() == pytest.approx(values.astype(float).mean(), abs=1.5)
    assert size[0] / size[1] == pytest.approx(shape[0] / shape[1], rel=0.5 / min(size) + 0.01)
    assert reduce_image(values.astype(np.int16), size) == pytest.approx(reduced, abs=1)


def test_the_outline_is_where_the_label_is(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:60, :90]
    disc = (rows - 15) ** 2 + (columns - 60) ** 2 < 100
    Image.fromarray(np.full(disc.shape, 90, dtype=np.uint8)).save(tmp_path / "image.png")
    Image.fromarray(disc.astype(np.uint8)).save(tmp_path / "label.png")
    figure, axes = module._grid(1, 1, load_dataset(make_dataset(tmp_path / "data")))
    description = load_dataset(tmp_path / "data")
    assert module._draw_case(axes[0, 0], a_case(tmp_path, "image.png", "label.png"), description)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255.0
    found = np.argwhere(np.abs(pixels - to_rgb(COLOURS[0])).max(axis=-1) < 0.1)
    height = pixels.shape[0]
    data = axes[0, 0].transData.inverted().transform([(column, height - row) for row, column in found])
    distance = np.hypot(*(data - (60, 15)).T)
    on_outline = np.abs(distance - 10) < 1.5
    # What else has this colour is the legend, below the axes.
    assert on_outline.sum() > 40
    assert np.all(on_outline | (data[:, 1] > 60))


def test_a_sheet_names_its_domain_and_counts_its_cases(tmp_path: Path, drawn: list[Figure]) -> None:
    description = load_dataset(make_dataset(tmp_path / "data"))
    assert domain_sheet(description, "home", tmp_path / "home.png") == tmp_path / "home.png"
    domain_sheet(description, "far", tmp_path / "far.png", max_cases=2)
    titles = [figure.texts[0].get_text().replace("\n", " ") for figure in drawn]
    assert titles == ["home (source): all 5 cases", "far (unseen): 2 of 3 cases, at equal steps"]
    captions = [[axis.get_title(loc="left") for axis in figure.axes] for figure in drawn]
    assert captions[0] == ["c0, train", "c1, train", "c2, train", "c3, validation", "c4, test"]
    assert captions[1] == ["c5", "c7"]
    assert read_picture(tmp_path / "home.png")[..., :3].std() > 20


def test_a_case_without_a_region_is_marked(tmp_path: Path, drawn: list[Figure]) -> None:
    description = load_dataset(make_dataset(tmp_path / "data"))
    Image.new("L", (32, 32)).save(description.cases[1].label)
    domain_sheet(description, "home", tmp_path / "home.png")
    assert drawn[0].axes[1].get_title(loc="left") == "no region: c1, train"
    assert drawn[0].axes[1]._left_title.get_color() != drawn[0].axes[0]._left_title.get_color()


def test_any_name_can_be_written(tmp_path: Path, drawn: list[Figure]) -> None:
    regions: Any = {f"a_rather_long_region_{number}": [number] for number in range(1, 9)}
    long = "site_" * 30
    description = renamed(tmp_path / "data", home="_$x$ \u533b\u9662 [b]", far=long, case=long, regions=regions)
    contact_sheet(description, tmp_path / "all.png", cases_per_domain=1)
    for number, domain in enumerate(description.domains):
        domain_sheet(description, domain, tmp_path / f"{number}.png")
    for figure in drawn:
        figure.canvas.draw()
        box = figure.bbox
        texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
        assert all(box.contains(*corner) for text in texts for corner in text.get_window_extent().corners())
    for axis in drawn[2].axes:
        assert axis._left_title.get_window_extent().width < 1.1 * axis.bbox.width


def test_a_file_that_cannot_be_shown_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    description = load_dataset(make_dataset(tmp_path / "data"))
    description.cases[2].image.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"case 'c2': .*2\.png .*UnidentifiedImageError.*data_prep check"):
        domain_sheet(description, "home", tmp_path / "sheets" / "home.png")
    assert not list(tmp_path.glob("sheets/*"))


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (np.ones((4, 5, 6)), np.ones((4, 5, 5), np.uint8), r"image has shape \(4, 5, 6\), label \(4, 5, 5\)"),
        (np.ones((4, 5, 6, 2)), np.ones((4, 5, 6), np.uint8), "not a NIfTI file of three dimensions"),
        (np.full((4, 5, 6), np.nan), np.ones((4, 5, 6), np.uint8), "values that are not finite"),
    ],
)
def test_a_volume_that_cannot_be_shown_is_named(
    image: NDArray[Any], label: NDArray[Any], message: str, tmp_path: Path
) -> None:
    entries = []
    for number, split in enumerate(("train", "validation", "test")):
        files = {kind: f"{kind}{number}.nii.gz" for kind in ("image", "label")}
        for kind, values in (("image", image), ("label", label)):
            nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / files[kind])
        name = f"c{number}"
        hashes = {"image": str(number) * 64, "label": sha256_file(tmp_path / files["label"])}
        case = {"id": name, "domain": "home", "group": name, "split": split, **files}
        entries.append({**case, "sha256": hashes, "spacing": [1.0, 1.0, 1.0]})
    content = {"format": 1, "name": "v", "spatial_dims": 3, "channels": 1, "regions": {"a": [1]}, "cases": entries}
    save_dataset(tmp_path, {**content, "source_domain": "home"})
    with pytest.raises(ValueError, match=rf"case 'c0': .*({message})"):
        domain_sheet(load_dataset(tmp_path), "home", tmp_path / "sheet.png")


def test_sheets_of_no_cases_or_no_domain_are_refused(tmp_path: Path) -> None:
    description = load_dataset(make_dataset(tmp_path / "data"))
    with pytest.raises(ValueError, match="max_cases is 0, it must be 1 or more"):
        domain_sheet(description, "home", tmp_path / "home.png", max_cases=0)
    with pytest.raises(ValueError, match="no domain 'hom', allowed: home, far; did you mean 'home'"):
        domain_sheet(description, "hom", tmp_path / "home.png")


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["cord_t2_psr", "cord_t2star_las", "spleen_ct"])
def test_real_volumes_look_as_in_ras_order(name: str, shared_data: Path, tmp_path: Path) -> None:
    for kind in ("image", "label"):
        volume = nib.load(shared_data / "volumes" / name / f"{kind}.nii.gz")
        nib.save(nib.as_closest_canonical(volume), tmp_path / f"{kind}.nii.gz")
    real = middle_slice(a_case(shared_data / "volumes" / name))
    canonical = middle_slice(a_case(tmp_path))
    assert np.allclose(real[0], canonical[0])
    assert np.array_equal(real[1], canonical[1])
    assert (real[1] > 0).any()
    assert real[2] == pytest.approx(canonical[2])
