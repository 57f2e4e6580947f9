"""Whole runs that keep columns of the input: every row of the table is joined by its own key, and nothing is lost."""

import json

import deltalake
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.inputs.manifest import plan_path
from pipeline.run import driver
from pipeline.run.driver import annotate
from pipeline.run.plan import prepare
from pipeline.table.output_folder import OutputFolder
from pipeline.table_formats import delta
from tests.plugins.posts import KEEP, KINDS, NAMES, TYPED, TYPES, written

pytestmark = pytest.mark.timeout(300)


def config_of(source, output, name="r", column="image", keep=NAMES, **settings):
    settings = {"date": "2026-01-02", "block_rows": 32, "report_images": False} | settings
    return AnnotateConfig(input=str(source), output=str(output), run_id=name, column=column, keep_columns=keep, **settings)


def by_post(found):
    """Return the table's rows by their posts, of which each has one."""
    rows = {str(row["post_id"]): row for row in found}
    assert len(rows) == len(found)
    return rows


@pytest.fixture
def encoded(monkeypatch):
    """Return a function that counts the images a run has annotated, from its blocks, which are not removed."""
    monkeypatch.setattr(driver, "tidy", lambda *_: None)

    def count(output, name):
        files = (output / "_work" / name / "rows").glob("*.parquet")
        return sum(pq.read_table(file)["status"].to_pylist().count("ok") for file in files)

    return count


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=() if kind == "parquet" else pytest.mark.slow) for kind in KINDS])
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
    if kind in TYPED:
        assert [table.schema.field(name).type for name in NAMES] == TYPES.types
    else:
        assert {table.schema.field(name).type for name in keep} == {pa.string()}
    assert len(set(table["row_id"].to_pylist())) == len(listed)
    check_output(tmp_path / "out", "--rows", len(listed))


def test_later_nights_write_the_rows_that_are_new_and_annotate_no_image_again(some_posts, annotate_here, rows, encoded, tmp_path):
    posts, output = some_posts(60), tmp_path / "out"
    source, _ = posts.write("parquet", tmp_path / "in" / "posts", posts.rows[:50])
    first = annotate_here(config_of(source, output, "first"))
    assert (first.counts.rows, first.counts.known) == (50, 0)
    again = annotate_here(config_of(source, output, "again", retry_days=0))
    assert (again.counts.rows, again.counts.listed, again.counts.known) == (0, 50, 50)

    new = posts.rows[3] | {"post_id": 77, "image": posts.rows[20]["image"]}  # names an image of an earlier night
    changed = posts.rows[21] | {"user_id": "another"}
    posts.write("parquet", tmp_path / "in" / "posts", [new, *posts.rows[:21], changed, *posts.rows[22:50]][::-1])
    second = annotate_here(config_of(source, output, "second", retry_days=0))
    assert (second.counts.rows, second.counts.listed, second.counts.known) == (2, 51, 49)
    assert encoded(output, "second") == 0
    found = by_post(rows.of(output, second))
    assert {name: found["77"][name] for name in NAMES} == written(new, "parquet")
    assert found[str(changed["post_id"])]["user_id"] == "another"
    earlier = by_post(rows.of(output, first))
    for before, row in [(posts.rows[20], found["77"]), (changed, found[str(changed["post_id"])])]:
        before = earlier[str(before["post_id"])]
        assert (row["image_id"], row["sentence"]) == (before["image_id"], before["sentence"])
        assert row["row_id"] != before["row_id"]


def test_a_row_whose_image_may_come_is_retried(some_posts, annotate_here, rows, tmp_path):
    posts, output = some_posts(30), tmp_path / "out"
    source, _ = posts.write("parquet", tmp_path / "in" / "posts")
    annotate_here(config_of(source, output, "first"))
    (posts.folder / "gone.jpg").write_bytes(posts.bytes_of(posts.rows[0]))
    record = annotate_here(config_of(source, output, "second"))
    missing = [post for post in posts.rows if posts.status(post) == "missing"]
    assert {post["image"] for post in missing} == {"gone.jpg", None}
    assert record.counts.retried == {"ok": 1, "missing": 1}
    found = by_post(rows.of(output, record))
    assert {str(post["post_id"]): found[str(post["post_id"])]["status"] == "ok" for post in missing} == {
        str(post["post_id"]): post["image"] is not None for post in missing
    }


