"""Labels of a converted DICOM series: from a DICOM SEG object, or from a NIfTI file beside the images.

Nothing is resampled. A label is taken if its voxels are voxels of the image, in whatever order of axes; otherwise the
reason is reported. Values are the segment numbers.

Segments may overlap in DICOM, values of a label map may not. Overlapping segments are written as one file each:
merging them would lose voxels of one of them, and leaving them out would lose all.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

from data_prep.dicom.files import Segmentation, without_identity
from data_prep.dicom.grid import GRID_TOLERANCE, grid_distance, to_ras
from data_prep.dicom.series import Series
from data_prep.image_files import UnusableCase
from data_prep.volume_files import open_volume, volume_values

# More values than this in a file beside the images: it is an image, not a label.
MAX_VALUES = 64
# How far, in voxels, highdicom may shift a SEG to the image's voxels; the corners are compared more strictly.
_MATCH_TOLERANCE = 0.05


@dataclass
class Label:
    """Label maps on the grid of an image.

    Attributes:
        source: "DICOM SEG" or "NIfTI".
        names: name of each value; "" if it is not known.
        maps: the one label map under the key 0; of overlapping segments each one's map under its number.
    """

    source: str
    names: dict[int, str]
    maps: dict[int, NDArray[Any]] = field(default_factory=dict)

    @property
    def overlaps(self) -> bool:
        """Whether each segment has a map of its own."""
        return 0 not in self.maps

    def write(self, folder: Path, name: str, affine: NDArray[np.float64]) -> dict[str, Any]:
        """Write ``labels/NAME.nii.gz``, or ``labels/NAME_segmentN.nii.gz``, and return the entry of segments.json.

        Args:
            folder: output folder.
            name: name of the case.
            affine: RAS affine of its image.
        """
        voxels: dict[int, int] = dict.fromkeys(self.names, 0)
        files = []
        for key, values in self.maps.items():
            path = folder / "labels" / (f"{name}_segment{key}.nii.gz" if key else f"{name}.nii.gz")
            write_nifti(path, values, affine)
            files.append(path.relative_to(folder).as_posix())
            for value, count in zip(*np.unique(values[values != 0], return_counts=True), strict=True):
                voxels[int(value)] = int(count)
        entries = {str(value): {"name": self.names[value], "voxels": voxels[value]} for value in sorted(self.names)}
        return {"source": self.source, "files": files, "overlap": self.overlaps, "values": entries}


def write_nifti(path: Path, values: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Write a volume with a fresh header, which holds the grid and nothing else: no names, no dates.

    Args:
        path: ends in ``.nii.gz``.
        values: (columns, rows, slices).
        affine: RAS, mm.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    nib.save(image, path)


def find_label(series: Series, segmentations: Sequence[Segmentation], neighbours: Sequence[Series]) -> Label | None:
    """Return the label of a series; None if there is none to be found.

    Args:
        series: a series with a grid.
        segmentations: all SEG objects of the tree.
        neighbours: the other series that are converted; a NIfTI file that fits several of them is nobody's.

    Raises:
        UnusableCase: there is a label, but it cannot be used, with the reason.
    """
    ours = [seg for seg in segmentations if series.uid in seg.referenced]
    if len(ours) > 1:
        raise UnusableCase(f"{len(ours)} SEG objects refer to this series; leave the one to use in the folder")
    if ours:
        return read_segmentation(ours[0], series)
    path = nifti_beside(series)
    if path is None:
        return None
    label = read_nifti_label(path, series)
    if any(_also_fits(path, other) for other in neighbours if other is not series):
        raise UnusableCase("the NIfTI beside the images fits several series; put each series into a folder of its own")
    return label


def read_segmentation(segmentation: Segmentation, series: Series) -> Label:
    """Bring a SEG object to the grid of the series that it refers to.

    Raises:
        UnusableCase: another frame of reference, a grid whose voxels are not those of the image, foreground outside
            the image, fractional segments, or an unreadable object.
    """
    tags = segmentation.instance.tags
    if tags["FrameOfReferenceUID"] != series.tags["FrameOfReferenceUID"]:
        raise UnusableCase("SEG refers to this series but has another FrameOfReferenceUID; export it again")
    seg = _open(segmentation.instance.path, series)
    if seg.get("PixelPaddingValue", 0) != 0:
        raise UnusableCase("SEG stores its background as another value than 0; export it as a binary SEG")
    try:
        numbers = [int(number) for number in seg.segment_numbers if number != 0]
        names = {number: _segment_name(seg.get_segment_description(number), tags) for number in numbers}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UnusableCase(f"SEG does not describe its segments ({type(error).__name__})") from error
    if not numbers:
        raise UnusableCase("SEG has no segments")
    label = Label("DICOM SEG", names)
    try:
        label.maps = {0: _on_grid(seg, series, numbers)}
    except _Overlap:
        # Opened anew, because highdicom's tables stay locked after an error.
        seg = _open(segmentation.instance.path, series)
        label.maps = {number: _on_grid(seg, series, [number]) for number in numbers}
    return label


class _Overlap(Exception):
    """Segments share voxels."""


def _open(path: Path, series: Series) -> Any:
    """Read a SEG object, and tell highdicom the slice distance where the object does not.

    Empty frames are usually left out. Without the distance, frames of slices 3 and 9 look like neighbours.
    """
    import highdicom
    import pydicom

    assert series.affine is not None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd values in tags that are not used
            dataset = pydicom.dcmread(path)
        shared = dataset.SharedFunctionalGroupsSequence[0]
        if "PixelMeasuresSequence" in shared and "PlaneOrientationSequence" in shared:
            measures, plane = shared.PixelMeasuresSequence[0], shared.PlaneOrientationSequence[0]
            if not measures.get("SpacingBetweenSlices"):
                cosines = np.array(plane.ImageOrientationPatient, dtype=np.float64)
                normal = np.cross(cosines[:3], cosines[3:])
                spacing = np.array(series.spacing)
                axis = int(np.abs(normal @ (series.affine[:3, :3] / spacing)).argmax())
                measures.SpacingBetweenSlices = f"{spacing[axis]:.10g}"
        return highdicom.seg.Segmentation.from_dataset(dataset, copy=False)
    # Damaged objects make pydicom and highdicom raise almost anything.
    except Exception as error:
        raise UnusableCase(f"SEG cannot be read ({type(error).__name__})") from error


def _on_grid(seg: Any, series: Series, numbers: list[int]) -> NDArray[Any]:
    """Return the label map of some segments as (columns, rows, slices) of the series.

    Raises:
        _Overlap: the segments share voxels.
        UnusableCase: not the image's voxels.
    """
    import highdicom

    assert series.affine is not None
    try:
        found = seg.get_volume(combine_segments=True, segment_numbers=numbers)
    except RuntimeError as error:
        if "overlap" in str(error).lower():
            raise _Overlap from error
        raise UnusableCase(f"frames of the SEG are no regular volume ({error})") from error
    except (ValueError, AttributeError, KeyError, NotImplementedError) as error:
        if seg.segmentation_type.value == "FRACTIONAL":
            raise UnusableCase("SEG holds probabilities; threshold it and store it as a binary SEG") from error
        raise UnusableCase(f"SEG cannot be decoded ({type(error).__name__})") from error
    wanted = highdicom.VolumeGeometry(series.affine, series.size, "PATIENT")
    try:
        matched = found.match_geometry(wanted, tol=_MATCH_TOLERANCE)
        distance = grid_distance(series.affine, np.array(matched.affine), series.size)
    except (RuntimeError, ValueError, IndexError) as error:
        raise UnusableCase(f"SEG lies on another grid than the image ({error}); resample it to the image") from error
    if distance > GRID_TOLERANCE:
        raise UnusableCase(f"SEG is off the image's grid by {distance:.2g} voxels; resample it to the image")
    lost = np.count_nonzero(found.array) - np.count_nonzero(matched.array)
    if matched.spatial_shape != series.size or lost != 0:
        raise UnusableCase(f"{lost} voxels of the SEG lie outside the image or between its voxels; resample it first")
    return np.ascontiguousarray(matched.array, dtype=np.uint8 if max(numbers) < 256 else np.uint16)


def _segment_name(description: Any, tags: dict[str, Any]) -> str:
    """Return the label of a segment, or the coded type where the free text holds the patient's name."""
    code = str(description.segmented_property_type.meaning)
    return without_identity(str(description.segment_label).strip() or code, tags, code)


