"""Estimate what a run would do, take and cost: a dry run of jobs/annotate.py.

It takes the same settings, and writes nothing:

    python jobs/plan.py --input photos/ --output emotions
    python jobs/plan.py --config run.toml --cpus 64 --gpus 4 --dollars-an-hour 6.5

The job lists the input, compares it with the output, and annotates a sample
of the new images here, in this process. From that it estimates, with ranges,
what a cluster of --cpus (by default this machine's) and --gpus would need.
The time on GPUs needs a GPU here.

Exit codes: 0, or 2 if a setting is wrong; each problem found is one line.
"""

import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from pipeline.cli import ConfigFile, Tokens, job_app, run_command, run_with_config
from pipeline.config import AnnotateConfig
from pipeline.logs import set_format

DRY_RUN = Parameter(group=Group("Dry run", sort_key=0))
app = job_app("plan", __doc__)


@app.default
def plan(
    config: Annotated[AnnotateConfig, Parameter(name="*")],
    *,
    sample: Annotated[int, DRY_RUN, Parameter(validator=Number(gte=1), help="New images to annotate as a sample")] = 64,
    dollars_an_hour: Annotated[float | None, DRY_RUN, Parameter(validator=Number(gte=0), help="Price of the cluster per hour")] = None,
    as_json: Annotated[bool, DRY_RUN, Parameter(name="--json", negative="", help="Print the estimate as JSON")] = False,
) -> None:
    set_format(config.log_format)
    from pipeline.estimate.cost import Cluster
    from pipeline.estimate.dry_run import dry_run
    from pipeline.estimate.summary import summary

    found = dry_run(config, sample, Cluster(config.cpus or os.cpu_count() or 1, config.gpus or 0, dollars_an_hour))
    print(json.dumps(found.public(), indent=1) if as_json else summary(found))


@app.meta.default
def main(*tokens: Tokens, config: ConfigFile = None) -> None:
    run_with_config(app, config, tokens)


def run(tokens: Sequence[str] | None = None) -> int:
    """Run the job with these arguments, by default those of the command line, and return its exit code."""
    return run_command(app.meta, "plan", tokens)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    sys.exit(run())
