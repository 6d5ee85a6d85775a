"""Running bundles: what is logged when a training is stopped."""

from __future__ import annotations

import logging

import pytest

from mixstyleflow_monai.bundle_runs import short_interrupts


@pytest.mark.parametrize(
    ("error", "is_short"), [(KeyboardInterrupt(), True), (SystemExit(143), True), (ValueError(), False)]
)
def test_only_being_stopped_is_logged_without_a_traceback(
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