def test_rows_that_are_equal_are_as_many_as_in_the_input(some_posts, annotate_here, rows, tmp_path):
    posts, output = some_posts(5), tmp_path / "out"
    source, _ = posts.write("parquet", tmp_path / "in" / "posts", [posts.rows[i] for i in (0, 1, 0, 0, 2)])
    settings = {"keep": ("user_id",), "block_rows": 2}
    record = annotate_here(config_of(source, output, "first", **settings))
    assert record.counts.rows == 5
    assert len({row["row_id"] for row in rows.of(output, record)}) == 5
    posts.write("parquet", tmp_path / "in" / "posts", [posts.rows[i] for i in (2, 0, 1, 0, 0, 0)])
    record = annotate_here(config_of(source, output, "second", **settings))
    assert (record.counts.known, record.counts.rows) == (5, 1)


def test_images_that_are_known_from_runs_without_kept_columns_get_rows_with_them_and_the_other_way_round(
    some_posts, annotate_here, rows, encoded, tmp_path
):
    posts, output = some_posts(30), tmp_path / "out"
    source, _ = posts.write("parquet", tmp_path / "in" / "posts")
    assert annotate_here(config_of(source, output, "images", keep=())).counts.rows < 30
    record = annotate_here(config_of(source, output, "rows"))
    assert record.counts.rows == len(by_post(rows.of(output, record))) == 30
    assert encoded(output, "rows") == 0
    assert annotate_here(config_of(source, output, "fewer", keep=("post_id",))).counts.rows == 30
    assert annotate_here(config_of(source, output, "order", keep=NAMES[::-1], retry_days=0)).counts.rows == 0
    assert annotate_here(config_of(source, output, "none", keep=(), retry_days=0)).counts.rows == 0


def test_a_run_is_resumed_with_the_same_kept_columns_only(some_posts, annotate_here, rows, operators, tmp_path):
    posts, output = some_posts(60), tmp_path / "out"
    source, _ = posts.write("parquet", tmp_path / "in" / "posts")
    whole = annotate_here(config_of(source, tmp_path / "whole"))
    plan = prepare(config_of(source, output, block_rows=8))
    operators.do(plan, [0, 2, 5])
    for keep in (NAMES[1:], (), ("post_id=user_id", *NAMES[1:])):
        with pytest.raises(UserError, match=r"run r was begun with keep_columns = \['post_id', .*\], not .*: give that again, or another"):
            prepare(config_of(source, output, block_rows=8, keep=keep))
    posts.write("parquet", tmp_path / "in" / "posts", posts.rows[:9])  # the manifest has the rest
    record = annotate_here(config_of(source, output, block_rows=8))
    own = ("run_id", "annotated_at")
    found, expected = (
        sorted(({k: v for k, v in row.items() if k not in own} for row in rows.of(*each)), key=lambda row: row["post_id"])
        for each in ((output, record), (tmp_path / "whole", whole))
    )
    assert found == expected
    with pytest.raises(UserError, match="run r was begun with keep_columns"):
        annotate_here(config_of(source, output, keep=()))


def test_a_run_begun_by_a_version_without_kept_columns_is_not_resumed_with_them(some_posts, tmp_path):
    source, _ = some_posts(5).write("parquet", tmp_path / "in" / "posts")
    prepare(config_of(source, tmp_path / "out", keep=()))
    path = tmp_path / "out" / plan_path("r")
    saved = json.loads(path.read_text())
    del saved["kept"], saved["asked"]["keep_columns"]
    path.write_text(json.dumps(saved))
    prepare(config_of(source, tmp_path / "out", keep=()))
    with pytest.raises(UserError, match=r"run r was begun with keep_columns = \[\], not \['post_id'\]"):
        prepare(config_of(source, tmp_path / "out", keep=("post_id",)))


