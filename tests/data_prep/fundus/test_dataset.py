"""Import of the public fundus releases."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from data_prep.__main__ import main
from data_prep.fundus.dataset import make_fundus_dataset
from mixstyleflow_monai.data.dataset_description import DatasetDescription, load_dataset
from tests.data_prep.fundus import fundus_builders as build

SOURCES: dict[str, tuple[Callable[[Path], None], str]] = {
    "five-domain": (build.five_domain, "BinRushed"),
    "riga-plus": (build.riga_plus, "Magrabia"),
    "dofe": (build.dofe, "Domain2"),
    "refuge": (build.refuge, "REFUGE_Zeiss"),
    "drishti-gs": (build.drishti, "Drishti_GS"),
    "windows": (build.windows, "drishti_gs"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder for a release."""
    folder = tmp_path / "a release, unpackt in größter Eile"
    folder.mkdir()
    return folder


def run(root: Path, source: str, name: str = "out", **options: Any) -> DatasetDescription:
    console = Console(file=io.StringIO(), width=120)
    return load_dataset(make_fundus_dataset(root, source, root.parent / name, console=console, **options))


def left_out(description: DatasetDescription) -> dict[str, str]:
    with open(description.path.parent / "left_out.csv", newline="", encoding="utf-8") as stream:
        return {row["image"]: row["reason"] for row in csv.DictReader(stream)}


def pixels(path: Path) -> Any:
    return np.asarray(Image.open(path))


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("release", SOURCES)
def test_a_release_becomes_a_data_set_with_one_coding_and_inputs_are_left_alone(release: str, root: Path) -> None:
    write, source = SOURCES[release]
    write(root)
    before = files(root)
    description = run(root, source)
    assert files(root) == before
    assert description.name == f"fundus-{release}"
    assert (description.channels, description.regions) == (3, {"disc": [1, 2], "cup": [2]})
    assert description.processing["release"] == release
    assert len({case.id for case in description.cases}) == len(description.cases)
    for case in description.cases:
        image, label = pixels(case.image), pixels(case.label)
        assert (image.shape, image.dtype) == ((*label.shape, 3), np.uint8)
        assert np.unique(label).tolist() == [0, 1, 2]
        assert case.domain == source or case.split == "test"
    second = run(root, source, "again")
    assert second.path.read_bytes() == description.path.read_bytes()
    assert str(root.parent).encode() not in second.path.read_bytes()


@pytest.mark.parametrize("rater", [1, 6])
def test_images_and_the_masks_of_the_rater_are_taken_over_unchanged(rater: int, root: Path) -> None:
    build.five_domain(root)
    description = run(root, "Magrabia", rater=rater)
    case = next(case for case in description.cases if case.id == "BinRushed_BinRushed2_image1")
    np.testing.assert_array_equal(pixels(case.image), pixels(root / "RIGA/BinRushed/BinRushed2/image1.tif"))
    grey = pixels(root / f"RIGA-mask/BinRushed/BinRushed2/image1-{rater}.tif")
    # The comparison of the loader published with the release, the cup being a part of the disc.
    np.testing.assert_array_equal(pixels(case.label), (grey < 255).astype(int) + (grey == 0))
    domains = description.processing["domains"]
    assert {name: facts["rater"] for name, facts in domains.items()} == {
        "BinRushed": rater,
        "Magrabia": rater,
        "REFUGE": None,
        "ORIGA": None,
        "Drishti_GS": None,
    }


def test_riga_plus_labels_have_the_cup_where_the_mask_is_grey(root: Path) -> None:
    build.riga_plus(root)
    case = run(root, "BinRushed").select(domain="MESSIDOR_Base1")[0]
    grey = pixels(root / f"RIGA-mask/MESSIDOR_Base1/Labeled/{case.id.removeprefix('MESSIDOR_Base1_')}-1.tif")
    np.testing.assert_array_equal(pixels(case.label) > 0, grey > 0)
    np.testing.assert_array_equal(pixels(case.label) == 2, grey == 128)


def test_drishti_labels_are_those_of_three_experts_of_four(root: Path) -> None:
    build.drishti(root)
    for case in run(root, "Drishti_GS").cases:
        disc, cup = build.expert_maps(int(case.id[-3:]))
        np.testing.assert_array_equal(pixels(case.label) > 0, disc > 160)
        np.testing.assert_array_equal(pixels(case.label) == 2, (cup > 160) & (disc > 160))


