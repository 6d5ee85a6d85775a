"""Import of anyone's images by a spec."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from data_prep.folder import make_folder_dataset
from tests.data_prep.folder_imports import Spec, left_out, run

FOUND = {0: 0, 100: 1, 200: 2}


def write_case(folder: Path, name: str, seed: int, size: tuple[int, int] = (24, 20)) -> None:
    """Write a noisy colour image and a grey label with the values 0, 100 and 200."""
    generator = np.random.default_rng(seed)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(generator.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / "images" / f"{name}.png")
    label = np.zeros(size, dtype=np.uint8)
    label[5:15, 5:15] = 100
    label[8:12, 8:12] = 200
    Image.fromarray(label).save(folder / "masks" / f"{name}_mask.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Folder of two domains: ten cases ``p0_0`` to ``p4_1`` of five patients at home, three away."""
    root = tmp_path / "root"
    for number in range(10):
        write_case(root / "home", f"p{number // 2}_{number % 2}", number)
    for number in range(3):
        write_case(root / "away", f"x{number}", 100 + number)
    return root


@pytest.fixture
def spec() -> Spec:
    def domain(name: str) -> Spec:
        return {
            "images": f"{name}/images/*.png",
            "labels": f"{name}/masks/{{stem}}_mask.png",
            "label_values": dict(FOUND),
        }

    return {
        "name": "tiny",
        "spatial_dims": 2,
        "regions": {"cell": [1, 2], "nucleus": [2]},
        "source_domain": "home",
        "domains": {"home": domain("home"), "away": domain("away")},
    }


def pixels(path: Path) -> Any:
    return np.asarray(Image.open(path))


def test_images_are_kept_labels_are_mapped_and_the_source_is_divided(root: Path, spec: Spec) -> None:
    description = run(spec, root)
    assert (description.channels, description.spatial_dims, description.domains) == (3, 2, ["home", "away"])
    sizes = [len(description.select(split, "home")) for split in ("train", "validation", "test")]
    assert sizes == [7, 1, 2]
    assert len(description.select("test", "away")) == 3
    for case in description.cases:
        name = case.id.removeprefix(f"{case.domain}_")
        np.testing.assert_array_equal(pixels(case.image), pixels(root / case.domain / "images" / f"{name}.png"))
        found, written = pixels(root / case.domain / "masks" / f"{name}_mask.png"), pixels(case.label)
        assert written.dtype == np.uint8
        np.testing.assert_array_equal(written * 100, found)
    assert left_out(description) == {}


def test_a_rerun_gives_the_same_bytes_and_inputs_are_left_alone(root: Path, spec: Spec) -> None:
    before = {path: path.read_bytes() for path in sorted(root.rglob("*.png"))}
    first, second = (run(spec, root, name).path.read_bytes() for name in ("one", "two"))
    assert first == second
    assert str(root.parent).encode() not in first
    assert {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()} == before


def test_unusable_cases_are_reported_and_left_out(root: Path, spec: Spec) -> None:
    home = root / "home"
    (home / "masks" / "p0_0_mask.png").unlink()
    (home / "images" / "p0_1.png").write_bytes(b"no image")
    Image.open(home / "masks" / "p1_0_mask.png").resize((20, 30)).save(home / "masks" / "p1_0_mask.png")
    write_case(home, "wide", 50, size=(20, 60))
    spec["domains"]["home"] |= {"max_aspect_ratio": 2, "exclude": {"p1_1": "blurred"}}
    description = run(spec, root)
    assert left_out(description) == {
        "home/images/p0_0.png": "no label home/masks/p0_0_mask.png",
        "home/images/p0_1.png": "p0_1.png cannot be read (UnidentifiedImageError)",
        "home/images/p1_0.png": "image and label differ in size: 24 x 20 and 30 x 20 (rows x columns)",
        "home/images/p1_1.png": "excluded by the spec: blurred",
        "home/images/wide.png": "aspect ratio 3.00 of 20 x 60 is over max_aspect_ratio 2",
    }
    assert len(description.select(domain="home")) == 6
    assert description.processing["domains"]["home"]["left_out"] == 5
    assert len(list((description.path.parent / "images" / "home").iterdir())) == 6