def test_rows_that_another_run_wrote_meanwhile_are_left_out_and_others_of_their_images_are_not(
    some_posts, annotate_here, rows, operators, tmp_path
):
    posts, output = some_posts(40), tmp_path / "out"
    source, _ = posts.write("parquet", tmp_path / "in" / "posts")
    plan = prepare(config_of(source, output, "late", block_rows=8))
    operators.do(plan, [0])
    own = [posts.rows[i] | {"post_id": i} for i in range(8)]
    posts.write("parquet", tmp_path / "in" / "posts", [*posts.rows[:16], *own])
    early = annotate_here(config_of(source, output, "early"))
    posts.write("parquet", tmp_path / "in" / "posts")
    late = annotate_here(config_of(source, output, "late", block_rows=8))
    assert (early.counts.rows, late.counts.rows, late.counts.overtaken) == (24, 26, 14)
    missing = sum(posts.status(post) == "missing" for post in posts.rows[:16])
    assert missing == 2  # which may pass, and so are retried
    assert {row["post_id"] for row in rows.of(output, late)} == {
        post["post_id"] for i, post in enumerate(posts.rows) if i >= 16 or posts.status(post) == "missing"
    }


def test_kept_columns_are_in_the_delta_table_and_known_there_after_a_compaction(some_posts, annotate_here, rows, tmp_path):
    posts, output = some_posts(40), tmp_path / "out"
    source, _ = posts.write("parquet", tmp_path / "in" / "posts")
    settings = {"table_format": "delta", "retry_days": 0}
    annotate_here(config_of(source, output, "images", keep=(), **settings))
    record = annotate_here(config_of(source, output, "rows", **settings))
    table = deltalake.DeltaTable(output / "annotations").to_pyarrow_table()
    expected = rows.table(output, record)
    found = table.filter(pc.equal(table["run_id"], "rows"))
    assert [found.schema.field(name).type for name in NAMES] == TYPES.types
    assert found.select(["row_id", *NAMES]).sort_by("post_id").equals(expected.select(["row_id", *NAMES]).sort_by("post_id"))
    others = table.filter(pc.equal(table["run_id"], "images"))
    assert len(others) < 40 == len(found)
    assert {others[name].null_count for name in ("row_id", *NAMES)} == {len(others)}

    delta.compact(OutputFolder(str(output), {}), None)
    posts.write("parquet", tmp_path / "in" / "posts", [*posts.rows, posts.rows[5] | {"post_id": 5}])
    again = annotate_here(config_of(source, output, "again", **settings))
    assert (again.counts.rows, again.counts.known) == (1, 40)
    assert annotate_here(config_of(source, output, "images-again", keep=(), **settings)).counts.rows == 0


def test_columns_of_types_that_delta_does_not_have_are_refused_and_nothing_is_written(some_posts, annotate_here, tmp_path):
    source, _ = some_posts(3).write("parquet", tmp_path / "in" / "posts")
    table = pq.read_table(source)
    kinds = {"ns": pa.timestamp("ns"), "u": pa.uint64(), "zone": pa.timestamp("us", "Europe/Berlin"), "us": pa.timestamp("us")}
    for name, kind in kinds.items():
        table = table.append_column(name, pa.array([1, None, 2], pa.int64()).cast(kind))
    pq.write_table(table, source)
    for name in ("ns", "u", "zone"):
        with pytest.raises(UserError, match=rf"no type for .*, of column {name}: cast it in the input, leave it out, or set table_format"):
            annotate_here(config_of(source, tmp_path / "out", keep=("post_id", name), table_format="delta"))
    assert not (tmp_path / "out" / "annotations").exists()
    annotate_here(config_of(source, tmp_path / "out", "first", keep=("post_id",), table_format="delta"))
    annotate_here(config_of(source, tmp_path / "out", "second", keep=("post_id", "us"), table_format="delta"))
    assert deltalake.DeltaTable(tmp_path / "out" / "annotations").to_pyarrow_table()["us"].null_count == 4
    table = table.set_column(0, "post_id", table["post_id"].cast(pa.string()))
    pq.write_table(table, source)
    with pytest.raises(UserError, match="its column post_id is of another type"):
        annotate_here(config_of(source, tmp_path / "out", "third", keep=("post_id",), table_format="delta"))


