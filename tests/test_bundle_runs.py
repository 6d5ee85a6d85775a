"""Running bundles: what is logged when a training is stopped, and options that are nothing."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from mixstyleflow_monai.bundle_runs import is_evaluated, run_bundle, short_interrupts


@pytest.mark.parametrize(
    ("error", "is_short"),
    [(KeyboardInterrupt(), True), (SystemExit(143), True), (ValueError(), True), (TypeError(), False)],
)
def test_only_stops_and_mistakes_are_logged_without_a_traceback(
    error: BaseException, is_short: bool, caplog: pytest.LogCaptureFixture
) -> None:
    before = logging.getLogRecordFactory()
    with short_interrupts():
        try:
            raise error
        except BaseException:
            logging.getLogger("of MONAI").exception("stopped")
    (record,) = caplog.records
    assert (record.exc_info is None) == is_short
    assert logging.getLogRecordFactory() is before


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_evaluation_is_made_anew(content: str, tmp_path: Path) -> None:
    for name, text in (("evaluation.json", content), ("evaluation.csv", ""), ("model.pt", "")):
        (tmp_path / name).write_text(text)
    assert not is_evaluated(tmp_path, tmp_path / "model.pt", "abc")


def test_none_switches_off_what_the_configuration_has(tmp_path: Path) -> None:
    """MONAI alone passes over an option that is None, and the configuration's own value would stay."""
    out = tmp_path / "seen.json"
    lines = ["$import json", "$import pathlib"]
    write = f"$pathlib.Path({str(out)!r}).write_text(json.dumps(@facts))"
    config = {"imports": lines, "bound": 2.0, "facts": {"bound": "@bound"}, "run": [write]}
    for name, content in (("train", config), ("metadata", {"version": "0"})):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "logging.conf").write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=\n[formatters]\nkeys=\n[logger_root]\nhandlers=\n"
    )
    for given in (3.0, None):
        run_bundle([str(tmp_path / "train.json")], {"bound": given})
        assert json.loads(out.read_text()) == {"bound": given}
