"""Tests of what a user sees of a mistake."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys

import pytest

from mixstyleflow_monai import bundle_errors


def chained(first: Exception) -> RuntimeError:
    error = RuntimeError("Failed to instantiate component")
    error.__cause__ = RuntimeError("Failed to evaluate expression")
    error.__cause__.__cause__ = first
    return error


def test_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    error = chained(ValueError("image_size=[40, 40]: use [48, 48]."))
    bundle_errors.show(RuntimeError, error, None)
    assert capsys.readouterr().err == "error: image_size=[40, 40]: use [48, 48].\n"


def test_our_message_is_shown_and_not_the_library_error_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    ours = ValueError("dataset.json: not valid JSON. Write it again.")
    ours.__cause__ = ValueError("Expecting property name: line 2 column 1")
    bundle_errors.show(RuntimeError, chained(ours), None)
    assert capsys.readouterr().err == "error: dataset.json: not valid JSON. Write it again.\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "error: a.pt: .*space.* Make room, and run the same command again: it goes on"),
        (errno.EACCES, "error: a.pt: Permission denied. Check that"),
        (errno.EMFILE, "OSError: .*Too many open files"),
        (errno.ENOMEM, "OSError: .*Cannot allocate memory"),
    ],
)
def test_only_what_a_user_can_mend_of_the_operating_system_is_one_line(
    code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = chained(OSError(code, os.strerror(code), "a.pt"))
    bundle_errors.show(RuntimeError, error, None)
    assert re.search(said, capsys.readouterr().err)


def test_a_full_disk_is_told_where_a_library_raised_another_error_over_it(capsys: pytest.CaptureFixture[str]) -> None:
    error = RuntimeError("unexpected pos 64 vs 0")
    error.__context__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.pt")
    bundle_errors.show(RuntimeError, chained(error), None)
    assert capsys.readouterr().err.startswith("error: a.pt: ")
    error.__suppress_context__ = True
    bundle_errors.show(RuntimeError, chained(error), None)
    assert "unexpected pos" in capsys.readouterr().err
    error.__context__ = ValueError("a mistake that was dealt with")
    error.__suppress_context__ = False
    bundle_errors.show(RuntimeError, chained(error), None)
    assert "unexpected pos" in capsys.readouterr().err


def test_any_other_error_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    bundle_errors.show(RuntimeError, chained(ZeroDivisionError("a bug")), None)
    text = capsys.readouterr().err
    assert "ZeroDivisionError: a bug" in text
    assert "Failed to instantiate component" in text


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("/env/lib/python3.11/site-packages/monai/bundle/__main__.py", True),
        ("/env/lib/python3.11/site-packages/pytest/__main__.py", False),
        ("monai/bundle", False),
    ],
)
def test_only_a_bundle_process_is_changed(program: str, expected: bool) -> None:
    assert bundle_errors.is_bundle_process(program) is expected
    assert sys.excepthook is not bundle_errors.show


@pytest.mark.parametrize(
    ("error", "is_short"), [(ValueError("rate"), True), (chained(ValueError("rate")), True), (KeyError("bug"), False)]
)
def test_records_of_one_kind_of_error_have_no_traceback(
    error: Exception, is_short: bool, caplog: pytest.LogCaptureFixture
) -> None:
    before = logging.getLogRecordFactory()
    is_mistake = bundle_errors.is_mistake
    factory = bundle_errors.record_factory(lambda raised: is_mistake(bundle_errors.root_cause(raised)))
    logging.setLogRecordFactory(factory)
    try:
        try:
            raise error
        except Exception:
            logging.getLogger("engine").exception("Engine run is terminating")
    finally:
        logging.setLogRecordFactory(before)
    assert (caplog.records[-1].exc_info is None) == is_short
