"""Estimate what a run would do, take and cost: a dry run of `ugrie annotate`.

It takes the same settings, and writes nothing. It lists the input, compares it
with the output, and annotates a sample of the new images here, in this
process. From that it estimates, with ranges, what a cluster of --cpus (by
default this machine's) and --gpus would need. The time on GPUs needs a GPU
here.

Exit codes: 0, or 2 if a setting is wrong; each problem found is one line.
"""

import json
import os
from typing import Annotated

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from pipeline.cli import ConfigFile, command_app
from pipeline.config import AnnotateConfig
from pipeline.logs import start_log

DRY_RUN = Parameter(group=Group("Dry run", sort_key=0))
EXAMPLE = """\
ugrie plan --input photos/ --output emotions
ugrie plan --config run.toml --cpus 64 --gpus 4 --dollars-an-hour 6.5"""
app = command_app("plan", __doc__, EXAMPLE)


@app.default
def plan(
    settings: Annotated[AnnotateConfig, Parameter(name="*")],
    *,
    sample: Annotated[int, DRY_RUN, Parameter(validator=Number(gte=1), help="New images to annotate as a sample")] = 64,
    dollars_an_hour: Annotated[float | None, DRY_RUN, Parameter(validator=Number(gte=0), help="Price of the cluster per hour")] = None,
    as_json: Annotated[bool, DRY_RUN, Parameter(name="--json", negative="", help="Print the estimate as JSON")] = False,
    config: ConfigFile = None,
) -> None:
    start_log(settings.log_format)
    from pipeline.estimate.cost import Cluster
    from pipeline.estimate.dry_run import dry_run
    from pipeline.estimate.summary import summary

    found = dry_run(settings, sample, Cluster(settings.cpus or os.cpu_count() or 1, settings.gpus or 0, dollars_an_hour))
    print(json.dumps(found.public(), indent=1) if as_json else summary(found))
