"""Begins a run: lists its input, compares it with earlier runs, and writes the manifest, by the driver or, above a size, by the cluster."""

import datetime as dt
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice

import pyarrow as pa

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.inputs.item import Item
from pipeline.inputs.manifest import Manifest, plan_path, write_manifest
from pipeline.maintenance import orphans
from pipeline.run.earlier import from_past_files, images_of, matching_runs
from pipeline.sources.embeddings import embedded_items
from pipeline.sources.source import list_items
from pipeline.stages.merge import GROUP_ROWS
from pipeline.table.kept_columns import Keep
from pipeline.table.output_folder import OutputFolder, work_folder
from pipeline.table.run_record import RunRecord, current_runs
from pipeline.table.schema import Tables
from pipeline.table.suppressed import Suppressed
from pipeline.table_formats import table_format

logger = logging.getLogger(__name__)
NEW_OUTPUT = "give a new --output; the old one stays readable by `ugrie report`, `ugrie clean` and tools of your own"
DRIVER_ROWS = 10_000_000  # listed, or in earlier runs: up to so many are planned sooner by the driver, in a gigabyte of its memory


class _TooManyError(Exception):
    """More images are listed, or known, than the driver is to plan."""


@dataclass
class Begun:
    """A run that is begun: what its manifest, in a folder within the output, depends on. Raises UserError where the output is another's."""

    config: AnnotateConfig
    output: OutputFolder
    tables: Tables
    suppressed: Suppressed
    folder: str
    started_at: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))

    @cached_property
    def runs(self) -> list[RunRecord]:
        """The runs committed before."""
        return current_runs(self.output, NEW_OUTPUT)

    @cached_property
    def known(self) -> int:
        """The rows of earlier runs that are compared with the listing."""
        return sum(run.counts.rows for run in matching_runs(self.config, self.tables, self.runs))

    def write_manifest(self) -> tuple[Manifest, pa.Schema | None]:
        """Write the manifest. Return it, and the columns that are kept from the input. Raises UserError, StorageError."""
        if self.config.planning == "cluster":
            if reason := self._only_driver():
                raise UserError(f"planning = cluster: {reason}; leave planning at auto")
            return self._on_cluster()
        try:
            return self._on_driver()
        except _TooManyError:
            logger.info("more than %d images are listed, or known: the cluster plans the run", DRIVER_ROWS)
            return self._on_cluster()

    def _only_driver(self) -> str | None:
        """Return why only the driver can plan the run, if that is so."""
        if self.config.keep_columns:
            return "with keep_columns the driver gives rows their IDs"
        return "with limit the driver lists no more than it needs" if self.config.limit else None

    @property
    def _driver_rows(self) -> int | None:
        """How many rows the driver is to plan at most, if the cluster can plan more."""
        return None if self.config.planning == "driver" or self._only_driver() else DRIVER_ROWS

    def _on_driver(self) -> tuple[Manifest, pa.Schema | None]:
        config, output = self.config, self.output
        block_rows = config.block_rows
        left_out: Counter[str] = Counter()
        keep = Keep(config.keep_columns)
        if config.from_embeddings:
            source = embedded_items(config.input, self.tables.tower, config.storage_options, keep)
            block_rows = block_rows or GROUP_ROWS  # a block reads whole row groups
        else:
            source = list_items(config.input, config.column, config.storage_options, left_out, config.output, keep)
        source = chain([next(source)], source)  # a wrong input is found before anything is read of earlier runs
        if keep:
            table_format.check(config, replace(self.tables, kept=keep.types))
        if self._driver_rows is not None and self.known > self._driver_rows:
            raise _TooManyError
        past = images_of(output, config, self.tables, self.runs, self.started_at)
        orphans.warn(output, config)
        with output.writable():
            manifest = write_manifest(
                output, self.folder, self._bounded(source), block_rows, past.annotated, config.limit, past.failed, self.suppressed
            )
            try:
                keep.check_found(config.public()["input"])
            except UserError:
                if manifest.rows and output.read_json(plan_path(config.run_id)) is None:
                    output.remove(work_folder(config.run_id), recursive=True)
                raise
        return replace(manifest, left_out=dict(left_out)), keep.types if keep else None

    def _bounded(self, source: Iterator[Item]) -> Iterator[Item]:
        """Return the items. Raises _TooManyError at the first that the driver is not to plan; says so where it has to."""
        yield from islice(source, DRIVER_ROWS)
        if (following := next(source, None)) is None:
            return
        if self._driver_rows is not None:
            raise _TooManyError
        if reason := self._only_driver():
            logger.warning("more than %d rows are listed, and %s: its memory grows with them", DRIVER_ROWS, reason)
        yield following
        yield from source

    def _on_cluster(self) -> tuple[Manifest, None]:
        from pipeline.planning.cluster import ClusterPlanner  # it takes Ray
        from pipeline.planning.pieces import divide
        from pipeline.run.resources import await_workers, connect_ray

        config, output = self.config, self.output
        division = divide(config, self.tables.tower)
        orphans.warn(output, config)
        connect_ray()
        await_workers(config)
        planner = ClusterPlanner(config, output, division, self.suppressed)
        try:
            planner.list()
            block_rows = config.block_rows or (GROUP_ROWS if config.from_embeddings else None)
            manifest = from_past_files(
                output,
                config,
                self.tables,
                self.runs,
                self.started_at,
                lambda past: planner.write(past, self.known, self.folder, block_rows),
            )
        finally:
            planner.remove()
        return replace(manifest, left_out=dict(division.left_out)), None
