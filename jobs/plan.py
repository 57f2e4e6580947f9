"""Says what a night would do, take and cost, and does nothing: a dry run of jobs/annotate.py, with the same settings.

    python jobs/plan.py --input s3://bucket/images/ --output s3://bucket/emotions --cpus 64 --gpus 4 --dollars-an-hour 6.5

It lists the input, compares it with what the output holds, annotates a sample of the new images here, in this process, and says from
that what a cluster of --cpus (by default this machine's) and --gpus would take, with ranges. The time on GPUs needs a GPU here. Nothing is
written. The exit code is 0, or 2 where a setting is wrong: every problem that is found is a line.
"""

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from pipeline.cli import run_command, with_config
from pipeline.config import AnnotateConfig
from pipeline.logs import write_as

app = App(name="plan", help=__doc__, help_format="plaintext", version_flags=[], result_action="return_value")


@app.default
def plan(
    config: Annotated[AnnotateConfig, Parameter(name="*")],
    *,
    sample: Annotated[int, Parameter(validator=Number(gte=1), help="New images that are annotated for real")] = 64,
    dollars_an_hour: Annotated[float | None, Parameter(validator=Number(gte=0), help="What the cluster costs an hour")] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="Print all of it as JSON")] = False,
) -> None:
    write_as(config.log_format)
    from pipeline.estimate.cost import Cluster
    from pipeline.estimate.dry_run import page, prospect

    found = prospect(config, sample, Cluster(config.cpus or os.cpu_count() or 1, config.gpus or 0, dollars_an_hour))
    print(json.dumps(found.public(), indent=1) if as_json else page(found))


@app.meta.default
def main(*tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)], config: Path | None = None) -> None:
    with_config(app, config, tokens)


def run(tokens: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, those of the command line by default. Returns the exit code."""
    return run_command(app, "plan", tokens)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    sys.exit(run())
