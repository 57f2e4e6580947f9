"""The command line of a job whose settings are an `AnnotateConfig`: flags, a TOML file as --config, and what is wrong, a line each."""

import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from cyclopts import App, CycloptsError
from cyclopts.config import Toml
from pydantic import ValidationError

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.logs import complain
from ugrie.text import one_line

EXIT_CODES = {
    0: "the run is committed, or there was nothing new",
    1: "it failed, or too much of it did (`--max-failed-ratio`); the same `--run-id` goes on",
    2: "a setting, the input or the output is wrong: nothing was begun",
    130: "interrupted (SIGINT); the same `--run-id` goes on",
    143: "told to stop (SIGTERM); the same `--run-id` goes on",
}


def with_config(app: App, config: Path | None, tokens: Sequence[str]) -> None:
    """Runs an app with what its file of settings says, where a flag does not say otherwise. Raises UserError and CycloptsError."""
    if config is not None:
        app.config = (Toml(_checked(config)),)
    app(tokens, exit_on_error=False, print_error=False)


def run_command(app: App, name: str, tokens: Sequence[str] | None = None) -> int:
    """Runs a job with these arguments, those of the command line by default. Returns the exit code: 2 where a setting is wrong.

    An interruption ends it with 130: cyclopts does that.
    """
    app.config = ()
    try:
        app.meta(tokens, exit_on_error=False, print_error=False)
    except (CycloptsError, UserError, ExceptionGroup) as error:
        for each in error.exceptions if isinstance(error, ExceptionGroup) else (error,):
            for problem in problems(each):
                complain(name, problem)
        return 2
    return 0


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