@pytest.mark.slow
def test_rows_are_annotated_again_from_their_embeddings_with_what_they_kept(some_posts, annotate_here, rows, caplog, tmp_path):
    posts, output = some_posts(30), tmp_path / "out"
    source, _ = posts.write("parquet", tmp_path / "in" / "posts")
    first = annotate_here(config_of(source, output, "first", keep_embeddings=True, keep=("post=post_id", *NAMES[1:])))
    asked = {"from_embeddings": True, "keep": ("post", *NAMES[1:])}
    again = annotate_here(config_of(output, tmp_path / "again", "again", keep_embeddings=True, **asked))
    annotated = [row for row in rows.of(output, first) if row["status"] == "ok"]
    same = ("image_id", "uri", "content_hash", "row_id", "embedding", "post", *NAMES[1:])
    assert again.counts.rows == len(annotated) > 20
    assert [[row[name] for name in same] for row in rows.of(tmp_path / "again", again)] == [
        [row[name] for name in same] for row in annotated
    ]
    annotate_here(config_of(source, output, "twice", keep_embeddings=True, keep=("post=post_id", *NAMES[1:]), reannotate=True))
    assert prepare(config_of(output, tmp_path / "again", "known", keep_embeddings=True, **asked)).manifest.known == len(annotated)
    assert prepare(config_of(output, tmp_path / "new", **asked)).manifest.rows == len(annotated)
    with pytest.raises(UserError, match="kept budget, place, post, posted_at, tags, user_id: give their columns, by these names"):
        prepare(config_of(output, tmp_path / "other", keep=("post_id",), from_embeddings=True))
    images = prepare(config_of(output, tmp_path / "images", keep=(), from_embeddings=True))
    assert images.manifest.rows == len({row["image_id"] for row in annotated}) < len(annotated)
    assert "each image gets one row, without budget, place, post, posted_at, tags, user_id" in caplog.text


def test_a_run_on_ray_that_died_and_is_resumed_has_every_post_once(posts, local_ray, operators, rows, check_output, tmp_path):
    source, _ = posts.write("parquet", tmp_path / "in" / "posts")
    config = config_of(source, tmp_path / "out")
    plan = prepare(config)
    with operators.sharing():
        operators.do(plan, [1, 4])
    record = annotate(config)
    found = by_post(rows.of(tmp_path / "out", record))
    assert len(found) == len(posts.rows) == record.counts.rows
    for post in posts.rows:
        row = found[str(post["post_id"])]
        assert {name: row[name] for name in NAMES} == written(post, "parquet")
        assert row["status"] == posts.status(post)
    check_output(tmp_path / "out", "--rows", len(posts.rows))


def test_a_key_that_no_object_has_ends_the_run_before_it_begins_and_leaves_nothing(some_posts, tmp_path):
    source, _ = some_posts(5).write("jsonl", tmp_path / "in" / "posts")
    for settings in ({}, {"limit": 2}):
        with pytest.raises(UserError, match=r"keep_columns: no row of .*posts.jsonl has 'posted' \(did you mean 'posted_at'\?\)"):
            prepare(config_of(source, tmp_path / "out", keep=("post_id", "posted"), **settings))
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file() or path.name == "r"] == []
