"""Annotates a corpus of images with the emotions they evoke.

    python jobs/annotate.py --input s3://bucket/images/ --output s3://bucket/emotions
    ray job submit --working-dir . -- python jobs/annotate.py --input … --output …

Every setting is a flag, or a key of the TOML file given as --config (a flag wins). The exit code is 0 when the run is
committed, 2 when a setting is wrong (nothing was started then), 1 when it failed, 143 when it was told to stop (SIGTERM, 130 on
SIGINT). The same command with --run-id, or with --resume, goes on where it stopped.
"""

import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

from cyclopts import App, Parameter

from pipeline.cli import run_command, with_config
from pipeline.config import AnnotateConfig
from pipeline.logs import complain, write_as

app = App(name="annotate", help=__doc__, help_format="plaintext", version_flags=[], result_action="return_value")


@app.default
def annotate(config: Annotated[AnnotateConfig, Parameter(name="*")]) -> None:
    write_as(config.log_format)
    from pipeline.errors import RunError
    from pipeline.run.driver import annotate
    from pipeline.run.hooks import success, with_hooks
    from pipeline.run.summary import summary

    try:
        record = with_hooks(config, annotate)
    except RunError as error:
        complain("annotate", str(error))
        sys.exit(1)
    if config.log_format == "json":
        about = success(config, record)
        logging.getLogger("annotate").info(about.pop("message"), extra=about)
    else:
        print(summary(record, config.output))


@app.meta.default
def main(*tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)], config: Path | None = None) -> None:
    with_config(app, config, tokens)


def run(tokens: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, those of the command line by default. Returns the exit code."""
    signal.signal(signal.SIGTERM, _stop)
    return run_command(app, "annotate", tokens)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """A spot machine's warning, or the scheduler's. What is written stays; waiting for the blocks in flight could take too long."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    sys.exit(run())
