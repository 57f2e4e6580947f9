"""Outputs of committed runs with synthetic rows, to test what follows a run without a model and without Ray."""

import datetime as dt
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from pyiceberg.table import Table as IcebergTable


@dataclass
class Made:
    """An output on the local disk or in S3, with methods to commit synthetic runs to it."""

    output: str
    options: dict[str, Any] = field(default_factory=dict)
    model: str = "m@123"

    @property
    def place(self) -> tuple[Any, str]:
        from pipeline.storage.filesystem import connect

        return connect(self.output, self.options)

    @property
    def folder(self) -> Any:
        from pipeline.table.output_folder import OutputFolder

        return OutputFolder(self.output, self.options)

    def schema(self, schemes: Sequence[str], embeddings: bool = False) -> pa.Schema:
        from pipeline.table.schema import Tables
        from ugrie.schemes.scheme import load_scheme

        return Tables(
            tuple(map(load_scheme, schemes)), crop_size=8, embedding_dim=4 if embeddings else None, tower="t", model=self.model
        ).output

    def write(
        self,
        run_id: str,
        ids: Sequence[int],
        schema: pa.Schema,
        date: str = "2026-01-02",
        attempt: str = "aaaaaaaa",
        values: Callable[[int], dict[str, Any]] = lambda i: {},
    ) -> str:
        """Write a file of a run that no record lists yet. One image in ten has failed. `values` are more of a row's, by its image."""
        fs, root = self.place
        now = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, dt.UTC)
        rows = []
        for i in ids:
            row: dict[str, Any] = dict.fromkeys(schema.names) | {"image_id": i, "uri": f"file:///{i}.jpg", "status": "ok"}
            row |= {"model": self.model, "run_id": run_id, "annotated_at": now, "width": i % 1000, "bytes": 2**40 + i % 7}
            if i % 10 == 3:
                row |= {"status": "timeout", "error": "not read"}
            else:
                for column in schema:
                    if pa.types.is_struct(column.type):
                        first = {"label": "positive", "score": 0.7} if column.type[0].name == "label" else {"value": 0.1}
                        row[column.name] = first | {"probs": [0.7, 0.2 + i % 10 / 100, 0.1]}
                    elif pa.types.is_fixed_size_list(column.type):
                        row[column.name] = [0.0] * 4
            rows.append(row | values(i))
        buffer = BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema), buffer, compression="zstd", row_group_size=7)
        name = f"annotations/dt={date}/part-{run_id}-{attempt}-00000.parquet"
        fs.makedirs(f"{root}/annotations/dt={date}", exist_ok=True)
        fs.pipe_file(f"{root}/{name}", buffer.getvalue())
        return name

    def commit(
        self, run_id: str, ids: Sequence[int], schemes: Sequence[str] = ("polarity3", "valence"), date: str = "2026-01-02", **settings: Any
    ) -> Any:
        """Commit a run of these images and return its record."""
        from pipeline.table import commit
        from pipeline.table.run_record import RunRecord
        from pipeline.table.schema import SCHEMA_VERSION

        schema = settings.pop("schema", None) or self.schema(schemes, settings.get("keep_embeddings", False))
        values = settings.pop("values", lambda i: {})
        record = {
            "run_id": run_id,
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "tower": "t",
            "date": date,
            "finished_at": f"{date}T03:00:00+00:00",
            "schemes": dict.fromkeys(schemes, "categorical"),
            "counts": {"rows": len(ids)},
            "files": [self.write(run_id, ids, schema, date, values=values)] if ids else [],
            "config": settings,
        }
        return commit.commit(self.folder, RunRecord.model_validate(record))

    def rows(self) -> pa.Table:
        """Return all committed runs' rows, from the files in their records, by image and run, with the partition's date as in Delta."""
        fs, root = self.place
        tables = []
        for path in fs.glob(f"{root}/runs/*.json"):
            record = json.loads(fs.cat_file(path))
            lists = [json.loads(fs.cat_file(f"{root}/{each}")) for each in record.get("file_lists", ())]
            for file in [file for each in (record, *lists) for file in each["files"]]:
                table = pq.read_table(BytesIO(fs.cat_file(f"{root}/{file}")))
                tables.append(table.append_column("dt", pa.array([dt.date.fromisoformat(record["date"])] * len(table), pa.date32())))
        return in_order(pa.concat_tables(tables, promote_options="default"))

    @property
    def delta(self) -> "DeltaTable":
        """The output as a Delta table."""
        from deltalake import DeltaTable

        from pipeline.table_formats.delta_storage import storage_options

        fs, root = self.place
        return DeltaTable(f"{fs.unstrip_protocol(root) if self.options else root}/annotations", storage_options=storage_options(fs))

    def shown(self) -> pa.Table:
        """Return the rows that readers of the Delta table see, in the form of `rows`."""
        return in_order(self.delta.to_pyarrow_table())

    @property
    def iceberg(self) -> "IcebergTable":
        """The output as an Iceberg table, as readers open it: by its catalog on the local disk, and by its folder in S3."""
        from pyiceberg.catalog.sql import SqlCatalog
        from pyiceberg.table import StaticTable

        if not self.options:
            return SqlCatalog("ugrie", uri=f"sqlite:///{self.output}/iceberg.db").load_table("ugrie.annotations")
        server = {"s3.endpoint": self.options["client_kwargs"]["endpoint_url"], "s3.region": "us-east-1"}
        key = {"s3.access-key-id": self.options["key"], "s3.secret-access-key": self.options["secret"]}
        return StaticTable.from_metadata(f"{self.output}/annotations", server | key)

    def in_iceberg(self) -> pa.Table:
        """Return the rows that readers of the Iceberg table see, in the form of `rows`."""
        found, rows = in_order(self.iceberg.scan().to_arrow()), self.rows()
        return found.cast(rows.schema) if found.column_names == rows.column_names else found  # some texts are of Arrow's long type


def in_order(table: pa.Table) -> pa.Table:
    """Sort rows by image and run and columns by name, and drop the metadata."""
    return table.select(sorted(table.column_names)).sort_by([("image_id", "ascending"), ("run_id", "ascending")]).replace_schema_metadata()


@pytest.fixture
def in_lists(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that lets the runs of an output, and all later ones, have lists of one file each where they have several files.

    Beside them is a list of a driver that did not commit the run.
    """
    from pipeline.table import run_record
    from pipeline.table.commit import commit
    from pipeline.table.output_folder import lists_folder, record_path

    def divide(output: Any) -> None:
        monkeypatch.setattr(run_record, "MAX_FILES", 1)
        for record in run_record.past_runs(output):
            output.remove(record_path(record.run_id))
            assert len(commit(output, record).file_lists) == len(record.files) > 1
            lost = f"{lists_folder(record.run_id)}/lost-00000.json"
            output.write(lost, run_record.FileList(file_list=lost, files=("annotations/gone.parquet",)).model_dump_json().encode())

    return divide


@pytest.fixture
def made(tmp_path: Any) -> Made:
    return Made(str(tmp_path / "out"))


@pytest.fixture(params=["local", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Any) -> Made:
    """An output on the local disk, then one in S3."""
    if request.param == "local":
        return Made(str(tmp_path / "out"))
    s3 = request.getfixturevalue("s3")
    return Made(f"s3://{s3.bucket}/{tmp_path.name}", s3.options)
