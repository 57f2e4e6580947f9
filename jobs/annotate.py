"""Annotate a corpus of images with the emotions they evoke.

On this machine, or on a Ray cluster:

    python jobs/annotate.py --input photos/ --output emotions
    ray job submit --working-dir . -- python jobs/annotate.py --input … --output …

Every setting is a flag, or a key of the TOML file given as --config; a flag
wins. docs/reference.md lists the settings with their limits.

Exit codes: 0 the run is committed, 1 it failed, 2 a setting is wrong and
nothing was started, 143 it was stopped (SIGTERM; 130 on SIGINT). The same
command with --run-id, or with --resume, resumes a run.
"""

import logging
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, NoReturn

from cyclopts import Parameter

from pipeline.cli import ConfigFile, Tokens, job_app, run_command, run_with_config
from pipeline.config import AnnotateConfig
from pipeline.logs import log_failure, set_format

app = job_app("annotate", __doc__)


@app.default
def annotate(config: Annotated[AnnotateConfig, Parameter(name="*")]) -> None:
    set_format(config.log_format)
    from pipeline.errors import RunError
    from pipeline.run.driver import annotate
    from pipeline.run.hooks import success_payload, with_hooks
    from pipeline.run.summary import summary

    try:
        record = with_hooks(config, annotate)
    except RunError as error:
        log_failure("annotate", str(error))
        sys.exit(1)
    if config.log_format == "json":
        payload = success_payload(config, record)
        logging.getLogger("annotate").info(payload.pop("message"), extra=payload)
    else:
        print(summary(record, config.output))


@app.meta.default
def main(*tokens: Tokens, config: ConfigFile = None) -> None:
    run_with_config(app, config, tokens)


def run(tokens: Sequence[str] | None = None) -> int:
    """Run the job with these arguments, by default those of the command line, and return its exit code."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    return run_command(app.meta, "annotate", tokens)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Exit at once on SIGTERM and Ctrl-C: a spot machine or a scheduler may not wait for the blocks in flight. Written blocks stay.

    Further signals are ignored: while Ray ends, another would end the process in the midst of it.
    """
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    sys.exit(run())
