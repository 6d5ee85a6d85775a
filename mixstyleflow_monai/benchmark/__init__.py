"""Every method on the same footing: a plan of cells, their trainings, and the tables that compare them."""

from mixstyleflow_monai.benchmark.command import benchmark
from mixstyleflow_monai.benchmark.plan import PRESETS, Cell, Plan, known_methods, make_plan

__all__ = ["PRESETS", "Cell", "Plan", "benchmark", "known_methods", "make_plan"]
