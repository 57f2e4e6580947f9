"""Joins of a posts table with the emotions of its images, by a kept column, in every output format and by every reader: no post is lost."""

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.table.output_folder import OutputFolder
from pipeline.table_formats import delta, iceberg
from tests.plugins.outputs import Made
from tests.plugins.posts import KEEP, NAMES, TYPED, TYPES, posts_of, written

pytestmark = pytest.mark.timeout(300)
# Inputs and the output format each is read into: every input once, and one of them into all formats.
RUNS = [
    ("parquet", "parquet"),
    ("parquet", "delta"),
    ("parquet", "iceberg"),
    ("csv", "delta"),
    ("tar", "iceberg"),
    ("delta", "parquet"),
    ("iceberg", "delta"),
]
IN_S3 = [("bytes", "parquet"), ("delta bytes", "delta"), ("bytes", "iceberg")]
PAGE = Path(__file__).parents[3] / "docs" / "tables.md"
SNIPPETS = {text: language for language, text in re.findall(r"```(sql|python)\n(.*?)```", PAGE.read_text(), re.DOTALL) if "post_id" in text}


def read(posts, annotate_here, kind, table_format, folder, output, **settings):
    """Annotate posts from an input of a kind into a table of a format. Return the run's record."""
    source, column = settings.pop("source", None) or posts.write(kind, folder / "in" / "posts")
    settings |= {"keep_columns": KEEP.get(kind, NAMES), "table_format": table_format, "report_images": False, "block_rows": 64}
    return annotate_here(AnnotateConfig(input=source, output=output, column=column, date="2026-01-02", **settings))


@pytest.fixture(scope="module")
def run(posts, annotate_here, tmp_path_factory):
    """Return a function that makes a run of RUNS, once: its output and its record."""

    @cache
    def made(kind, table_format):
        folder = tmp_path_factory.mktemp("joins")
        return Made(str(folder / "out")), read(posts, annotate_here, kind, table_format, folder, str(folder / "out"))

    return made


@pytest.fixture(scope="module")
def run_in_s3(posts_in_s3, annotate_here, s3, tmp_path_factory):
    """Return a function that makes a run of IN_S3, from a table of image bytes in S3 into S3, once."""

    @cache
    def made(kind, table_format):
        folder = tmp_path_factory.mktemp("joins")
        source, column = posts_in_s3.write(kind, folder / "in" / "posts")
        place = f"s3://{s3.bucket}/{folder.name}"
        s3.fs.put(source, f"{place}/{Path(source).name}", recursive=True)
        output, given = f"{place}/out", (f"{place}/{Path(source).name}", column)
        record = read(posts_in_s3, annotate_here, kind, table_format, folder, output, source=given, storage_options=s3.options)
        return Made(output, s3.options), record

    return made


@pytest.fixture(scope="module")
def posts_in_s3(posts):
    """Return fewer of the posts, with reposts, broken images and one that is missing."""
    return type(posts)(posts.folder, posts.rows[:70], posts.failures)


def table_of_titles(posts, kind):
    """Return the users' own table: a title for each post, by its key in the type that the run has kept it in."""
    ids = pa.array([post["post_id"] for post in posts.listed(kind)], pa.int64())
    titles = pa.array([f"title of {number}" for number in ids.to_pylist()])
    return pa.table({"post_id": ids if kind in TYPED else ids.cast(pa.string()), "title": titles})


def files_of(made):
    """Return the files of the committed runs."""
    fs, root = made.place
    records = [json.loads(fs.cat_file(path)) for path in fs.glob(f"{root}/runs/*.json")]
    return [f"{made.output}/{file}" for record in records for file in record["files"]]


def by_duckdb(made, table_format, titles):
    base = duckdb.connect()
    if table_format == "parquet":
        if made.options:
            base.register_filesystem(made.place[0])
        base.execute(f"CREATE VIEW emotions AS SELECT * FROM read_parquet({files_of(made)})")
    elif table_format == "delta":
        base.register("emotions", made.delta.to_pyarrow_dataset())
    else:
        base = made.iceberg.scan().to_duckdb("emotions")
    base.execute("SET timezone = 'UTC'")
    base.register("titles", titles)
    return base.sql("SELECT * FROM titles FULL JOIN emotions USING (post_id)").to_arrow_table()


def by_polars(made, table_format, titles):
    options = None
    if made.options:
        options = {"aws_access_key_id": made.options["key"], "aws_secret_access_key": made.options["secret"], "aws_region": "us-east-1"}
        options |= {"aws_endpoint_url": made.options["client_kwargs"]["endpoint_url"], "aws_allow_http": "true"}
    if table_format == "parquet":
        emotions = pl.scan_parquet(files_of(made), storage_options=options, hive_partitioning=False)
    elif table_format == "delta":
        emotions = pl.scan_delta(f"{made.output}/annotations", storage_options=options)
    else:
        emotions = pl.scan_iceberg(made.iceberg, storage_options=options)
    return pl.from_arrow(titles).lazy().join(emotions, on="post_id", how="full", coalesce=True).collect().to_arrow()


def by_pandas(made, table_format, titles):
    if table_format == "parquet":
        emotions = pd.concat(pd.read_parquet(file, partitioning=None, storage_options=made.options or None) for file in files_of(made))
    elif table_format == "delta":
        emotions = made.delta.to_pandas()
    else:
        emotions = made.iceberg.scan().to_pandas()
    found = titles.to_pandas().merge(emotions, on="post_id", how="outer")
    kept = TYPES if pa.types.is_int64(titles.schema.field("post_id").type) else text_types(found.columns)
    others = [("title", pa.string()), ("status", pa.string()), ("sentence", pa.string())]
    schema = pa.unify_schemas([kept, pa.schema(others)])
    return pa.Table.from_pandas(found[schema.names], schema, preserve_index=False)


