"""The log of a job on stderr: lines of text, or JSON objects, one per line, for log collectors."""

import logging
import sys
from types import TracebackType
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

LogFormat = Literal["text", "json"]

FORMATTER = JsonFormatter(
    ["levelname", "name", "message"],
    defaults={"time": None},  # makes it the first key
    timestamp="time",
    rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception", "stack_info": "stack"},
    json_ensure_ascii=False,
)


def start_log(log_format: LogFormat = "text", line: str = "%(asctime)s %(message)s") -> None:
    """Log to stderr in this format, also warnings and uncaught exceptions. `line` is the format of a line of text."""
    logging.basicConfig(level=logging.INFO, format=line, datefmt="%H:%M:%S")
    for client in ("httpx", "httpx2", "pyiceberg"):  # a line for each of Hugging Face's requests, and of what pyiceberg opens
        logging.getLogger(client).setLevel(logging.WARNING)
    if log_format == "json":
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
                handler.setFormatter(FORMATTER)
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught


def set_run_id(run_id: str) -> None:
    """Set the run that this process works on: all further JSON lines have it as `run_id`."""
    FORMATTER.static_fields["run_id"] = run_id


def run_id() -> str | None:
    """Return the run that this process works on, or None before `set_run_id`."""
    return FORMATTER.static_fields.get("run_id")


def log_failure(job: str, problem: str) -> None:
    """Write one line with the reason why a job ends without success."""
    if any(handler.formatter is FORMATTER for handler in logging.getLogger().handlers):
        logging.getLogger(job).error(problem)
    else:
        print(f"{job}: {problem}", file=sys.stderr)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("ugrie").critical("unexpected error: %r", error, exc_info=(kind, error, trace))
