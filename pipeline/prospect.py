"""What a night would be, as data and as a page of text: every problem of the settings, or survey, trial and forecast."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pipeline.config import AnnotateConfig
from pipeline.errors import STATUSES, UserError
from pipeline.forecast import Cluster, Forecast, Range, forecast, mean_of
from pipeline.history import past_runs
from pipeline.plan import tables_of
from pipeline.progress import duration
from pipeline.source import items
from pipeline.storage import connect
from pipeline.survey import Survey, survey
from pipeline.trial import Trial, try_out

MOST_FAILURES = 5  # that the page shows


def prospect(config: AnnotateConfig, sample: int, cluster: Cluster) -> dict[str, Any]:
    """What a night with these settings would do. Raises an ExceptionGroup of UserErrors, one for every setting that is wrong."""
    check(config)
    tables = tables_of(config)
    found = survey(config, tables, sample)
    about: dict[str, Any] = {
        "input": config.public()["input"],
        "output": config.public()["output"],
        "model": tables.model,
        "schemes": [scheme.name for scheme in tables.schemes],
        "cluster": asdict(cluster),
        "survey": {name: value for name, value in asdict(found).items() if name != "sample"},
    }
    if not found.new:
        return about
    trial = try_out(config, tables, found.sample)
    return about | {"trial": _public(trial), "forecast": forecast(found, trial, cluster, config.block_rows).public()}


def check(config: AnnotateConfig) -> None:
    """Looks at model, input and output, each by itself. Raises an ExceptionGroup of UserErrors."""

    def output() -> None:
        fs, root = connect(config.output, config.storage_options)
        past_runs(fs, root.rstrip("/"), "")

    checks: list[Callable[[], Any]] = [
        lambda: tables_of(config),
        lambda: next(items(config.input, config.column, config.storage_options)),
        output,
    ]
    problems = []
    for look in checks:
        try:
            look()
        except UserError as error:
            problems.append(error)
    if problems:
        raise ExceptionGroup("settings are wrong", problems)


def _public(trial: Trial) -> dict[str, Any]:
    return {
        "status": trial.status,
        "failures": trial.failures,
        "bytes_an_image": asdict(mean_of(trial.bytes)),
        "milliseconds_an_image": {
            "fetch_core": 1000 * trial.fetch_core,
            "fetch_wait": 1000 * trial.fetch_wait,
            "decode_core": {name: 1000 * value for name, value in asdict(mean_of(trial.decode)).items()},
            "annotate_device": 1000 * trial.annotate,
        },
        "device": trial.device,
        "cores": trial.cores,
        "batch_size": trial.batch_size,
    }


def page(found: dict[str, Any]) -> str:
    """As text for the terminal."""
    about = Survey(**found["survey"], sample=[])
    lines = [f"{found['input']} -> {found['output']}, by {found['model']}: {', '.join(found['schemes'])}", ""]
    lines.append(f"{about.listed:,} images are listed; {about.known:,} were annotated before, {about.new:,} are new")
    if not about.new:
        return "\n".join([*lines, "a night would commit a run of no rows"])
    lines += _copies(about)
    trial, to_come = found["trial"], found["forecast"]
    tried = sum(trial["status"].values())
    lines += ["", f"of {tried} new images, drawn at random and annotated here ({trial['device']}, {trial['cores']} cores):"]
    lines += [f"  {status:<16}{count:>4}  {STATUSES[status]}" for status, count in trial["status"].items()]
    lines += [f"    {failure}" for failure in trial["failures"][:MOST_FAILURES]]
    took = trial["milliseconds_an_image"]
    lines.append(
        f"  ms an image: {took['fetch_core']:.1f} of a core to fetch, {took['decode_core']['likely']:.1f} to decode, "
        f"{took['annotate_device']:.1f} on the {'GPU' if trial['device'] == 'cuda' else 'whole machine'} to annotate"
    )
    return "\n".join([*lines, "", *_to_come(to_come, found["cluster"])])


def _copies(about: Survey) -> list[str]:
    lines = []
    if about.copies is not None:
        lines.append(f"  {about.copies:,} of them have another's bytes, as their ETags say: they are fetched, and not annotated again")
    if about.repost_share is not None:
        lines.append(f"  {about.repost_share:.1%} of the last nights' rows were copies")
    return lines


def _to_come(to_come: dict[str, Any], cluster: dict[str, Any]) -> list[str]:
    about = Forecast(**{name: Range(**value) if isinstance(value, dict) else value for name, value in to_come.items()})
    gpus = f" and {cluster['gpus']} GPUs" if cluster["gpus"] else ""
    lines = [f"on {cluster['cpus']} CPUs{gpus}, likely (at least to at most):"]
    if about.seconds is None:
        where = "a GPU" if cluster["gpus"] else "no GPU"
        lines.append(f"  time      not known: that takes a sample on a machine with {where}, as the cluster has")
    else:
        lines.append(f"  time      {_three(about.seconds, duration)}; limited by {about.limited_by}")
    lines.append(f"  read      {_three(about.bytes, _bytes)}")
    lines.append(f"  requests  {_three(about.requests, lambda value: f'{value:,.0f}')}")
    lines.append(f"            which cost {_three(about.request_dollars, _dollars)} in S3")
    if about.dollars is not None:
        lines.append(f"  machines  {_three(about.dollars, _dollars)}")
    return lines


def _three(values: Range, shown: Callable[[float], str]) -> str:
    least, likely, most = (shown(value) for value in (values.least, values.likely, values.most))
    return likely if least == most else f"{likely} ({least} to {most})"


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB"


def _dollars(value: float) -> str:
    return f"${value:,.2f}"