def by_pyiceberg(made, table_format, titles):
    emotions = made.iceberg.scan().to_arrow()
    assert len(emotions) == len(titles)
    found = emotions.take(pc.index_in(titles["post_id"], emotions["post_id"].cast(titles.schema.field("post_id").type)))
    return found.append_column("title", titles["title"])


def text_types(names):
    return pa.schema([(name, pa.string()) for name in NAMES if name in names])


READERS = {"duckdb": by_duckdb, "polars": by_polars, "pandas": by_pandas, "pyiceberg": by_pyiceberg}


def check(posts, kind, record, found):
    """Compare joined rows with the posts: each has one row, with its title, its own values and the status of its image."""
    listed, kept = posts.listed(kind), KEEP.get(kind, NAMES)
    types = TYPES if kind in TYPED else text_types(kept)
    values = {str(row["post_id"]): row for row in found.select(kept).cast(types).to_pylist()}
    rows = {str(row["post_id"]): row for row in found.select(["post_id", "title", "status", "sentence"]).to_pylist()}
    assert len(found) == len(rows) == len(listed) == record.counts.rows
    for post in listed:
        row = rows[str(post["post_id"])]
        assert values[str(post["post_id"])] == written(post, kind)
        assert row["title"] == f"title of {post['post_id']}"
        assert row["status"] == posts.status(post)
        assert (row["sentence"] is not None) == (row["status"] == "ok")
    assert Counter(found["status"].to_pylist()) == record.counts.status == Counter(map(posts.status, listed))


def cases(runs, quick=()):
    return [
        pytest.param(kind, table_format, reader, marks=() if (kind, table_format) in quick else pytest.mark.slow)
        for kind, table_format in runs
        for reader in READERS
        if reader != "pyiceberg" or table_format == "iceberg"
    ]


@pytest.mark.parametrize(("kind", "table_format", "reader"), cases(RUNS, quick=RUNS[:1]))
def test_every_post_is_joined_with_its_row(posts, run, kind, table_format, reader):
    made, record = run(kind, table_format)
    check(posts, kind, record, READERS[reader](made, table_format, table_of_titles(posts, kind)))


@pytest.mark.parametrize(("kind", "table_format", "reader"), cases(IN_S3))
def test_every_post_is_joined_with_its_row_in_s3(posts_in_s3, run_in_s3, kind, table_format, reader):
    made, record = run_in_s3(kind, table_format)
    check(posts_in_s3, kind, record, READERS[reader](made, table_format, table_of_titles(posts_in_s3, kind)))


@pytest.fixture(scope="module")
def nights(annotate_here, images, tmp_path_factory):
    """Posts of two nights: on the second, an image that was missing has come, and a value has changed. All formats have both nights."""
    folder = tmp_path_factory.mktemp("nights")
    posts, output = posts_of(tmp_path_factory.mktemp("images"), images, 40), str(folder / "out")
    read(posts, annotate_here, "parquet", "parquet", folder, output)
    (posts.folder / "gone.jpg").write_bytes(images.jpeg(1))
    posts.rows[5]["user_id"] = "renamed"
    record = read(posts, annotate_here, "parquet", "parquet", folder, output)
    assert (record.counts.rows, record.counts.retried) == (3, {"ok": 1, "missing": 1})
    for kind in (delta, iceberg):
        kind.add(OutputFolder(output, {}))
    return posts, output


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", SNIPPETS, ids=lambda text: next(name for name in ("pyiceberg", "polars", "pandas", "") if name in text) or "sql"
)
def test_joins_of_the_documentation_have_every_post_once_and_its_newest_row(nights, tmp_path, text):
    posts, output = nights
    titles = table_of_titles(posts, "parquet")
    without = pa.table({"post_id": [1], "title": ["no post of the input"]})
    pq.write_table(pa.concat_tables([titles, without]), tmp_path / "posts.parquet")
    filled = text.replace("OUTPUT", output).replace("posts.parquet", str(tmp_path / "posts.parquet"))
    if SNIPPETS[text] == "sql":
        *before, query = [part for part in filled.split(";") if part.strip()]
        base = duckdb.connect()
        for statement in before:
            base.execute(statement)
        found = base.sql(query).pl().to_dicts()
    else:
        space = {}
        exec(filled, space)
        table = next(space[name] for name in ("rows", "frame", "table") if name in space)
        found = (pl.from_pandas(table) if isinstance(table, pd.DataFrame) else pl.DataFrame(table)).to_dicts()
    expected = {post["post_id"]: "ok" if post["image"] == "gone.jpg" else posts.status(post) for post in posts.rows} | {1: None}
    assert len(found) == 41
    assert {row["post_id"]: row["status"] for row in found} == expected
    assert all(row["title"] in (f"title of {row['post_id']}", "no post of the input") for row in found)
    assert all((row["valence"] is None) == (row["status"] != "ok") for row in found)


def test_the_joins_of_the_documentation_are_found():
    """Otherwise the test above would check nothing."""
    assert sorted(SNIPPETS.values()) == ["python", "python", "python", "sql"]


def test_the_posts_have_all_that_may_happen_to_a_row(posts, run, rows):
    made, record = run("parquet", "parquet")
    assert len(posts.rows) == 300
    assert record.counts.status.keys() == {"ok", "missing", "corrupt", "not_an_image"}
    assert record.counts.reposts.run > 20
    assert {posts.status(post) for post in posts.rows if post["image"] is None} == {"missing"}
    named = [post["image"] for post in posts.rows if post["image"]]
    assert len(named) - len(set(named)) > 20
    images = {row["image_id"] for row in rows.of(Path(made.output), record) if row["uri"]}
    assert len(images) == len(set(named))
