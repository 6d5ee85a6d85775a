"""Test of the comparison of two ways to keep memory."""

from __future__ import annotations

import pytest

from benchmarks.allocator import main


def test_both_ways_compute_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    main(rounds=1, steps=1, size=32, batch_size=4, amp=False)
    printed = capsys.readouterr().out
    assert "True" in printed
    assert "median ratio" in printed
