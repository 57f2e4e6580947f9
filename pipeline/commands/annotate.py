"""Annotate a corpus of images with the emotions they evoke.

Every setting is a flag, or a key of the TOML file given as --config; a flag
wins. docs/reference.md lists the settings with their limits.

Exit codes: 0 the run is committed, 1 it failed, 2 a setting is wrong and
nothing was started, 143 it was stopped (SIGTERM; 130 on SIGINT). The same
command with --run-id, or with --resume, resumes a run.
"""

import logging
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

from cyclopts import Parameter

from pipeline.cli import ConfigFile, command_app
from pipeline.config import AnnotateConfig
from pipeline.logs import log_failure, start_log

EXAMPLE = """\
ugrie annotate --input photos/ --output emotions
ray job submit --working-dir . -- python jobs/annotate.py --input … --output …"""
app = command_app("annotate", __doc__, EXAMPLE)


@app.default
def annotate(settings: Annotated[AnnotateConfig, Parameter(name="*")], *, config: ConfigFile = None) -> None:
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    start_log(settings.log_format)
    from pipeline.errors import RunError
    from pipeline.run.driver import annotate
    from pipeline.run.hooks import success_payload, with_hooks
    from pipeline.run.summary import summary

    try:
        record = with_hooks(settings, annotate)
    except RunError as error:
        log_failure("annotate", str(error))
        sys.exit(1)
    if settings.log_format == "json":
        payload = success_payload(settings, record)
        logging.getLogger("annotate").info(payload.pop("message"), extra=payload)
    else:
        print(summary(record, settings.output))


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Exit at once on SIGTERM and Ctrl-C: a spot machine or a scheduler may not wait for the blocks in flight. Written blocks stay.

    Further signals are ignored: while Ray ends, another would end the process in the midst of it.
    """
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
