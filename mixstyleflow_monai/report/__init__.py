"""Figures and reports."""

from mixstyleflow_monai.report.figures import save_panel

__all__ = ["save_panel"]
