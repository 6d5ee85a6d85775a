"""DICOM series and segmentations as NIfTI."""