def test_centre_crop_takes_image_and_label_alike(root: Path, spec: Spec) -> None:
    write_case(root / "away", "small", 7, size=(16, 12))
    spec["domains"]["away"]["centre_crop"] = [20, 14]
    description = run(spec, root)
    case = description.select(domain="away")[0]
    np.testing.assert_array_equal(pixels(case.image), pixels(root / "away" / "images" / "x0.png")[2:22, 3:17])
    np.testing.assert_array_equal(pixels(case.label) * 100, pixels(root / "away" / "masks" / "x0_mask.png")[2:22, 3:17])
    assert left_out(description)["away/images/small.png"] == "image of 16 x 12 is smaller than centre_crop 20 x 14"


def test_files_that_count_as_patients_are_told(root: Path, spec: Spec) -> None:
    path = root.parent / "spec.yaml"
    for group in (None, "^(p[0-9])_"):
        if group:
            spec["domains"]["home"]["group"] = group
        path.write_text(yaml.safe_dump(spec, sort_keys=False))
        screen = io.StringIO()
        make_folder_dataset(path, root.parent / f"out {group is None}", root, console=Console(file=screen, width=300))
        assert ("note: home has no `group`, so each of its files counts as a patient" in screen.getvalue()) != bool(
            group
        )


def test_groups_of_the_spec_are_never_divided(root: Path, spec: Spec) -> None:
    spec["domains"]["home"]["group"] = "^(p[0-9]+)_"
    description = run(spec, root)
    assert {case.group for case in description.select(domain="home")} == {f"p{number}" for number in range(5)}
    assert [len(description.select(split, "home")) for split in ("train", "validation", "test")] == [6, 2, 2]


def test_equal_images_share_a_group_and_join_whole_patients(root: Path, spec: Spec) -> None:
    images = root / "home" / "images"
    (images / "p3_1.png").write_bytes((images / "p1_0.png").read_bytes())
    groups = {case.id: case.group for case in run(spec, root).cases}
    assert groups["home_p3_1"] == groups["home_p1_0"]
    spec["domains"]["home"]["group"] = "^(p[0-9]+)_"
    groups = {case.id: case.group for case in run(spec, root, "by_patient").cases}
    assert {groups[f"home_p{patient}_{i}"] for patient in (1, 3) for i in (0, 1)} == {"p1"}


def test_an_image_of_the_source_is_left_out_of_unseen_domains(root: Path, spec: Spec) -> None:
    Image.open(root / "home" / "images" / "p1_0.png").save(root / "away" / "images" / "x1.png", compress_level=1)
    spec["domains"] = dict(reversed(spec["domains"].items()))
    description = run(spec, root)
    assert left_out(description) == {"away/images/x1.png": "identical to 'p1_0' of the domain home"}
    assert not (description.path.parent / "images" / "away" / "x1.png").exists()


def test_near_duplicates_are_sought_in_and_across_domains(root: Path, spec: Spec) -> None:
    smooth = Image.fromarray(np.random.default_rng(5).integers(0, 255, (4, 4, 3), dtype=np.uint8)).resize((20, 24), 3)
    for folder, name, shift in (("home", "p0_0", 0), ("home", "p4_1", 3), ("away", "x2", 5)):
        smooth.point(lambda value, shift=shift: value + shift).save(root / folder / "images" / f"{name}.png")
    spec["near_duplicates"] = {"max_distance": 4}
    description = run(spec, root)
    groups = {case.id: case.group for case in description.cases}
    assert groups["home_p0_0"] == groups["home_p4_1"]
    assert left_out(description) == {"away/images/x2.png": "near-duplicate of 'p0_0' of the domain home"}


def test_adjacent_tiles_share_a_group(root: Path, spec: Spec) -> None:
    field = Image.fromarray(np.random.default_rng(5).integers(0, 255, (3, 4, 3), dtype=np.uint8)).resize((40, 24), 3)
    field.crop((0, 0, 20, 24)).save(root / "home" / "images" / "p0_0.png")
    field.crop((20, 0, 40, 24)).save(root / "home" / "images" / "p4_1.png")
    spec["adjacent_tiles"] = {"min_correlation": 0.9}
    groups = {case.id: case.group for case in run(spec, root).cases}
    assert groups["home_p0_0"] == groups["home_p4_1"]
    assert len(set(groups.values())) == 12


