"""Evaluation: per case, per region, per domain, on the original grid."""

from mixstyleflow_monai.evaluation.domain_evaluation import DomainEvaluation, compare_case
from mixstyleflow_monai.evaluation.inferer import PlanarInferer
from mixstyleflow_monai.evaluation.metrics import CaseResult, dice_percent, surface_distance
from mixstyleflow_monai.evaluation.summary import print_table, read_cases, summarise, write_cases

__all__ = [
    "CaseResult",
    "DomainEvaluation",
    "PlanarInferer",
    "compare_case",
    "dice_percent",
    "print_table",
    "read_cases",
    "summarise",
    "surface_distance",
    "write_cases",
]
