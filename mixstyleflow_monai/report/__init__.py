"""Figures and reports."""

from mixstyleflow_monai.report.figures import AUTHOR, plain, save_figure, save_panel

__all__ = ["AUTHOR", "plain", "save_figure", "save_panel"]
