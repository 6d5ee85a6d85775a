"""Entry point of ``python -m mixstyleflow_monai``."""

import sys

from mixstyleflow_monai.cli import main

if __name__ == "__main__":
    sys.exit(main())
