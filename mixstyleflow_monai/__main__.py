"""Entry point of ``python -m mixstyleflow_monai``."""

import sys

try:
    from mixstyleflow_monai.cli import main
except KeyboardInterrupt:  # importing torch takes seconds, in which a user may think better of it
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
