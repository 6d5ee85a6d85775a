"""The preview: its files, and histograms of what is stored and of what the network gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

import data_prep.building as building
import data_prep.check_case as check_case
import data_prep.intensity_histograms as histograms
from data_prep.__main__ import main
from data_prep.intensity_histograms import PERCENTILES, draw_intensities, save_histograms
from data_prep.preview import preview_dataset
from mixstyleflow_monai.artifacts import sha256_file
from mixstyleflow_monai.data import Task
from mixstyleflow_monai.data.dataset_description import DatasetDescription, load_dataset, save_dataset
from mixstyleflow_monai.data.task import VOLUME_PERCENTILES
from tests.small_dataset import make_dataset

# MONAI warns of a missing decoder wherever it makes a general reader and pydicom is installed.
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")


def write_set(folder: Path, images: dict[str, list[Any]], channels: int = 1) -> DatasetDescription:
    """Write a data set of arrays (rows, columns[, 3]) or of volumes (NIfTI images); the first domain is the source."""
    source = next(iter(images))
    cases = []
    for domain, arrays in images.items():
        for number, values in enumerate(arrays):
            volume = isinstance(values, nib.Nifti1Image)
            name = f"{domain}_{number}{'.nii.gz' if volume else '.png'}"
            files = {"image": f"i_{name}", "label": f"l_{name}"}
            folder.mkdir(exist_ok=True)
            if volume:
                nib.save(values, folder / files["image"])
                label = np.zeros(values.shape, dtype=np.uint8)
                label[2:4, 2:4, 2:4] = 1
                nib.save(nib.Nifti1Image(label, values.affine), folder / files["label"])
            else:
                Image.fromarray(values).save(folder / files["image"])
                Image.fromarray((values.reshape(*values.shape[:2], -1)[..., 0] > 9).astype(np.uint8)).save(
                    folder / files["label"]
                )
            split = ("train", "validation", "test")[number % 3] if domain == source else "test"
            hashes = {key: sha256_file(folder / file) for key, file in files.items()}
            entry = {"id": name, "domain": domain, "group": name, "split": split, **files}
            cases.append({**entry, "sha256": hashes, "spacing": None})
    dims = 3 if isinstance(images[source][0], nib.Nifti1Image) else 2
    content = {"format": 1, "name": "s", "spatial_dims": dims, "channels": channels, "regions": {"a": [1]}}
    save_dataset(folder, {**content, "source_domain": source, "cases": cases})
    return load_dataset(folder)


def noise(seed: int, shape: tuple[int, ...], dtype: type = np.uint8, top: int = 256) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, top, shape).astype(dtype)


def a_volume(seed: int, axes: str) -> nib.Nifti1Image:
    """Return a volume of 7 axial slices, each of another range, stored in some order of axes."""
    random = np.random.default_rng(seed)
    values = random.gamma(2.0, 40.0, (16, 32, 7)) * np.linspace(1, 6, 7) + 100 * np.arange(7)
    ras = nib.Nifti1Image(values.astype(np.float32), np.diag([1.0, 1.0, 3.0, 1.0]))
    return ras.as_reoriented(nib.orientations.axcodes2ornt(axes))


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The histogram figures that were saved."""
    figures: list[Figure] = []
    save = histograms.save_figure

    def keep(figure: Figure, path: Path) -> Path:
        figures.append(figure)
        return save(figure, path)

    monkeypatch.setattr(histograms, "save_figure", keep)
    return figures


def test_files_are_a_sheet_a_domain_and_the_histograms(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "data").rglob("*.*")}
    paths = preview_dataset(tmp_path / "data", tmp_path / "out")
    assert [path.name for path in paths] == ["cases_home.png", "cases_far.png", "intensities.png"]
    assert sorted((tmp_path / "out").iterdir()) == sorted(paths)
    for path in paths:
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 10
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before}
    assert sorted(tmp_path.iterdir()) == [tmp_path / "data", tmp_path / "out"]


