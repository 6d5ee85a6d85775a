"""What the header of one file tells: forms that disagree, units, and what is no file at all."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from mixstyleflow_monai.data.file_faults import load_volume, open_picture, unreadable, volume_faults

AFFINE = np.diag([-0.5, 0.75, 3.0, 1.0])


def write(
    path: Path, *, qform: np.ndarray | None = AFFINE, sform: np.ndarray | None = AFFINE, unit: str = "mm"
) -> Path:
    image = nib.Nifti1Image(np.ones((8, 7, 5), np.int16), AFFINE)
    image.set_sform(sform, code=0 if sform is None else 1)
    image.set_qform(qform, code=0 if qform is None else 1)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


def faults(path: Path) -> list[tuple[str, str]]:
    return [(fault.severity, fault.text) for fault in volume_faults(path)[1]]


@pytest.mark.parametrize("unit", ["mm", "unknown"])
def test_one_form_or_two_that_agree_are_sound(unit: str, tmp_path: Path) -> None:
    near = AFFINE.copy()
    near[0, 3] += 0.2
    for qform, sform in ((AFFINE, AFFINE), (None, AFFINE), (AFFINE, None), (near, AFFINE)):
        assert faults(write(tmp_path / "a.nii.gz", qform=qform, sform=sform, unit=unit)) == []


def test_forms_that_disagree_are_a_warning(tmp_path: Path) -> None:
    moved, scaled = AFFINE.copy(), np.diag([-0.9, 0.9, 3.0, 1.0])
    moved[2, 3] += 20
    for qform, gap in ((moved, "20"), (scaled, "3.37")):
        ((severity, text),) = faults(write(tmp_path / "a.nii.gz", qform=qform))
        assert severity == "warning"
        assert text == f"has a qform and an sform that place it {gap} mm apart; here the sform counts"


def test_a_header_without_a_place_is_a_warning(tmp_path: Path) -> None:
    ((severity, text),) = faults(write(tmp_path / "a.nii.gz", qform=None, sform=None))
    assert severity == "warning"
    assert text.startswith("has neither qform nor sform")


@pytest.mark.parametrize(("unit", "name"), [("meter", "metres"), ("micron", "micrometres")])
def test_other_units_than_mm_are_a_warning(unit: str, name: str, tmp_path: Path) -> None:
    expected = ("warning", f"gives its sizes in {name} by its header, and they are taken as mm")
    assert faults(write(tmp_path / "a.nii", unit=unit)) == [expected]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("a.png", "a.nii"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=r"a\.png: is a folder or a device"), open_picture(tmp_path / "a.png"):
        pass
    with pytest.raises(ValueError, match=r"a\.nii: is a folder or a device"):
        load_volume(tmp_path / "a.nii")
    assert faults(tmp_path / "a.nii") == [("error", "is a folder or a device, and no file")]


def test_text_of_several_lines_is_told_as_text(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("<html>\n\t<body>404 not found</body>\n</html>\n")
    with pytest.raises(Image.UnidentifiedImageError) as caught, open_picture(path):
        pass
    assert unreadable(path, caught.value).remedy == "its content is text: name or convert it so"
