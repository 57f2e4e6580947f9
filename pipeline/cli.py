"""Command line of `ugrie`: settings from flags and from a TOML file, errors as one line each, exit codes."""

import json
import os
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, ArgumentCollection, CycloptsError, Group, Parameter
from cyclopts.config import Toml
from pydantic import ValidationError

from pipeline.config import OPERATIONS, AnnotateConfig
from pipeline.errors import StorageError, UserError
from pipeline.logs import log_failure
from pipeline.storage.uris import public_message
from ugrie.errors import GivenError
from ugrie.text import one_line

EXIT_CODES = {
    0: "the run is committed, or nothing was new",
    1: "the run failed, or too many of its new images did (`--max-failed-ratio`), or all of them; the same `--run-id` resumes it",
    2: "a setting, the input or the output is wrong; nothing was started",
    130: "the run was interrupted (SIGINT); the same `--run-id` resumes it",
    143: "the run was stopped (SIGTERM); the same `--run-id` resumes it",
}

HELP = Group("Help", sort_key=9)  # after the groups of settings
ConfigFile = Annotated[Path | None, OPERATIONS, Parameter(help="TOML file with settings; a flag wins over it")]


def command_app(name: str, doc: str | None, example: str) -> App:
    """Return the app of a subcommand. Its help is the docstring of its module, the settings, and an example of two lines."""
    return App(
        name=name,
        help=doc,
        help_epilogue=f"Example:\n{example}",
        help_format="plaintext",
        default_parameter=Parameter(negative_iterable=()),  # no --empty-schemes: a list is emptied by --schemes ''
        group_commands=HELP,
        config=_read_config,
        version_flags=[],
        result_action="return_value",
    )


def _read_config(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take the settings of the TOML file that `--config` names; flags win over it. Raises UserError and CycloptsError."""
    for argument in arguments:
        if "--config" in argument.names and argument.tokens:
            Toml(_checked(Path(argument.tokens[-1].value)))(app, (), arguments)


def run_command(app: App, name: str, tokens: Sequence[str]) -> int:
    """Run a command with these arguments and return its exit code.

    The code is 2 where a setting is wrong and 1 where the storage failed; each problem is logged as one line. Cyclopts ends an
    interrupted command with 130.
    """
    open_standard_streams()
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except StorageError as error:
        log_failure(name, public_message(error, {}))
        return 1
    except (CycloptsError, GivenError, ExceptionGroup) as error:
        for each in error.exceptions if isinstance(error, ExceptionGroup) else (error,):
            for problem in problems(each):
                log_failure(name, problem)
        return 2
    return 0


def open_standard_streams() -> None:
    """Open /dev/null for each of stdin, stdout and stderr that is closed: the next file or socket would get its number, and its output."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  (it stays open)


def problems(error: Exception) -> Iterator[str]:
    """Yield a line for each wrong setting: the flag, its value, and what it should be. Storage options are secret: no value is shown."""
    if isinstance(error.__cause__, ValidationError):
        for detail in error.__cause__.errors():
            name = str(detail["loc"][0])
            missing = detail["type"] == "missing"
            value = "" if missing or name == "storage_options" else f" {detail['input']!r}"
            message = "must be given" if missing else detail["msg"].removeprefix("Input ")
            description = AnnotateConfig.model_fields[name].description
            yield one_line(f"--{name.replace('_', '-')}{value}: {message} ({description})")
    elif isinstance(error.__cause__, json.JSONDecodeError):
        yield f"--storage-options: not a JSON object: {error.__cause__.msg} at character {error.__cause__.pos + 1}"
    else:
        if isinstance(error, CycloptsError):
            error.command_chain = ()  # the line begins with the command's name
        yield public_message(error, {})


def storage_options(text: str) -> dict[str, Any]:
    """Parse the value of `--storage-options`. Raises UserError, which does not show the value: it may be secret."""
    try:
        options = json.loads(text)
    except (ValueError, RecursionError):
        options = None
    if not isinstance(options, dict):
        raise UserError("--storage-options: not a JSON object")
    return options


def _checked(config: Path) -> Path:
    try:
        settings = tomllib.loads(config.read_text())
        for value in settings.values():
            if isinstance(value, list | dict):
                json.dumps(value)  # cyclopts does the same, and has no message for a date inside
    except OSError as error:
        raise UserError(f"--config {config} can't be read: {error.strerror}") from None
    except TypeError as error:
        raise UserError(f"--config {config} can't be used: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"--config {config} is not valid TOML: {error}") from None
    if "config" in settings:
        raise UserError(f"--config {config} can't name another file: leave out `config`")
    return config
