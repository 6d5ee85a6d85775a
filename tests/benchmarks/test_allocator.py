"""Test of the comparison of two ways to keep memory."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from benchmarks import allocator
from benchmarks.allocator import KEEP, main


def test_both_ways_compute_the_same_whatever_the_shell_has_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environments: list[dict[str, str]] = []
    real = subprocess.run

    def run(command: list[str], **options: Any) -> Any:
        environments.append(options["env"])
        return real(command, **options)

    monkeypatch.setattr(allocator.subprocess, "run", run)
    for name, value in KEEP.items():
        monkeypatch.setenv(name, value)
    main(rounds=1, steps=1, size=32, batch_size=4, amp=False)
    printed = capsys.readouterr().out
    assert "True" in printed
    assert "median ratio" in printed
    assert [KEEP.items() <= environment.items() for environment in environments] == [False, True]
    assert not set(KEEP) & set(environments[0])
