"""MLflow tracking: one experiment a data set, one run a phase, one parent run for all phases of a folder.

What `mlflow` sends home about its use is switched off, unless the user has decided otherwise.
"""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mixstyleflow_monai.tracking.handlers import EvaluationTracker, TrainingTracker
from mixstyleflow_monai.tracking.run import TrackedRun
from mixstyleflow_monai.tracking.store import Store, check_store, embedded_store, is_requested
from mixstyleflow_monai.tracking.whole_run import WholeRun

__all__ = [
    "EvaluationTracker",
    "Store",
    "TrackedRun",
    "TrainingTracker",
    "WholeRun",
    "check_store",
    "embedded_store",
    "is_requested",
]
