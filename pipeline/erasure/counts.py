"""Counts the rows that an erasure removes, as a run's record counts rows, and takes them off the record's counts."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.table.run_record import Counts, Duplicates
from pipeline.table.schema import SchemeMetadata
from pipeline.table.stats import count_labels, count_values, sum_values


@dataclass
class ErasedCounts:
    """Counts of erased rows of one run: by status, by label of each scheme, and the sums of ordinal schemes' values."""

    rows: int = 0
    status: Counter[str] = field(default_factory=Counter)
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, rows: pa.Table, schemes: Mapping[str, SchemeMetadata]) -> None:
        """Count some rows more."""
        self.rows += len(rows)
        self.status.update(count_values(rows["status"]))
        for name, scheme in schemes.items():
            if name in rows.column_names:
                self.labels.setdefault(name, Counter()).update(count_labels(scheme, rows[name]))
                if scheme.kind == "ordinal":
                    self.sums[name] = self.sums.get(name, 0.0) + sum_values(rows[name])

    def merge(self, other: "ErasedCounts") -> None:
        """Add the counts of other rows of the run."""
        self.rows += other.rows
        self.status.update(other.status)
        for name, labels in other.labels.items():
            self.labels.setdefault(name, Counter()).update(labels)
        for name, total in other.sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + total

    def taken_off(self, counts: Counts) -> Counts:
        """Return a record's counts without these rows.

        Which rows were retried or copied the table doesn't say: of those as many are left as there can be.
        """
        rows = max(0, counts.rows - self.rows)
        status = {name: left for name, count in counts.status.items() if (left := count - self.status[name]) > 0}
        retried = {name: left for name, count in counts.retried.items() if (left := min(count, status.get(name, 0))) > 0}
        labels = {
            scheme: {label: max(0, count - self.labels.get(scheme, Counter())[label]) for label, count in found.items()}
            for scheme, found in counts.labels.items()
        }
        sums = {name: total - self.sums.get(name, 0.0) for name, total in counts.sums.items()}
        copied = min(counts.reposts.run, rows)
        return Counts(
            **counts.model_dump(exclude={"rows", "status", "retried", "labels", "sums", "reposts", "erased"}),
            rows=rows,
            status=status,
            retried=retried,
            labels=labels,
            sums=sums,
            reposts=Duplicates(run=copied, earlier=min(counts.reposts.earlier, rows - copied)),
            erased=counts.erased + self.rows,
        )
