"""What a night would be, as data and as a page of text: every problem of the settings, or survey, trial and forecast."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config import AnnotateConfig
from pipeline.errors import STATUSES, UserError
from pipeline.estimate.cost import Cluster, Forecast, Range, forecast, mean_of
from pipeline.estimate.profile import Trial, try_out
from pipeline.estimate.scan import Survey, survey
from pipeline.inputs.source import items
from pipeline.run.hooks import Hook
from pipeline.run.plan import tables_of
from pipeline.table import delta
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import past_runs
from pipeline.table.schema import Tables
from pipeline.text import duration

MOST_FAILURES = 5  # that the page shows


@dataclass(frozen=True)
class Prospect:
    """What a night would be. Without new images there is no trial and no forecast."""

    config: AnnotateConfig
    tables: Tables
    cluster: Cluster
    survey: Survey
    trial: Trial | None
    forecast: Forecast | None

    def public(self) -> dict[str, Any]:
        """As it may be shown, as JSON."""
        settings = self.config.public()
        return {
            **{name: settings[name] for name in ("input", "output")},
            "model": self.tables.model,
            "schemes": [scheme.name for scheme in self.tables.schemes],
            "cluster": asdict(self.cluster),
            "survey": {name: value for name, value in asdict(self.survey).items() if name != "sample"},
            "trial": self.trial and _public(self.trial),
            "forecast": self.forecast and self.forecast.public(),
        }


def prospect(config: AnnotateConfig, sample: int, cluster: Cluster) -> Prospect:
    """What a night with these settings would do. Raises an ExceptionGroup of UserErrors, one for every setting that is wrong."""
    if config.from_embeddings:
        raise UserError(
            "from_embeddings = True: what is told here is what reading images takes, and none is read: try --limit 1000 instead"
        )
    check(config)
    tables = tables_of(config)
    delta.check(config, tables)
    found = survey(config, tables, sample)
    if not found.new:
        return Prospect(config, tables, cluster, found, None, None)
    trial = try_out(config, tables, found.sample)
    return Prospect(config, tables, cluster, found, trial, forecast(found, trial, cluster, config.block_rows))


def check(config: AnnotateConfig) -> None:
    """Looks at model, input, output and hooks, each by itself. Raises an ExceptionGroup of UserErrors."""

    def output() -> None:
        past_runs(OutputFolder(config.output, config.storage_options), "")

    checks: list[Callable[[], Any]] = [
        lambda: tables_of(config),
        lambda: next(items(config.input, config.column, config.storage_options)),
        output,
        lambda: Hook.of(config, "on_success"),
        lambda: Hook.of(config, "on_failure"),
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


def page(found: Prospect) -> str:
    """As text for the terminal."""
    settings, about = found.config.public(), found.survey
    schemes = ", ".join(scheme.name for scheme in found.tables.schemes)
    lines = [f"{settings['input']} -> {settings['output']}, by {found.tables.model}: {schemes}", ""]
    lines.append(f"{about.listed:,} images are listed; {about.known:,} were annotated before, {about.new:,} are new")
    if found.trial is None or found.forecast is None:
        return "\n".join([*lines, "a night would commit a run of no rows"])
    return "\n".join([*lines, *_copies(about), "", *_tried(found.trial), "", *_to_come(found.forecast, found.cluster)])


def _tried(trial: Trial) -> list[str]:
    count = sum(trial.status.values())
    lines = [f"of {count} new images, drawn at random and annotated here ({trial.device}, {trial.cores} cores):"]
    lines += [f"  {status:<16}{count:>4}  {STATUSES[status]}" for status, count in trial.status.items()]
    lines += [f"    {failure}" for failure in trial.failures[:MOST_FAILURES]]
    decode = mean_of(trial.decode).likely
    where = "GPU" if trial.device == "cuda" else "whole machine"
    took = f"{1000 * trial.fetch_core:.1f} of a core to fetch, {1000 * decode:.1f} to decode, {1000 * trial.annotate:.1f} on the {where}"
    return [*lines, f"  ms an image: {took} to annotate"]


def _copies(about: Survey) -> list[str]:
    lines = []
    if about.copies is not None:
        lines.append(f"  {about.copies:,} of them have another's bytes, as their ETags say: they are fetched, and not annotated again")
    if about.repost_share is not None:
        lines.append(f"  {about.repost_share:.1%} of the last nights' rows were copies")
    return lines


def _to_come(about: Forecast, cluster: Cluster) -> list[str]:
    gpus = f" and {cluster.gpus} GPUs" if cluster.gpus else ""
    lines = [f"on {cluster.cpus} CPUs{gpus}, likely (at least to at most):"]
    if about.seconds is None:
        where = "a GPU" if cluster.gpus else "no GPU"
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
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB" if value < 999.5 else f"{value:,.0f} TB"


def _dollars(value: float) -> str:
    return f"${value:,.2f}"
