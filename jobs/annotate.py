"""Annotates a corpus of images with the emotions they evoke.

    python jobs/annotate.py --input s3://bucket/images/ --output s3://bucket/emotions
    ray job submit --working-dir . -- python jobs/annotate.py --input … --output …

Every setting is a flag, or a key of the TOML file given as --config (a flag wins). The exit code is 0 when the run is
committed, 2 when a setting is wrong (nothing was started then), 1 when it failed, 143 when it was told to stop (SIGTERM, 130 on
SIGINT). The same command with --run-id, or with --resume, goes on where it stopped.
"""

import json
import logging
import signal
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Toml
from pydantic import ValidationError

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from ugrie.errors import one_line

app = App(name="annotate", help=__doc__, help_format="plaintext", version_flags=[], result_action="return_value")


@app.default
def annotate(config: Annotated[AnnotateConfig, Parameter(name="*")]) -> None:
    from pipeline.run import RunError, annotate
    from pipeline.summary import summary

    try:
        record = annotate(config)
    except RunError as error:
        sys.exit(f"annotate: {error}")
    print(summary(record, config.output))


@app.meta.default
def main(*tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)], config: Path | None = None) -> None:
    if config is not None:
        app.config = (Toml(_checked(config)),)
    app(tokens, exit_on_error=False, print_error=False)


def run(tokens: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, those of the command line by default. Returns the exit code."""
    app.config = ()
    signal.signal(signal.SIGTERM, _stop)
    try:
        app.meta(tokens, exit_on_error=False, print_error=False)
    except (CycloptsError, UserError) as error:
        for problem in problems(error):
            print(f"annotate: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """A spot machine's warning, or the scheduler's. What is written stays; waiting for the blocks in flight could take too long."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + number)


def problems(error: Exception) -> Iterator[str]:
    """What is wrong, a line each: the flag, its value, and what it should be. Storage options are secret: their value is not shown."""
    if isinstance(error.__cause__, ValidationError):
        for detail in error.__cause__.errors():
            name = str(detail["loc"][0])
            missing = detail["type"] == "missing"
            value = "" if missing or name == "storage_options" else f" {detail['input']!r}"
            message = "must be given" if missing else detail["msg"].removeprefix("Input ")
            about = AnnotateConfig.model_fields[name].description
            yield one_line(f"--{name.replace('_', '-')}{value}: {message} ({about})")
    elif isinstance(error.__cause__, json.JSONDecodeError):
        yield f"--storage-options: no JSON object: {error.__cause__.msg} at character {error.__cause__.pos + 1}"
    else:
        yield one_line(str(error))


def _checked(config: Path) -> Path:
    try:
        for value in tomllib.loads(config.read_text()).values():
            if isinstance(value, list | dict):
                json.dumps(value)  # as cyclopts does, which has no message for a date in it
    except OSError as error:
        raise UserError(f"--config {config} can't be read: {error.strerror}") from None
    except TypeError as error:
        raise UserError(f"--config {config} can't be used: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"--config {config} is not valid TOML: {error}") from None
    return config


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    sys.exit(run())
