"""Self-contained bundles: weights, exports, this package and checksums in one versioned zip file."""

from mixstyleflow_monai.packing.pack import pack

__all__ = ["pack"]