def nifti_beside(series: Series) -> Path | None:
    """Return the NIfTI file in the folder of the images; None if there is none, or the images are in several folders.

    Raises:
        UnusableCase: there are several.
    """
    folders = {instance.path.parent for instance in series.instances}
    if len(folders) > 1:
        return None
    files = [path for path in folders.pop().iterdir() if path.name.lower().endswith((".nii", ".nii.gz"))]
    if len(files) > 1:
        raise UnusableCase(f"{len(files)} NIfTI files lie beside the images; leave the one label map there")
    return files[0] if files else None


def read_nifti_label(path: Path, series: Series) -> Label:
    """Bring a label file to the order of axes of the series, if it has the same voxels.

    Converters differ in the direction of rows, so a label drawn on another conversion is flipped back here.

    Raises:
        UnusableCase: unreadable, other voxels, or values that are no label's.
    """
    assert series.affine is not None
    try:
        volume = open_volume(path)
        stored = volume_values(volume, path)
    except UnusableCase as error:
        # The reason is written to disk, and file names may hold patients' names.
        reason = str(error).replace(path.name, "the NIfTI beside the images")
        raise UnusableCase(reason, error.remedy) from None
    ras = to_ras(series.affine)
    turn = ornt_transform(io_orientation(volume.affine), io_orientation(ras))
    values = apply_orientation(stored, turn)
    if values.shape != series.size:
        raise UnusableCase(f"NIfTI beside the images has size {_by(values.shape)}, the images have {_by(series.size)}")
    distance = grid_distance(ras, volume.affine @ inv_ornt_aff(turn, volume.shape), series.size)
    if not distance <= GRID_TOLERANCE:
        raise UnusableCase(f"NIfTI beside the images is off their grid by {distance:.2g} voxels; resample it")
    found = np.unique(values)
    if len(found) > MAX_VALUES or not np.array_equal(found, np.rint(found)) or found[0] < 0 or found[-1] > 255:
        raise UnusableCase(
            f"NIfTI beside the images has {len(found)} values from {found[0]:g} to {found[-1]:g}, a label has whole "
            f"numbers from 0 to 255 and at most {MAX_VALUES} of them; is it an image?"
        )
    return Label("NIfTI", {int(value): "" for value in found if value}, {0: values.astype(np.uint8)})


def _also_fits(path: Path, series: Series) -> bool:
    try:
        if nifti_beside(series) != path:
            return False
        read_nifti_label(path, series)
    except UnusableCase:
        return False
    return True


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
