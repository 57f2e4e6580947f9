"""A job's log on stderr: lines of text, or JSON, an object a line, for what collects and searches logs."""

import logging
import sys
from types import TracebackType
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

LogFormat = Literal["text", "json"]

FORMATTER = JsonFormatter(
    ["levelname", "name", "message"],
    defaults={"time": None},  # so that it comes first
    timestamp="time",
    rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception", "stack_info": "stack"},
    json_ensure_ascii=False,
)


def write_as(log_format: LogFormat) -> None:
    """Sets the form of the log's lines, from here on: those of warnings and of errors that nobody foresaw, too."""
    if log_format == "json":
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
                handler.setFormatter(FORMATTER)
        logging.captureWarnings(True)
        sys.excepthook = _unforeseen


def name_run(run_id: str) -> None:
    """Says which run this process is at. JSON lines have it as `run_id` from here on."""
    FORMATTER.static_fields["run_id"] = run_id


def run_id() -> str | None:
    """The run that this process is at, once it is known."""
    return FORMATTER.static_fields.get("run_id")


def complain(job: str, problem: str) -> None:
    """Says, on a line, why a job ends without having done what it was asked for."""
    if any(handler.formatter is FORMATTER for handler in logging.getLogger().handlers):
        logging.getLogger(job).error(problem)
    else:
        print(f"{job}: {problem}", file=sys.stderr)


def _unforeseen(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("ugrie").critical("an error that was not foreseen: %r", error, exc_info=(kind, error, trace))
