"""Evaluation: per case, per region, per domain, on the original grid."""

from mixstyleflow_monai.evaluation.case_pictures import CasePictures, case_picture_path, draw_case, read_case_picture
from mixstyleflow_monai.evaluation.comparison import Comparison, compare, paired_bootstrap
from mixstyleflow_monai.evaluation.domain_evaluation import DomainEvaluation, compare_case
from mixstyleflow_monai.evaluation.inferer import PlanarInferer
from mixstyleflow_monai.evaluation.metrics import CaseResult, dice_percent, surface_distance
from mixstyleflow_monai.evaluation.summary import (
    BASELINE,
    domain_table,
    in_order,
    print_table,
    read_cases,
    record_name,
    summarise,
    write_cases,
)

__all__ = [
    "BASELINE",
    "CasePictures",
    "CaseResult",
    "Comparison",
    "DomainEvaluation",
    "PlanarInferer",
    "case_picture_path",
    "compare",
    "compare_case",
    "dice_percent",
    "domain_table",
    "draw_case",
    "in_order",
    "paired_bootstrap",
    "print_table",
    "read_case_picture",
    "read_cases",
    "record_name",
    "summarise",
    "surface_distance",
    "write_cases",
]