def test_lossy_masks_of_dofe_are_read_by_threshold(root: Path) -> None:
    build.dofe(root)
    case = run(root, "Domain1").select(domain="Domain2")[0]
    assert len(np.unique(pixels(root / "Domain2/test/ROIs/mask/test0.png"))) > 20
    assert case.id == "Domain2_test0"
    np.testing.assert_array_equal(pixels(case.label), build.disc_label(90))


def test_the_source_is_divided_by_the_seed_and_other_domains_are_test_only(root: Path) -> None:
    build.five_domain(root, count=18)
    splits = {}
    for seed in (0, 0, 1):
        description = run(root, "ORIGA", f"out{len(splits)}{seed}", seed=seed)
        sizes = [len(description.select(split, "ORIGA")) for split in ("train", "validation", "test")]
        assert sizes == [14, 2, 4]
        chosen = frozenset(case.id for case in description.select("train"))
        assert splits.setdefault(seed, chosen) == chosen
    assert splits[0] != splits[1]


def test_cases_with_a_fault_are_reported_and_left_out(root: Path) -> None:
    build.five_domain(root, count=8)
    images, masks = (root / f"REFUGE/train/{kind}" for kind in ("image", "mask"))
    (images / "train0.png").write_bytes((images / "train0.png").read_bytes()[:200])
    (images / "train1.png").write_text("no picture")
    build.write(masks / "train2.png", np.pad(pixels(masks / "train2.png")[..., 0], 1, constant_values=255))
    build.write(masks / "train3.png", np.full(build.SIZE, 255, dtype=np.uint8))
    build.write(masks / "train4.png", np.zeros(build.SIZE, dtype=np.uint8))
    (masks / "train5.png").write_bytes(b"")
    (root / "RIGA-mask/BinRushed/BinRushed1/image0-2.tif").unlink()
    description = run(root, "ORIGA", rater=2)
    reasons = left_out(description)
    for number in (0, 1, 5):
        assert reasons.pop(f"REFUGE/train/image/train{number}.png").startswith(f"train{number}.png cannot be read")
    assert reasons == {
        "RIGA/BinRushed/BinRushed1/image0.tif": "no mask image0-2.tif; there are those of raters 1, 3, 4, 5, 6",
        "REFUGE/train/image/train2.png": "image and label differ in size: 36 x 40 and 38 x 42 (rows x columns)",
        "REFUGE/train/image/train3.png": "label train3.png cannot be right: it has no optic disc",
        "REFUGE/train/image/train4.png": "label train4.png cannot be right: background is only 0 % of its border, "
        "where a fundus photograph has no disc",
    }
    assert description.processing["domains"]["REFUGE"]["left_out"] == 6
    with open(description.path.parent / "left_out.csv", newline="", encoding="utf-8") as stream:
        assert all(row["remedy"] for row in csv.DictReader(stream))
    assert len(list((description.path.parent / "images" / "REFUGE").iterdir())) == 4


def test_equal_images_share_a_group_and_leave_unseen_domains(root: Path) -> None:
    build.five_domain(root)
    for target in ("REFUGE/train/image/train1.png", "ORIGA/train/image/train0.png"):
        (root / target).write_bytes((root / "REFUGE/train/image/train0.png").read_bytes())
    description = run(root, "REFUGE")
    groups = {case.id: case.group for case in description.cases}
    assert groups["REFUGE_train1"] == groups["REFUGE_train0"]
    assert left_out(description) == {
        "ORIGA/train/image/train0.png": "identical to 'train0' of the domain REFUGE",
    }


def test_windows_of_another_shape_are_left_out_and_wide_ones_are_cut(root: Path) -> None:
    build.windows(root)
    description = run(root, "drishti_gs")
    assert left_out(description) == {"drishti_gs/images/drishtiGS_003.png": "aspect ratio 2.00 of 80 x 40 is over 1.5"}
    (case,) = description.select(domain="refuge_train")
    np.testing.assert_array_equal(pixels(case.image), pixels(root / "refuge_train/images/g0001.png")[20:580, 10:570])


