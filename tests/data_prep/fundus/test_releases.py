"""Recognition of the fundus releases, their layouts and their csv lists."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest

from data_prep.fundus.labels import implausible
from data_prep.fundus.releases import RELEASES, find_release
from tests.data_prep.fundus import fundus_builders as build

BUILDERS: dict[str, Callable[[Path], None]] = {
    "five-domain": build.five_domain,
    "riga-plus": build.riga_plus,
    "dofe": build.dofe,
    "refuge": build.refuge,
    "drishti-gs": build.drishti,
    "windows": build.windows,
}
COUNTS = {
    "five-domain": {"BinRushed": 6, "Magrabia": 6, "REFUGE": 6, "ORIGA": 6, "Drishti_GS": 6},
    "riga-plus": {"BinRushed": 6, "Magrabia": 6, "MESSIDOR_Base1": 6},
    "dofe": {"Domain1": 4, "Domain2": 4, "Domain3": 4, "Domain4": 4},
    "refuge": {"REFUGE_Zeiss": 5, "REFUGE_Canon": 3},
    "drishti-gs": {"Drishti_GS": 5},
    "windows": {"drishti_gs": 4, "refuge_train": 1},
}


def test_every_release_has_a_builder() -> None:
    assert [release.name for release in RELEASES] == list(BUILDERS)


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("place", ["", "Fundus images"])
def test_a_release_is_recognised_and_listed(name: str, place: str, tmp_path: Path) -> None:
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    BUILDERS[name](tmp_path / place)
    for wanted in ("auto", name):
        release, base = find_release(tmp_path, wanted)
        cases = release.list_cases(base, 1)
        assert release.name == name
        assert base.is_relative_to(tmp_path / place)
        assert Counter(case.domain for case in cases) == COUNTS[name]
        assert set(COUNTS[name]) <= set(release.domains)
        assert len({case.image for case in cases}) == len(cases)
        for case in cases:
            assert not case.fault
            assert case.image.is_file()
            coding = release.coding_of(case.domain)
            assert len(case.labels) == coding.files
            label = coding.decode(coding.read(case.labels))
            assert label is not None
            assert implausible(label) is None


@pytest.mark.parametrize(("one", "other"), list(combinations(BUILDERS, 2)))
def test_two_releases_side_by_side_are_not_guessed_at(one: str, other: str, tmp_path: Path) -> None:
    BUILDERS[one](tmp_path / "a")
    BUILDERS[other](tmp_path / "b")
    with pytest.raises(ValueError, match="could be of several releases") as error:
        find_release(tmp_path)
    assert all(f"--release {name}: " in str(error.value) for name in (one, other))
    assert find_release(tmp_path, one)[0].name == one


def test_lists_that_two_releases_share_are_not_guessed_at(tmp_path: Path) -> None:
    build.riga_plus(tmp_path)
    for path in tmp_path.glob("MESSIDOR*.csv"):
        path.unlink()
    with pytest.raises(ValueError, match=r"(?s)--release five-domain: .*BinRushed_train\.csv\n  --release riga-plus: "):
        find_release(tmp_path)
    assert find_release(tmp_path, "riga-plus")[1] == tmp_path


def test_two_copies_of_a_release_are_not_guessed_at(tmp_path: Path) -> None:
    build.dofe(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ValueError, match=r"the release dofe is there more than once: .*a, .*b; give one of them"):
        find_release(tmp_path)


def test_two_copies_of_a_scattered_release_are_not_guessed_at(tmp_path: Path) -> None:
    build.refuge(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    release, base = find_release(tmp_path)
    with pytest.raises(ValueError, match=r"found the folder Training400 more than once|REFUGE-Training400 more than"):
        release.list_cases(base, 1)


def test_nothing_known_lists_what_was_looked_for(tmp_path: Path) -> None:
    build.write_photograph(tmp_path / "images" / "a.png", 0)
    with pytest.raises(ValueError, match="holds no file of any known release") as error:
        find_release(tmp_path)
    assert all(f"  {release.name} (" in str(error.value) for release in RELEASES)
    with pytest.raises(ValueError, match=r"holds no file of the release, .*\n  dofe \(fundus data of DoFE\): Domain"):
        find_release(tmp_path, "dofe")


def test_a_wrong_name_a_file_and_a_missing_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--release: found 'rigaplus', allowed: auto, five-.*you mean 'riga-plus'\?"):
        find_release(tmp_path, "rigaplus")
    archive = tmp_path / "release.zip"
    archive.touch()
    with pytest.raises(FileNotFoundError, match=r"release\.zip: is a file; unpack it and give the folder"):
        find_release(archive)
    with pytest.raises(FileNotFoundError, match=r"--root .*none: no such folder"):
        find_release(tmp_path / "none")


def test_links_that_go_round_are_no_trouble(tmp_path: Path) -> None:
    build.refuge(tmp_path)
    (tmp_path / "Test400" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    release, base = find_release(tmp_path / "Test400" / "..")
    assert Counter(case.domain for case in release.list_cases(base, 1)) == COUNTS["refuge"]


def test_the_rater_chooses_among_tif_masks_only(tmp_path: Path) -> None:
    build.five_domain(tmp_path)
    release, base = find_release(tmp_path)
    for case in release.list_cases(base, 4):
        riga = case.domain in ("BinRushed", "Magrabia")
        assert case.rater == (4 if riga else None)
        assert case.labels[0].name.endswith("-4.tif" if riga else ".png")


def test_a_rater_who_left_an_image_out_is_a_fault_of_that_image(tmp_path: Path) -> None:
    build.riga_plus(tmp_path)
    for rater in (3, 5):
        (tmp_path / f"RIGA-mask/BinRushed/BinRushed1/image0-{rater}.tif").unlink()
    release, base = find_release(tmp_path)
    faults = [case.fault for case in release.list_cases(base, 3) if case.fault]
    assert faults == ["no mask image0-3.tif; there are those of raters 1, 2, 4, 6"]


def test_images_without_a_mask_are_handed_on_with_the_reason(tmp_path: Path) -> None:
    build.refuge(tmp_path)
    (tmp_path / "Annotation-Training400/Disc_Cup_Masks/Glaucoma/g0001.bmp").unlink()
    shutil.rmtree(tmp_path / "REFUGE-Test-GT")
    release, base = find_release(tmp_path)
    faults = {case.image.name: case.fault for case in release.list_cases(base, 1) if case.fault}
    assert faults == {
        "g0001.jpg": "no mask named g0001",
        "T0001.jpg": "no mask named T0001: the folder REFUGE-Test-GT of its annotations is missing",
    }


def test_masks_of_the_same_name_are_not_guessed_at(tmp_path: Path) -> None:
    build.refuge(tmp_path)
    masks = tmp_path / "REFUGE-Test-GT" / "Disc_Cup_Masks"
    shutil.copytree(masks / "G", masks / "N")
    release, base = find_release(tmp_path)
    with pytest.raises(ValueError, match=r"Test400: two masks have the same name: .*G.T0001\.bmp and .*N.T0001\.bmp"):
        release.list_cases(base, 1)


def test_a_missing_mask_folder_is_told(tmp_path: Path) -> None:
    build.dofe(tmp_path)
    shutil.rmtree(tmp_path / "Domain3" / "test" / "ROIs" / "mask")
    release, base = find_release(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"Domain3.test.ROIs.mask: no such folder, but the release has one"):
        release.list_cases(base, 1)


OK = ("REFUGE/train/image/train0.png", "REFUGE/train/mask/train0.png")
BAD_ROWS: dict[str, tuple[list[tuple[str, ...]], str]] = {
    "parent folder": ([("../other/a.png", OK[1])], r"line 2: image '\.\./other/a\.png' leads out of the folder"),
    "parent folder of Windows": ([(OK[0], r"REFUGE\..\..\a.png")], r"line 2: mask '.*' leads out of the folder"),
    "absolute": ([("/etc/passwd", OK[1])], r"line 2: image '/etc/passwd' is absolute; write it relative to the list"),
    "absolute of Windows": ([(OK[0], r"C:\masks\a.png")], r"line 2: mask '.*' is absolute; write it relative"),
    "empty": ([(OK[0], "")], "line 2: mask is empty; give a path relative to the list"),
    "short row": ([(OK[0],)], "line 2: mask is empty"),
    "missing file": ([OK, ("REFUGE/no.png", OK[1])], r"line 3: image 'REFUGE/no\.png': no file REFUGE/no\.png in "),
    "listed twice": ([OK, OK], r"line 3: image '.*' is already listed in REFUGE_train\.csv line 2; remove one row"),
    "no rows": ([], "the list has no rows"),
}


@pytest.mark.parametrize("mistake", BAD_ROWS)
def test_a_mistake_in_a_list_is_named_with_its_line(mistake: str, tmp_path: Path) -> None:
    build.five_domain(tmp_path)
    rows, message = BAD_ROWS[mistake]
    build.write_list(tmp_path / "REFUGE_train.csv", rows)
    release, base = find_release(tmp_path)
    with pytest.raises(ValueError, match=rf"(?s)REFUGE_train\.csv: \d problem.*{message}"):
        release.list_cases(base, 1)


def test_all_mistakes_of_a_list_are_told_at_once(tmp_path: Path) -> None:
    build.five_domain(tmp_path)
    build.write_list(tmp_path / "ORIGA_train.csv", [("/a", "b"), ("../c", "d"), ("", "")])
    release, base = find_release(tmp_path)
    with pytest.raises(ValueError, match=r"ORIGA_train\.csv: 4 problems"):
        release.list_cases(base, 1)


def test_a_file_listed_for_two_domains_is_refused(tmp_path: Path) -> None:
    build.five_domain(tmp_path)
    build.write_list(tmp_path / "ORIGA_test.csv", [OK])
    release, base = find_release(tmp_path)
    with pytest.raises(ValueError, match=r"ORIGA_test\.csv: 2 prob(?s:.*)already listed in REFUGE_train\.csv line 2"):
        release.list_cases(base, 1)


def test_a_tif_mask_without_any_rater_is_missing(tmp_path: Path) -> None:
    build.five_domain(tmp_path)
    for path in (tmp_path / "RIGA-mask/Magrabia/MagrabiaFemale").glob("image0-*.tif"):
        path.unlink()
    release, base = find_release(tmp_path)
    with pytest.raises(ValueError, match=r"Magrabia_train\.csv: 1 prob(?s:.*)no file RIGA-mask/.*/image0-2\.tif in"):
        release.list_cases(base, 2)


def test_a_missing_column_names_those_that_are_there(tmp_path: Path) -> None:
    build.five_domain(tmp_path)
    build.write_list(tmp_path / "REFUGE_test.csv", [OK], ["image", "masks"])
    release, base = find_release(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"no column 'mask'; did you mean 'masks'\?; the columns are image, masks, expected image, mask",
    ):
        release.list_cases(base, 1)


def test_a_list_with_a_byte_order_mark_and_more_columns_is_read(tmp_path: Path) -> None:
    build.five_domain(tmp_path)
    path = tmp_path / "REFUGE_train.csv"
    path.write_bytes(b"\xef\xbb\xbfimage,mask,note\r\n" + f"{OK[0]},{OK[1]},first\r\n".encode())
    release, base = find_release(tmp_path)
    assert sum(case.domain == "REFUGE" for case in release.list_cases(base, 1)) == 3


@pytest.mark.parametrize("sign", [";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_a_list_that_a_spreadsheet_or_windows_wrote_is_read(sign: str, mark: bytes, tmp_path: Path) -> None:
    build.five_domain(tmp_path)
    release, base = find_release(tmp_path)
    expected = release.list_cases(base, 1)
    for name in ("REFUGE_train.csv", "BinRushed_train.csv"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_bytes(mark + text.replace(",", sign).replace("/", "\\").encode())
    assert release.list_cases(base, 1) == expected


def test_a_name_in_other_letters_is_pointed_out(tmp_path: Path) -> None:
    build.five_domain(tmp_path)
    path = tmp_path / OK[0]
    path.rename(path.with_suffix(".PNG"))
    release, base = find_release(tmp_path)
    with pytest.raises(ValueError, match=rf"no file {OK[0]} in .*, but {path.stem}\.PNG \(other upper and lower case"):
        release.list_cases(base, 1)


@pytest.mark.parametrize("content", [b"image,mask\n\xff\xfe\n", b'image,mask\n"a,b\n'], ids=["not text", "open quote"])
def test_a_damaged_list_is_told(content: bytes, tmp_path: Path) -> None:
    build.five_domain(tmp_path)
    (tmp_path / "REFUGE_train.csv").write_bytes(content)
    release, base = find_release(tmp_path)
    with pytest.raises(
        ValueError, match=r"REFUGE_train\.csv: cannot be read as csv \(.*\); save it as UTF-8, or unpack"
    ):
        release.list_cases(base, 1)


def test_half_a_domain_and_a_foreign_domain_are_refused(tmp_path: Path) -> None:
    build.five_domain(tmp_path)
    release, base = find_release(tmp_path)
    (tmp_path / "RIM_ONE_r3_train.csv").write_text("image,mask\n")
    with pytest.raises(ValueError, match=re.escape("does not have: RIM_ONE_r3_train.csv; known: BinRushed,")):
        release.list_cases(base, 1)
    (tmp_path / "RIM_ONE_r3_train.csv").unlink()
    (tmp_path / "ORIGA_test.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"ORIGA_test\.csv: no such file, but the other list of the domain"):
        release.list_cases(base, 1)
    (tmp_path / "ORIGA_train.csv").unlink()
    assert Counter(case.domain for case in release.list_cases(base, 1)) == {
        name: count for name, count in COUNTS["five-domain"].items() if name != "ORIGA"
    }


def test_missing_parts_of_a_release_are_told(tmp_path: Path) -> None:
    build.refuge(tmp_path)
    shutil.rmtree(tmp_path / "Test400")
    release, base = find_release(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"the folder REFUGE-Test-GT is there, but not that of its images, Test4"
    ):
        release.list_cases(base, 1)


def test_a_mask_without_its_image_is_handed_on_with_the_reason(tmp_path: Path) -> None:
    build.dofe(tmp_path)
    (tmp_path / "Domain1" / "train" / "ROIs" / "image" / "train1.png").unlink()
    release, base = find_release(tmp_path)
    (case,) = [case for case in release.list_cases(base, 1) if case.fault]
    assert (case.image.parent.name, case.image.name, case.fault) == ("mask", "train1.png", "a mask without its image")


def test_hidden_files_beside_the_lists_are_passed_over(tmp_path: Path) -> None:
    build.five_domain(tmp_path)
    (tmp_path / "._BinRushed_train.csv").write_bytes(b"resource fork")
    release, base = find_release(tmp_path)
    assert release.list_cases(base, 1)
