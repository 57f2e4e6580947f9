"""Statistics of a sample of committed runs' rows: confidence, valence and arousal, contradictions, failures, and images to show."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.highlights import Highlights, find_highlights, merge
from pipeline.report.row_groups import draw_groups, run_files
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import RunRecord
from pipeline.table.schema import SchemeMetadata
from ugrie.schemes.contradictions import contradicting

BINS = 20  # of a histogram of probabilities
GRID = 30  # cells along each side of the map of valence and arousal
EXAMPLES = 3  # URIs kept of each failure message
MAX_MESSAGES = 1000  # counted for each status


@dataclass
class Failure:
    """The number of images that failed with one message, and the first URIs of them."""

    count: int = 0
    uris: list[str] = field(default_factory=list)


@dataclass
class RowSample:
    """Statistics of `rows` out of the runs' `total` rows. All but `failures` cover only the `ok` rows, whose status is ok.

    `confidence` is a histogram of the predicted labels' probabilities, int [BINS] by scheme; `density`, int [GRID, GRID], counts images
    by valence and arousal, or is None without both schemes. `contradictions` counts images by pair of schemes, and `failures` by
    status and message.
    """

    total: int
    rows: int = 0
    ok: int = 0
    schemes: dict[str, SchemeMetadata] = field(default_factory=dict)
    confidence: dict[str, np.ndarray] = field(default_factory=dict)
    density: np.ndarray | None = None
    contradictions: dict[str, int] = field(default_factory=dict)
    failures: dict[str, dict[str, Failure]] = field(default_factory=dict)
    highlights: Highlights = field(default_factory=dict)

    def add(self, table: pa.Table, run: int, first_row: int) -> None:
        """Add consecutive rows of one run, starting at its row number `first_row`."""
        self.rows += len(table)
        table = table.append_column("row", pa.array(np.arange(first_row, first_row + len(table))))
        ok = pc.equal(table["status"], "ok")
        self._add_failures(table.filter(pc.invert(ok)))
        table = table.filter(ok).combine_chunks()
        if len(table):
            self._add_annotated(table, run)

    def _add_failures(self, failed: pa.Table) -> None:
        for row in failed.select(["status", "error", "uri"]).to_pylist():
            messages = self.failures.setdefault(row["status"], {})
            message = row["error"] or ""
            if message in messages or len(messages) < MAX_MESSAGES:
                failure = messages.setdefault(message, Failure())
                failure.count += 1
                if len(failure.uris) < EXAMPLES:
                    failure.uris.append(row["uri"])

    def _add_annotated(self, ok: pa.Table, run: int) -> None:
        self.ok += len(ok)
        schemes = {name: scheme for name, scheme in self.schemes.items() if name in ok.column_names}
        probs = {name: probabilities(ok[name]).reshape(-1, len(scheme.labels)) for name, scheme in schemes.items()}
        choices = {name: choices_of(ok[name], scheme, probs[name]) for name, scheme in schemes.items()}
        for name in schemes:
            score = np.take_along_axis(probs[name], choices[name][:, None], 1)[:, 0]
            bins = np.clip((score * BINS).astype(int), 0, BINS - 1)
            self.confidence[name] = self.confidence.get(name, 0) + np.bincount(bins, minlength=BINS)
        polarities = {name: scheme.polarities for name, scheme in schemes.items() if scheme.polarities}
        for pair, contradict in contradicting(polarities, choices).items():
            self.contradictions[pair] = self.contradictions.get(pair, 0) + int(contradict.sum())
        self._add_density(ok, [schemes[name].range for name in ("valence", "arousal") if name in schemes])
        for group, images in find_highlights(ok, schemes, probs, choices, run).items():
            self.highlights[group] = merge(self.highlights.get(group, []), images)

    def _add_density(self, ok: pa.Table, ranges: Sequence[Sequence[float] | None]) -> None:
        if len(ranges) < 2 or None in ranges:
            return
        valence, arousal = (pc.struct_field(ok[name], "value").to_numpy() for name in ("valence", "arousal"))
        counts, *_ = np.histogram2d(valence, arousal, GRID, np.array(ranges))
        self.density = counts.astype(int) + (0 if self.density is None else self.density)


def sample_rows(output: OutputFolder, records: Sequence[RunRecord]) -> RowSample:
    """Read all rows of runs, or random row groups, seeded by the runs' IDs. Raises OSError and Arrow's errors."""
    files = run_files(output, records)
    sample = RowSample(total=sum(file.rows for file in files))
    for file in files:
        sample.schemes = file.schemes | sample.schemes
    for file, groups in draw_groups(files, [record.run_id for record in records]):
        for first_row, table in file.read(output, groups, ["uri", "content_hash", "status", "error", *file.schemes]):
            sample.add(table, file.run, first_row)
    return sample


def probabilities(column: pa.ChunkedArray) -> np.ndarray:
    """Return a scheme's probabilities, float32 [rows * labels], of rows whose status is ok."""
    return pc.list_flatten(pc.struct_field(column, "probs")).to_numpy()


def choices_of(column: pa.ChunkedArray, scheme: SchemeMetadata, probs: np.ndarray) -> np.ndarray:
    """Return the index of each row's predicted label, int [rows]; of an ordinal scheme, of its most probable level."""
    if scheme.kind == "ordinal":
        return probs.argmax(1)
    return pc.index_in(pc.struct_field(column, "label"), pa.array(scheme.labels, pa.string())).to_numpy()