def test_a_release_with_one_domain_says_that_nothing_is_unseen(root: Path) -> None:
    build.drishti(root)
    screen = io.StringIO()
    make_fundus_dataset(root, "Drishti_GS", root.parent / "out", console=Console(file=screen, width=160))
    assert "the release drishti-gs has one domain here: it can be the source, but no unseen domain" in screen.getvalue()
    assert "images here, the release drishti-gs 101: a part of it may be missing" in screen.getvalue()


def recode(root: Path, values: dict[int, int]) -> None:
    """Give all masks of the five-domain release another coding."""
    for path in [*root.glob("RIGA-mask/*/*/*.tif"), *root.glob("*/*/mask/*.png")]:
        grey = pixels(path)
        build.write(path, build.coded((grey < 255).astype(np.uint8) + (grey == 0), values))


def only_riga(root: Path) -> None:
    """Leave the lists that the five-domain release and RIGA+ both have."""
    for path in root.glob("*.csv"):
        if not path.name.startswith(("BinRushed", "Magrabia")):
            path.unlink()


DAMAGED = r"They fit no release whose files are in the folder: the file may be damaged or edited\. .*label_values"
CODINGS: dict[str, tuple[dict[int, int], str]] = {
    "that of RIGA+": (
        build.RIM_WHITE,
        r"label has values 0, 128, 255, which do not fit the release five-domain \(255 background, 128 rim, 0 cup\): "
        r"read so, background is only 0 % of its border.*They would fit: riga-plus \(0 background, 255 rim, 128 cup\)"
        r"\. Give the right release by --release",
    ),
    "index": (build.INDEX, rf"-1\.tif: label has values 0, 1, 2, .*{DAMAGED}"),
    "cup white": ({0: 0, 1: 128, 2: 255}, rf"-1\.tif: label has values 0, 128, 255, .*{DAMAGED}"),
    "lossy": ({0: 250, 1: 130, 2: 3}, rf"label has values 3, 130, 250, .*some have no meaning there .*{DAMAGED}"),
}


@pytest.mark.parametrize("coding", CODINGS)
def test_another_coding_stops_the_import_and_names_those_that_fit(coding: str, root: Path) -> None:
    values, message = CODINGS[coding]
    build.five_domain(root)
    only_riga(root)
    recode(root, values)
    with pytest.raises(ValueError, match=message):
        run(root, "BinRushed", release="five-domain")
    assert [path.name for path in root.parent.iterdir()] == [root.name]


def test_the_release_that_is_offered_can_be_read(root: Path) -> None:
    build.riga_plus(root)
    only_riga(root)
    with pytest.raises(ValueError, match=r"They would fit: riga-plus \("):
        run(root, "BinRushed", release="five-domain")
    assert run(root, "BinRushed", release="riga-plus").domains == ["BinRushed", "Magrabia"]


def test_a_release_whose_lists_are_not_those_of_the_folder_is_not_offered(root: Path) -> None:
    build.five_domain(root)
    recode(root, build.RIM_WHITE)
    with pytest.raises(ValueError, match=rf"label has values 0, 128, 255, .*{DAMAGED}"):
        run(root, "REFUGE")


@pytest.mark.parametrize("number", [0, 14])
def test_one_odd_label_among_sound_ones_is_left_out_and_a_rerun_after_the_mend_has_it(number: int, root: Path) -> None:
    """Number 0 is among those looked at before the import, 14 is not."""
    build.five_domain(root, count=16)
    path = root / f"Drishti_GS/train/mask/train{number}.png"
    mask = path.read_bytes()
    grey = pixels(path).copy()
    grey[0, 0] = 254
    build.write(path, grey)
    description = run(root, "REFUGE")
    assert len(description.cases) == 89
    assert left_out(description) == {
        f"Drishti_GS/train/image/train{number}.png": f"label train{number}.png has values 0, 128, 254, 255, some "
        "of which mean nothing (255 background, 128 rim, 0 cup)"
    }
    path.write_bytes(mask)
    assert len(run(root, "REFUGE", "again").cases) == 90


def in_colours(path: Path) -> None:
    """Paint a mask as some viewers export it: the channels differ."""
    grey = pixels(path)
    grey = grey if grey.ndim == 2 else grey[..., 0]
    build.write(path, np.dstack([grey, 255 - grey, grey]))