def test_the_command_writes_beside_the_data_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_dataset(tmp_path / "my data")
    assert main(["preview", str(tmp_path / "my data" / "dataset.json")]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("written: ") == 3
    assert "16/16" in printed.err
    assert (tmp_path / "my data" / "preview" / "intensities.png").is_file()


def test_a_rerun_replaces_its_files_and_an_error_leaves_them(tmp_path: Path) -> None:
    dataset, out = make_dataset(tmp_path / "data"), tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    preview_dataset(dataset, out)
    first = (out / "cases_home.png").read_bytes()
    image = dataset / "c1.png"
    stored = image.read_bytes()
    image.write_bytes(stored[: len(stored) // 2])
    with pytest.raises(ValueError, match=r"case 'c1': .*1\.png .* cannot be shown .*data_prep check"):
        preview_dataset(dataset, out)
    assert (out / "cases_home.png").read_bytes() == first
    Image.fromarray(noise(3, (32, 32))).save(image)
    preview_dataset(dataset, out)
    assert (out / "cases_home.png").read_bytes() != first
    assert sorted(path.name for path in out.iterdir()) == [
        "cases_far.png", "cases_home.png", "intensities.png", "notes.txt",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["intensities.png", "cases_far.png"])
def test_a_picture_of_the_user_is_not_replaced(name: str, tmp_path: Path) -> None:
    dataset, out = make_dataset(tmp_path / "data"), tmp_path / "out"
    out.mkdir()
    for write in (lambda path: path.write_text("mine"), Image.new("L", (4, 4)).save):
        write(out / name)
        before = (out / name).read_bytes()
        with pytest.raises(ValueError, match=rf"{name} is there and was not written by preview.* move the file away"):
            preview_dataset(dataset, out)
        assert [path.name for path in out.iterdir()] == [name]
        assert (out / name).read_bytes() == before


def test_what_headers_tell_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data")
    for number in (0, 6):
        Image.new("L", (31, 32)).save(dataset / f"c{number}_label.png")
    with pytest.raises(ValueError, match=r"2 problems\n  case c0,.*32 x 32 pixels, its label 31 x 32.*\n  case c6,"):
        preview_dataset(dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(tmp_path / "data")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"--output .*file: is a file; give a folder"):
        preview_dataset(dataset, tmp_path / "file")

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(building.tempfile, "mkdtemp", refuse)
    with pytest.raises(
        ValueError, match=r"--output: no folder can be made in .*data \(Permission denied\); give anoth"
    ):
        preview_dataset(dataset)
    with pytest.raises(FileNotFoundError, match=r"nothing/dataset\.json: no such file"):
        preview_dataset(tmp_path / "nothing")


def test_domains_that_differ_in_signs_only_get_files_of_their_own(tmp_path: Path) -> None:
    images = [noise(number, (8, 8)) for number in range(5)]
    write_set(tmp_path / "data", {"a": images[:3], "b": images[3:4], "c": images[4:]})
    path = tmp_path / "data" / "dataset.json"
    content = json.loads(path.read_text())
    names = {"a": "Site/1", "b": "site:1", "c": "\u00e4 \u533b"}
    for case in content["cases"]:
        case["domain"] = names[case["domain"]]
    path.write_text(json.dumps({**content, "source_domain": names["a"]}))
    found = [path.name for path in preview_dataset(tmp_path / "data")]
    assert found == ["cases_Site_1.png", "cases_site_1_2.png", "cases_\u00e4_\u533b.png", "intensities.png"]


def test_percentiles_are_those_of_the_bundles() -> None:
    assert PERCENTILES == VOLUME_PERCENTILES


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAR", "IRP"])
def test_network_values_of_volumes_are_those_of_the_bundles(axes: str, tmp_path: Path) -> None:
    description = write_set(tmp_path / "data", {"home": [a_volume(seed, axes) for seed in range(3)]})
    drawn = draw_intensities(description, "home", pixels=40_000)
    task = Task.from_dataset(description, (16, 32))
    wanted = [np.asarray(task.inference_preprocessing()({"image": str(c.image)})["image"]) for c in description.cases]
    quantiles = np.linspace(0, 1, 41)
    assert np.quantile(drawn.network, quantiles) == pytest.approx(np.quantile(wanted, quantiles), abs=0.02)
    stored = [np.asarray(nib.load(case.image).dataobj) for case in description.cases]
    assert np.quantile(drawn.stored, quantiles) == pytest.approx(np.quantile(stored, quantiles), rel=0.05, abs=4)


def test_large_volumes_are_read_in_pieces_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    description = write_set(tmp_path / "data", {"home": [a_volume(seed, "SAR") for seed in range(3)]})
    whole = draw_intensities(description, "home")
    monkeypatch.setattr(check_case, "_PIECE", 200)
    in_pieces = draw_intensities(description, "home")
    assert np.array_equal(in_pieces.stored, whole.stored)
    assert np.allclose(in_pieces.network, whole.network, atol=1e-6)
    monkeypatch.setattr(histograms, "_PERCENTILE_VOXELS", 3000)
    sampled = draw_intensities(description, "home")
    quantiles = np.linspace(0, 1, 21)
    assert np.quantile(sampled.network, quantiles) == pytest.approx(np.quantile(whole.network, quantiles), abs=0.03)


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_network_values_of_images_are_those_of_the_bundles(dtype: type, top: int, tmp_path: Path) -> None:
    images = [noise(seed, (32, 32), dtype, top + 1) // 2 for seed in range(3)]
    description = write_set(tmp_path / "data", {"home": images})
    drawn = draw_intensities(description, "home", pixels=40_000)
    task = Task.from_dataset(description, (32, 32))
    wanted = [np.asarray(task.inference_preprocessing()({"image": str(c.image)})["image"]) for c in description.cases]
    quantiles = np.linspace(0, 1, 21)
    assert np.quantile(drawn.network, quantiles) == pytest.approx(np.quantile(wanted, quantiles), abs=0.01)
    assert drawn.tops == {top}
    assert np.allclose(drawn.stored, drawn.network * top, rtol=1e-5)


def test_a_slice_without_contrast_is_zero_for_the_network(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(100, 20, (8, 8, 6)).astype(np.float32)
    values[..., 3] = 100.0
    flat = np.full((8, 8, 6), 7, dtype=np.int16)
    volumes = [nib.Nifti1Image(array, np.diag([1, 1, 3, 1])) for array in (values, flat, flat + 1)]
    drawn = draw_intensities(write_set(tmp_path / "data", {"home": volumes}), "home", pixels=900)
    of_first, of_flat = drawn.network[:900], drawn.network[900:]
    assert of_flat.max() == 0
    assert of_first[drawn.stored[:900] == 100.0].max() == 0
    assert of_first.max() == pytest.approx(1)


def test_every_case_has_the_same_weight_and_large_domains_are_sampled(tmp_path: Path) -> None:
    small, large = np.full((2, 2), 50, dtype=np.uint8), np.full((90, 70), 200, dtype=np.uint8)
    images = [noise(number, (4, 4)) for number in range(9)]
    description = write_set(tmp_path / "data", {"home": images, "far": [small, large]})
    far = draw_intensities(description, "far")
    assert (far.stored == 50).mean() == 0.5
    assert (far.cases, far.of) == (2, 2)
    home = draw_intensities(description, "home", max_cases=4, pixels=10)
    assert (home.cases, home.of, home.stored.shape) == (4, 9, (40, 1))
    again = draw_intensities(description, "home", max_cases=4, pixels=10)
    assert np.array_equal(home.stored, again.stored)


def test_colours_have_a_row_each_and_the_source_stands_out(tmp_path: Path, saved: list[Figure]) -> None:
    images = {name: [noise(7 * k + n, (9, 9, 3)) for n in range(3)] for k, name in enumerate(("home", "a", "_b"))}
    description = write_set(tmp_path / "data", images, channels=3)
    pixels = {domain: draw_intensities(description, domain) for domain in description.domains}
    save_histograms(description, pixels, tmp_path / "h.png")
    (figure,) = saved
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["red", "green", "blue"]
    for channel, axis in enumerate(figure.axes):
        source, *unseen = axis.lines
        assert to_hex(source.get_color()) == "#000000"
        assert source.get_linewidth() > 1.5 * max(line.get_linewidth() for line in unseen)
        assert len({to_hex(line.get_color()) for line in axis.lines}) == 3
        assert axis.get_xlabel() == "value as stored; the network gets it divided by 255"
        counts = np.histogram(pixels["home"].stored[:, channel], 64, (0, 256))[0]
        assert source.get_ydata() == pytest.approx(100 * counts / counts.sum())
    legend = [text.get_text().strip() for text in figure.legends[0].get_texts()]
    assert legend == ["home (source, 3 cases)", "_b (unseen, 3 cases)", "a (unseen, 3 cases)"]
    assert "at most 50 cases a domain, taken at equal steps" in figure.get_suptitle()


def test_mixed_data_types_and_volumes_have_a_second_column(tmp_path: Path, saved: list[Figure]) -> None:
    mixed = {"home": [noise(n, (9, 9)) for n in range(3)], "far": [noise(4, (9, 9), np.uint16, 65536)]}
    volumes = {"home": [a_volume(seed, "RAS") for seed in range(3)], "far": [a_volume(9, "LPS")]}
    for name, images in (("mixed", mixed), ("volumes", volumes)):
        description = write_set(tmp_path / name, images)
        pixels = {domain: draw_intensities(description, domain) for domain in description.domains}
        save_histograms(description, pixels, tmp_path / f"{name}.png")
    labels = [[axis.get_xlabel() for axis in figure.axes] for figure in saved]
    assert labels[0][1] == "value as the network gets it: divided by 255 or 65535"
    assert "clipped to the case's 2-98 percentiles" in labels[1][1]
    for figure in saved:
        assert len(figure.axes) == 2
        assert figure.axes[1].get_xlim() == (0, 1)
        # All of the network's values are in the histogram.
        assert [sum(line.get_ydata()) for line in figure.axes[1].lines] == pytest.approx([100, 100])


def test_black_borders_do_not_flatten_the_rest(tmp_path: Path, saved: list[Figure]) -> None:
    images = [np.where(noise(n, (40, 40)) < 200, 0, noise(n + 9, (40, 40))).astype(np.uint8) for n in range(3)]
    description = write_set(tmp_path / "data", {"home": images})
    save_histograms(description, {"home": draw_intensities(description, "home")}, tmp_path / "h.png")
    axis = saved[0].axes[0]
    inner = axis.lines[0].get_ydata()[1:-1].max()
    assert inner < axis.get_ylim()[1] < 2 * inner < axis.lines[0].get_ydata()[0]
    assert [text.get_text() for text in axis.texts] == ["higher at the ends than shown"]


def test_nothing_of_the_figure_is_cut_or_overlaps(tmp_path: Path, saved: list[Figure]) -> None:
    images = {f"{k}_{'a_long_name' * k}": [noise(9 * k + n, (9, 9, 3)) for n in range(3)] for k in range(8)}
    description = write_set(tmp_path / "data", images, channels=3)
    pixels = {domain: draw_intensities(description, domain) for domain in description.domains}
    save_histograms(description, pixels, tmp_path / "h.png")
    figure = saved[0]
    figure.canvas.draw()
    boxes = [axis.get_tightbbox() for axis in figure.axes]
    boxes += [figure.legends[0].get_window_extent(), figure._suptitle.get_window_extent()]
    assert all(figure.bbox.contains(*corner) for box in boxes for corner in box.corners())
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_values_that_are_not_finite_are_named(tmp_path: Path) -> None:
    volumes = [a_volume(seed, "RAS") for seed in range(3)]
    np.asanyarray(volumes[1].dataobj)[3, 3, 0] = np.inf
    write_set(tmp_path / "data", {"home": volumes})
    with pytest.raises(ValueError, match=r"case 'home_1\.nii\.gz': .*values that are not finite.*data_prep check"):
        preview_dataset(tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out").exists()
