"""Run configurations of the bundles one after the other in the processes that torchrun starts: ``FILE.json``.

The file holds a list of {"files": [...], "options": {...}}; "error" in place of nothing says what must be raised.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import monai.bundle
import torch.distributed as dist
from monai.utils import set_determinism

from mixstyleflow_monai import engines
from mixstyleflow_monai.bundle_errors import root_cause


def main(path: str) -> None:
    """Run what the file lists."""
    end = engines.end_processes
    # Left and joined again under one torchrun, processes find each other's old addresses.
    engines.end_processes = dist.barrier
    for job in json.loads(Path(path).read_text(encoding="utf-8")):
        try:
            monai.bundle.run(config_file=job["files"], logging_file=False, **job["options"])
        except Exception as error:
            if job.get("error") is None or job["error"] not in str(root_cause(error)):
                raise
        else:
            assert "error" not in job, job
        set_determinism(seed=None)
    end()


if __name__ == "__main__":
    main(sys.argv[1])
