"""Formats a dry run as text for the terminal."""

from collections.abc import Callable

from pipeline.errors import STATUSES
from pipeline.estimate.cost import Cluster, CostEstimate, Range, mean_of
from pipeline.estimate.dry_run import DryRun
from pipeline.estimate.profile import Profile
from pipeline.estimate.scan import InputScan
from pipeline.inputs.file_listing import left_out_text
from pipeline.text import duration

MAX_FAILURES = 5


def summary(dry_run: DryRun) -> str:
    """Return the dry run as lines of text, without secrets."""
    settings, scan = dry_run.config.public(), dry_run.scan
    zero_shot = dry_run.tables.zero_shot
    schemes = ", ".join(scheme.name + " (zero-shot)" * (scheme.name in zero_shot) for scheme in dry_run.tables.schemes)
    lines = [f"{settings['input']} -> {settings['output']}, by {dry_run.tables.model}: {schemes}", ""]
    retried = f", {scan.retried:,} failed before and are retried" if scan.retried else ""
    counted = "rows" if scan.kept else "images"
    lines.append(
        f"{scan.listed:,} {counted} are listed; {scan.known:,} were annotated before{retried}, {scan.new - scan.retried:,} are new"
    )
    if scan.suppressed:
        lines.append(f"{scan.suppressed:,} more are on the list of --suppress, and would get no row")
    if scan.kept:
        lines.append(f"kept from the input: {', '.join(f'{name} {kind}' for name, kind in scan.kept.items())}")
    if scan.left_out:
        lines.append(f"left out of the input: {left_out_text(scan.left_out)}")
    if dry_run.profile is None or dry_run.cost is None:
        return "\n".join([*lines, "a run would write no rows"])
    return "\n".join([*lines, *_duplicates(scan), "", *_sample(dry_run.profile), "", *_estimate(dry_run.cost, dry_run.cluster)])


def _duplicates(scan: InputScan) -> list[str]:
    lines = []
    if scan.copies is not None:
        lines.append(f"  {scan.copies:,} of them are duplicates by their ETags: they are fetched, but not annotated again")
    if scan.repost_share is not None:
        lines.append(f"  {scan.repost_share:.1%} of the last runs' rows were duplicates")
    return lines


def _sample(profile: Profile) -> list[str]:
    images = sum(profile.status.values())
    lines = [f"random sample of {images} new images, annotated on this machine ({profile.device}, {profile.cores} cores):"]
    lines += [f"  {status:<16}{count:>4}  {STATUSES[status]}" for status, count in profile.status.items()]
    lines += [f"    {failure}" for failure in profile.failures[:MAX_FAILURES]]
    device = "GPU" if profile.device == "cuda" else "whole machine"
    fetch, decode, annotate = (1000 * seconds for seconds in (profile.fetch_core, mean_of(profile.decode).likely, profile.annotate))
    return [*lines, f"  ms per image: fetch {fetch:.1f} and decode {decode:.1f} on one core, annotate {annotate:.1f} on the {device}"]


def _estimate(cost: CostEstimate, cluster: Cluster) -> list[str]:
    gpus = f" and {cluster.gpus} GPUs" if cluster.gpus else ""
    lines = [f"estimate for {cluster.cpus} CPUs{gpus}, likely (least to most):"]
    if cost.seconds is None:
        machine = "a GPU" if cluster.gpus else "no GPU"
        lines.append(f"  time      not known: run `ugrie plan` on a machine with {machine}, as the cluster has")
    else:
        lines.append(f"  time      {_range(cost.seconds, duration)}; limited by {cost.limited_by}")
        if cost.cpus_missing:
            lines.append(f"            the GPUs would wait for images: {cost.cpus_missing:,} more CPUs would keep them busy")
    lines.append(f"  read      {_range(cost.bytes, _bytes)}")
    lines.append(f"  requests  {_range(cost.requests, lambda value: f'{value:,.0f}')}")
    lines.append(f"            which cost {_range(cost.request_dollars, _dollars)} in S3")
    if cost.dollars is not None:
        lines.append(f"  machines  {_range(cost.dollars, _dollars)}")
    return lines


def _range(values: Range, text: Callable[[float], str]) -> str:
    least, likely, most = map(text, values)
    return likely if least == most else f"{likely} ({least} to {most})"


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB" if value < 999.5 else f"{value:,.0f} TB"


def _dollars(value: float) -> str:
    return f"${value:,.2f}"
