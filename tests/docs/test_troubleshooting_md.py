"""docs/troubleshooting.md: the messages that it explains are those of the code, and its options exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
OF_OTHERS = {"No module named", "CUDA out of memory", "run ID"}
MESSAGES = sorted(set(re.findall(r"^\| `([^`]+)`", TEXT, flags=re.MULTILINE)) - OF_OTHERS)


def source() -> str:
    """Return the source of both packages, with the pieces of strings that go over several lines put together."""
    files = [path for name in ("mixstyleflow_monai", "data_prep") for path in sorted((ROOT / name).rglob("*.py"))]
    return re.sub(r'"\s+f?"', "", "\n".join(path.read_text(encoding="utf-8") for path in files))


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_one_of_the_code(message: str) -> None:
    # Numbers in a message are computed.
    assert re.search(re.sub(r"\b0\b", r"\\{\\w+\\}", re.escape(message)), source()), message


def test_there_are_messages() -> None:
    assert len(MESSAGES) >= 10


def test_options_exist() -> None:
    known = {"output_dir", "baseline", "overlay", "version", "input"}
    for path in (ROOT / "bundles").glob("*/configs/train.json"):
        known |= json.loads(path.read_text(encoding="utf-8")).keys()
    named = set(re.findall(r"--(\w+)", TEXT))
    assert len(named) > 8
    assert named <= known
