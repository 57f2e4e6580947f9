"""Log of a job, as text and as JSON."""

import datetime as dt
import json
import logging
import sys
import warnings

import pytest

from pipeline import logs


@pytest.fixture
def log(monkeypatch, capsys, caplog):
    """Start a log on stderr, as a job does, and return a function that returns the text written since its last call."""

    def begin(log_format):
        monkeypatch.setattr(root, "handlers", [logging.StreamHandler(sys.stderr)])  # another stderr than during the set-up of fixtures
        logs.start_log(log_format)
        return lambda: capsys.readouterr().err

    root = logging.getLogger()
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(logs.FORMATTER, "static_fields", {})
    yield begin
    logging.captureWarnings(False)


def lines(text):
    return [json.loads(line) for line in text().splitlines()]


def test_a_line_is_an_object_that_says_when_who_and_what(log):
    text = log("json")
    logging.getLogger("pipeline.run.driver").info("%d of %d\nimages, “é”", 3, 4)
    (line,) = lines(text)
    assert list(line) == ["time", "level", "logger", "message"]
    assert (line["level"], line["logger"], line["message"]) == ("INFO", "pipeline.run.driver", "3 of 4\nimages, “é”")
    said = dt.datetime.fromisoformat(line["time"])
    assert abs(dt.datetime.now(dt.UTC) - said) < dt.timedelta(minutes=1)


def test_the_run_is_named_once_it_is_known(log):
    text = log("json")
    assert logs.run_id() is None
    logging.info("before")
    logs.set_run_id("r-1")
    logging.info("after")
    assert [line.get("run_id") for line in lines(text)] == [None, "r-1"]
    assert logs.run_id() == "r-1"


def test_an_exception_is_one_field(log):
    text = log("json")
    try:
        raise ValueError("no\nsuch thing")
    except ValueError:
        logging.exception("it failed")
    (line,) = lines(text)
    assert line["message"] == "it failed"
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ValueError: no\nsuch thing")


def test_warnings_and_errors_that_nobody_foresaw_are_lines_as_well(log):
    text = log("json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("an old way", stacklevel=1)
    error = KeyError("x")
    sys.excepthook(KeyError, error, None)
    warned, unforeseen = lines(text)
    assert (warned["level"], warned["logger"]) == ("WARNING", "py.warnings")
    assert "an old way" in warned["message"]
    assert (unforeseen["level"], unforeseen["exception"]) == ("CRITICAL", "KeyError: 'x'")


def test_a_complaint_is_a_line_of_text_or_of_the_log(log):
    text = log("text")
    logs.log_failure("annotate", "there is no model 'x'")
    assert text() == "annotate: there is no model 'x'\n"
    text = log("json")
    logs.log_failure("annotate", "there is no model 'x'")
    (line,) = lines(text)
    assert (line["level"], line["logger"], line["message"]) == ("ERROR", "annotate", "there is no model 'x'")


def test_text_is_as_it_was(log):
    text = log("text")
    logging.info("hello")
    assert text() == "hello\n"
