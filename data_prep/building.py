"""Making a folder as a whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def building(output: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``output`` when the block ends without an error.

    Raises:
        ValueError: ``output`` exists and is not an empty folder, or its folder cannot be made.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--output {output}: exists and is not an empty folder; choose another or remove it first.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output {output}: its folder cannot be made ({error}); choose another.") from error
    partial = Path(tempfile.mkdtemp(prefix=f".partial-{output.name}-", dir=output.parent))
    try:
        yield partial
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o777 & ~umask)
        if output.exists():
            output.rmdir()
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