@pytest.mark.parametrize("number", [0, 3])
def test_a_mask_in_colours_is_left_out(number: int, root: Path) -> None:
    build.five_domain(root)
    in_colours(root / f"ORIGA/train/mask/train{number}.png")
    description = run(root, "REFUGE")
    reason = "of mode RGB has colours, and those of the release have one grey value a pixel"
    assert left_out(description) == {f"ORIGA/train/image/train{number}.png": f"label train{number}.png {reason}"}


def test_masks_in_colours_throughout_are_told_once(root: Path) -> None:
    build.five_domain(root)
    for path in (root / "ORIGA").rglob("mask/*.png"):
        in_colours(path)
    with pytest.raises(
        ValueError, match=r"domain ORIGA: none of its 6 images can be used: 6 x label .* has colours, and"
    ):
        run(root, "REFUGE")


def test_wrong_options_are_told_before_the_work(root: Path) -> None:
    build.five_domain(root)
    with pytest.raises(
        ValueError, match=r"--source: found 'Binrushed', allowed: BinRushed, .*did you mean 'BinRushed'"
    ):
        run(root, "Binrushed")
    for rater in (0, 7, "x", True, 1.5):
        with pytest.raises(ValueError, match=r"--rater: found .*, allowed for the release five-domain: 1 to 6\."):
            run(root, "BinRushed", rater=rater)
    for path in root.glob("ORIGA*.csv"):
        path.unlink()
    with pytest.raises(
        ValueError, match=r"--source: found 'ORIGA' \(of this release, but not in the folder\), allowed"
    ):
        run(root, "ORIGA")
    (root.parent / "out").mkdir()
    (root.parent / "out" / "file").touch()
    with pytest.raises(ValueError, match=r"--output .*out: exists and is not an empty folder"):
        run(root, "BinRushed")


def test_a_rater_is_refused_where_there_is_one_annotation(root: Path) -> None:
    build.drishti(root)
    with pytest.raises(
        ValueError, match=r"--rater: found 2, .* drishti-gs: 1, because there is one annotation an image"
    ):
        run(root, "Drishti_GS", rater=2)


def test_a_domain_without_a_usable_case_is_told(root: Path) -> None:
    build.refuge(root)
    for path in root.glob("Annotation-Training400/*/*/*.bmp"):
        path.unlink()
    with pytest.raises(
        ValueError, match=r"domain REFUGE_Zeiss: none of its 5 images can be used: .*no mask named g0001"
    ):
        run(root, "REFUGE_Canon")


def test_a_source_of_two_images_is_told(root: Path) -> None:
    build.windows(root)
    with pytest.raises(ValueError, match=r"--root .*: source_domain 'refuge_train': 1 group\(s\)"):
        run(root, "refuge_train")


def test_the_command_line_reports_the_result_and_mistakes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build.refuge(root)
    output = root.parent / "out"
    words = ["fundus", "--root", str(root), "--output", str(output), "--source"]
    assert main([*words, "Zeiss"]) == 1
    assert "--source: found 'Zeiss'" in capsys.readouterr().err
    assert main([*words, "REFUGE_Zeiss", "--seed", "3"]) == 0
    assert f"written: {output / 'dataset.json'}" in capsys.readouterr().out
    assert json.loads((output / "dataset.json").read_text())["processing"]["split"]["seed"] == 3


def test_real_windows_give_the_expected_data_set(shared_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "fundus"
    for folder, names in (
        ("drishti_gs", ("drishtiGS_001", "drishtiGS_002", "drishtiGS_003", "drishtiGS_032")),
        ("refuge_train", ("g0001",)),
    ):
        for kind in ("images", "masks"):
            (root / folder / kind).mkdir(parents=True)
            for name in names:
                (root / folder / kind / f"{name}.png").symlink_to(
                    shared_data / "fundus" / folder / kind / f"{name}.png"
                )
    description = run(root, "drishti_gs")
    assert left_out(description) == {
        "drishti_gs/images/drishtiGS_032.png": "aspect ratio 2.00 of 1024 x 512 is over 1.5"
    }
    for case in description.cases:
        # The optic disc fills a good part of a window, and the cup a part of the disc.
        label = pixels(case.label)
        assert 0.1 < (label > 0).mean() < 0.7
        assert 0.1 < (label == 2).sum() / (label > 0).sum() < 0.9