@pytest.mark.parametrize("form", ["indexed", "rgb", "rgba", "one bit"])
def test_labels_are_read_by_index_or_equal_channels(form: str, root: Path, spec: Spec) -> None:
    path = root / "home" / "masks" / "p0_0_mask.png"
    values = np.asarray(Image.open(path))
    expected = values // 100
    if form == "indexed":
        image = Image.fromarray(values // 100).convert("P")
        image.putpalette([0, 0, 0, 200, 100, 0, 100, 200, 0])
        spec["domains"]["home"]["label_values"] |= {1: 1, 2: 2}
    elif form == "one bit":
        image = Image.fromarray(values > 0)
        spec["domains"]["home"]["label_values"] |= {1: 1}
        expected = (values > 0).astype(np.uint8)
    else:
        image = Image.fromarray(values).convert(form.upper())
    image.save(path)
    case = run(spec, root).select(domain="home")[0]
    np.testing.assert_array_equal(pixels(case.label), expected)


def test_grey_images_keep_16_bits_and_mixed_ones_are_asked_about(root: Path, spec: Spec) -> None:
    generator = np.random.default_rng(0)
    for path in sorted(root.glob("*/images/*.png")):
        Image.fromarray(generator.integers(0, 4000, (24, 20), dtype=np.uint16)).save(path)
    description = run(spec, root, "grey")
    assert description.channels == 1
    written = pixels(description.cases[0].image)
    assert written.dtype == np.uint16
    np.testing.assert_array_equal(written, pixels(root / "home" / "images" / "p0_0.png"))
    Image.new("RGB", (20, 24), (9, 8, 7)).save(root / "home" / "images" / "p0_0.png")
    with pytest.raises(ValueError, match=r"channels: not given, and .*p0_0\.png stores colours, but .*p0_1\.png more"):
        run(spec, root, "mixed")
    description = run(spec | {"channels": 3}, root, "colour")
    assert {pixels(case.image).shape for case in description.cases} == {(24, 20, 3)}
    assert run(spec | {"channels": 1}, root, "forced").channels == 1


def test_links_to_folders_are_followed_and_circles_of_them_end(root: Path, spec: Spec) -> None:
    whole = run(spec, root, "whole")
    (root / "home" / "images").rename(root.parent / "elsewhere")
    (root / "home" / "images").symlink_to(root.parent / "elsewhere")
    (root / "home" / "again").symlink_to(root / "home")
    spec["domains"]["home"]["images"] = "home/**/*[0-9].png"
    linked = run(spec, root, "linked")
    assert [case.id for case in linked.cases] == [case.id for case in whole.cases]


def test_a_label_is_no_image(root: Path, spec: Spec) -> None:
    spec["domains"]["home"]["images"] = "home/*/*.png"
    spec["domains"]["home"]["labels"] = "home/masks/{stem}.png"
    with pytest.raises(ValueError, match=r"domains\.home\.images: .* matches .*_mask\.png too, which is a label"):
        run(spec, root)
    names = sorted(path.stem for path in (root / "home" / "masks").iterdir())
    spec["domains"]["home"]["exclude"] = dict.fromkeys(names, "is a label")
    spec["domains"]["home"]["labels"] = "home/masks/{stem}_mask.png"
    assert set(left_out(run(spec, root)).values()) == {"excluded by the spec: is a label"}


def change_domain(**values: Any) -> Callable[[Spec], object]:
    return lambda spec: spec["domains"]["home"].update(values)


MISTAKES: dict[str, tuple[Callable[[Spec], object], str]] = {
    "unlisted value": (
        change_domain(label_values={0: 0, 200: 2, 5: 1}),
        r"p0_0_mask\.png: label has values 0, 100, 200; `label_values` knows 0, 5, 200\. Add 100 to `label_values`",
    ),
    "values not given": (
        lambda spec: spec["domains"]["home"].pop("label_values"),
        r"p0_0_mask\.png: label has values 0, 100, 200; `label_values` knows 0, 1, 2\. Add 100, 200",
    ),
    "no image": (
        change_domain(images="home/imgs/*.png"),
        r"domains\.home\.images: 'home/imgs/\*\.png' matches no file under .*; correct the pattern, or --root",
    ),
    "a folder": (change_domain(images="home/images"), r"'home/images' matches no file .* folder: write home/images/\*"),
    "a folder a patient": (change_domain(images="home/im*"), r"It finds folders alone: write home/im\*/\*\.png"),
    "large letters": (change_domain(images="home/images/*.PNG"), r"Upper and lower case count: p0_0\.png is there"),
    "wrong dimensions": (
        lambda spec: spec.update(spatial_dims=3),
        r"spatial_dims: found 3, but the images of domains\.home are pictures, as home/images/p0_0\.png.*dims: 2",
    ),
    "a word that YAML reads as false": (
        lambda spec: spec.update(source_domain=False),
        r"source_domain: found False \(bool\), expected string or null; put it in quotes",
    ),
    "a region with a space": (
        lambda spec: spec["regions"].update({"the cup": [2]}),
        r"regions: found 'the cup', allowed: letters from a to z, digits, _ and -, a letter first",
    ),
    "a region named as the column over regions": (
        lambda spec: spec["regions"].update({"mean": [2]}),
        r"regions: found 'mean', allowed: .* not mean, the name of the column over regions",
    ),
    "no label at all": (
        change_domain(labels="home/labels/{stem}.png"),
        r"domains\.home: none of its 10 images can be used: 10 x no label",
    ),
    "group that finds nothing": (
        change_domain(group="^(q)"),
        r"domains\.home\.group: '\^\(q\)' finds nothing in the case name 'p0_0'",
    ),
    "too few groups": (change_domain(group="^(p)"), r"1 group\(s\), 'p' \(10 cases\); .* at least 3 groups.*smaller"),
    "excluded name": (
        change_domain(exclude={"p9": "bad"}),
        r"exclude: no image is named p9; the first is named 'p0_0'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_named_with_value_and_remedy(mistake: str, root: Path, spec: Spec) -> None:
    change, message = MISTAKES[mistake]
    spec = copy.deepcopy(spec)
    change(spec)
    with pytest.raises(ValueError, match=message):
        run(spec, root)
    assert sorted(path.name for path in root.parent.iterdir()) == ["out.yaml", "root"]


@pytest.mark.parametrize("domain", ["home", "away"])
def test_names_that_differ_in_case_only_are_refused(domain: str, root: Path, spec: Spec) -> None:
    if domain == "away":
        # Both domains have the folder name, but for the case, and one image name, but for the case.
        (root / "away").rename(root / "HOME")
        write_case(root / "HOME", "P0_0", 50)
        spec["domains"] = {
            name: {
                key: value.replace("home", name) if isinstance(value, str) else value for key, value in entry.items()
            }
            for name, entry in (("home", spec["domains"]["home"]), ("HOME", spec["domains"]["home"]))
        }
        message = r"P0_0\.png \(domain HOME\) both get the case id 'home_p0_0' but for upper and lower case; rename one"
    else:
        write_case(root / "home", "P0_0", 50)
        message = r"P0_0\.png, .*p0_0\.png: these images have the same name 'P0_0' but for upper and lower case; rename"
    with pytest.raises(ValueError, match=message):
        run(spec, root)


def test_a_label_in_colours_is_refused(root: Path, spec: Spec) -> None:
    Image.new("RGB", (20, 24), (9, 8, 7)).save(root / "home" / "masks" / "p0_0_mask.png")
    with pytest.raises(ValueError, match=r"p0_0_mask\.png: label of mode RGB has colours, expected one value a pixel"):
        run(spec, root)


def test_an_output_with_content_is_refused_and_an_empty_one_is_used(root: Path, spec: Spec) -> None:
    (root.parent / "out").mkdir()
    run(spec, root)
    with pytest.raises(ValueError, match=r"--output .*out: exists and is not an empty folder; choose another"):
        run(spec, root)


def test_a_missing_root_is_told(root: Path, spec: Spec) -> None:
    path = root.parent / "spec.yaml"
    path.write_text(yaml.safe_dump(spec))
    with pytest.raises(FileNotFoundError, match=r"--root .*none: no such folder; give the folder that the paths in"):
        make_folder_dataset(path, root.parent / "out", root / "none")
