"""The dry run of `ugrie plan`: checks every setting, scans the input, profiles a sample, and estimates the cost of a run."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.estimate.cost import Cluster, CostEstimate, estimate_cost, mean_of
from pipeline.estimate.profile import Profile, profile_images
from pipeline.estimate.scan import InputScan, scan_input
from pipeline.run.begin import NEW_OUTPUT
from pipeline.run.hooks import Hook
from pipeline.run.plan import tables_of
from pipeline.sources.source import list_items
from pipeline.table.kept_columns import Keep
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import current_runs
from pipeline.table.schema import Tables
from pipeline.table.suppressed import read_list
from pipeline.table_formats import table_format


@dataclass(frozen=True)
class DryRun:
    """The results of a dry run. Without new images there is no profile and no cost."""

    config: AnnotateConfig
    tables: Tables
    cluster: Cluster
    scan: InputScan
    profile: Profile | None
    cost: CostEstimate | None

    def public(self) -> dict[str, Any]:
        """Return the results as JSON, without secrets."""
        settings = self.config.public()
        return {
            **{name: settings[name] for name in ("input", "output")},
            "model": self.tables.model,
            "schemes": [scheme.name for scheme in self.tables.schemes],
            "zero_shot": list(self.tables.zero_shot),
            "kept": self.scan.kept,
            "cluster": asdict(self.cluster),
            "survey": {name: value for name, value in asdict(self.scan).items() if name not in ("sample", "kept")},
            "trial": self.profile and _public(self.profile),
            "forecast": self.cost and self.cost.public(),
        }


def dry_run(config: AnnotateConfig, sample: int, cluster: Cluster) -> DryRun:
    """Estimate a run with these settings from `sample` new images. Nothing is written.

    Raises UserError, StorageError, and from `check` an ExceptionGroup of UserErrors, one for each wrong setting.
    """
    if config.from_embeddings:
        raise UserError("the dry run estimates reading images, and --from-embeddings reads none: try --limit 1000 instead")
    check(config)
    tables = tables_of(config)
    table_format.check(config, tables)
    scan = scan_input(config, tables, sample)
    if not scan.new:
        return DryRun(config, tables, cluster, scan, None, None)
    profile = profile_images(config, tables, scan.sample)
    return DryRun(config, tables, cluster, scan, profile, estimate_cost(scan, profile, cluster, config.block_rows))


def check(config: AnnotateConfig) -> None:
    """Check model, input, output and hooks, each on its own. Raises an ExceptionGroup of UserErrors."""
    checks: list[Callable[[], Any]] = [
        lambda: tables_of(config),
        lambda: next(list_items(config.input, config.column, config.storage_options, output=config.output, keep=Keep(config.keep_columns))),
        lambda: current_runs(OutputFolder(config.output, config.storage_options), NEW_OUTPUT),
        lambda: config.suppress and read_list(config.suppress, config.storage_options),
        lambda: Hook.of(config, "on_success"),
        lambda: Hook.of(config, "on_failure"),
    ]
    problems: list[UserError] = []
    for run_check in checks:
        try:
            run_check()
        except UserError as error:
            if str(error) not in map(str, problems):  # the input's check needs the output too
                problems.append(error)
    if problems:
        raise ExceptionGroup("settings are wrong", problems)


def _public(profile: Profile) -> dict[str, Any]:
    return {
        "status": profile.status,
        "failures": profile.failures,
        "bytes_an_image": asdict(mean_of(profile.bytes)),
        "milliseconds_an_image": {
            "fetch_core": 1000 * profile.fetch_core,
            "fetch_wait": 1000 * profile.fetch_wait,
            "decode_core": {name: 1000 * value for name, value in asdict(mean_of(profile.decode)).items()},
            "annotate_device": 1000 * profile.annotate,
        },
        "device": profile.device,
        "cores": profile.cores,
        "batch_size": profile.batch_size,
    }
