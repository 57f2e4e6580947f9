"""Whole runs that keep columns of the input: every row of the table is joined by its own key, and nothing is lost."""

import pyarrow as pa
import pytest

from pipeline.config import AnnotateConfig
from tests.plugins.posts import KEEP, NAMES, TYPES, written

pytestmark = pytest.mark.timeout(300)


def config_of(source, output, name="r", column="image", keep=NAMES, **settings):
    settings = {"date": "2026-01-02", "block_rows": 32, "report_images": False} | settings
    return AnnotateConfig(input=str(source), output=str(output), run_id=name, column=column, keep_columns=keep, **settings)


def by_post(found):
    """Return the table's rows by their posts, of which each has one."""
    rows = {str(row["post_id"]): row for row in found}
    assert len(rows) == len(found)
    return rows


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "jsonl", "bytes", "tar"])
def test_every_post_has_its_row_with_its_values(posts, annotate_here, rows, check_output, tmp_path, kind):
    source, column = posts.write(kind, tmp_path / "in" / "posts")
    keep = KEEP.get(kind, NAMES)
    record = annotate_here(config_of(source, tmp_path / "out", column=column, keep=keep))
    table = rows.table(tmp_path / "out", record)
    found = by_post(table.to_pylist())
    listed = posts.listed(kind)
    assert record.counts.rows == record.counts.listed == len(found) == len(listed) > 200
    for post in listed:
        row = found[str(post["post_id"])]
        assert {name: row[name] for name in keep} == written(post, kind)
        assert row["status"] == posts.status(post)
        assert (row["sentence"] is not None) == (row["status"] == "ok")
    if kind in ("parquet", "bytes"):
        assert [table.schema.field(name).type for name in NAMES] == TYPES.types
    else:
        assert {table.schema.field(name).type for name in keep} == {pa.string()}
    assert len(set(table["row_id"].to_pylist())) == len(listed)
    check_output(tmp_path / "out", "--rows", len(listed))
