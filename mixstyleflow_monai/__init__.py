"""Single-source domain generalization for medical image segmentation with learned style flows, on MONAI.

Importing the package loads nothing heavy: import what you need from its subpackages.

References:
    MixStyleFlow, MICCAI 2025, doi 10.1007/978-3-032-04947-6_36
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
