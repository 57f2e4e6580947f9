"""Runs from S3 to S3."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq
import pytest

from benchmarks.servers.proxy import READING, WRITING
from pipeline.config import AnnotateConfig
from pipeline.errors import StorageError, UserError
from pipeline.run.driver import RunError, annotate
from pipeline.run.plan import prepare

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def in_s3(corpus, s3):
    """The corpus in a bucket."""
    s3.fs.put(f"{corpus.folder}/", f"{s3.bucket}/corpus/", recursive=True)
    return f"s3://{s3.bucket}/corpus"


def test_out_of_s3_and_into_it_the_rows_are_the_same(finished, corpus, in_s3, s3, rows, local_ray):
    output = f"s3://{s3.bucket}/emotions"
    config = AnnotateConfig(
        input=in_s3, output=output, run_id="in-s3", date="2026-01-02", block_rows=16, keep_embeddings=True, storage_options=s3.options
    )
    record = annotate(config)
    (file,) = record.files
    with s3.fs.open(f"{output}/{file}", "rb") as opened:
        table = pq.read_table(opened)
    found = table.to_pylist()
    assert {rows.file_name(row): row["status"] for row in found} == corpus.status
    assert rows.differences(rows.of(finished.output, finished.record), found, rows.file_name) == []
    assert table.column("embedding").null_count == 6
    everything = {name: s3.fs.cat_file(name) for name in s3.fs.find(output)}
    assert set(everything) == {f"{s3.bucket}/emotions/{name}" for name in (file, "index.html", "runs/in-s3.html", "runs/in-s3.json")}
    assert s3.fs.info(f"{output}/index.html", refresh=True)["ContentType"] == "text/html; charset=utf-8"
    assert b'href="runs/in-s3.html"' in everything[f"{s3.bucket}/emotions/index.html"]
    assert all(s3.secret.encode() not in data and s3.key.encode() not in data for data in everything.values())


def test_a_run_through_storage_that_fails_ends_as_if_undisturbed(finished, corpus, in_s3, s3, failing, rows, annotate_here):
    """A fifth of all requests fail, none of them for good: listing, plan, manifest, images, blocks, files and record."""
    kinds = sorted({*READING, *WRITING} - {"stall", "body_stall"})  # each of which takes the time that a request may take
    output = f"s3://{s3.bucket}/through-faults"
    with failing(fraction=0.2, kinds=kinds) as (proxy, through):
        config = AnnotateConfig(input=in_s3, output=output, run_id="r", date="2026-01-02", block_rows=8, storage_options=through.options)
        record = annotate_here(config)
    assert sum(proxy.failed.values()) > 20
    with s3.fs.open(f"{output}/{record.files[0]}", "rb") as opened:
        found = pq.read_table(opened).to_pylist()
    assert rows.differences(rows.of(finished.output, finished.record), found, rows.file_name) == []


def test_credentials_that_run_out_end_the_run_on_one_line_and_it_goes_on_once_they_are_renewed(in_s3, s3, failing, tmp_path, local_ray):
    settings = {"input": in_s3, "output": str(tmp_path), "run_id": "r", "date": "2026-01-02", "block_rows": 40}
    always = {}

    def expire(proxy):
        while not proxy.count("GET", "/corpus/a/"):
            time.sleep(0.01)
        always["/"] = "expired"

    with failing(always=always) as (proxy, through), ThreadPoolExecutor(1) as pool:
        pool.submit(expire, proxy)
        with pytest.raises(RunError) as stopped:
            annotate(AnnotateConfig(**settings, storage_options=through.options))
    said = r"run r stopped: the credentials for s3://.* are expired or wrong \(ExpiredToken\): renew them; .*--run-id r resumes it"
    assert re.fullmatch(said, str(stopped.value))
    assert not (tmp_path / "runs").exists()
    assert annotate(AnnotateConfig(**settings, storage_options=s3.options)).counts.rows == 40


def test_every_object_of_s3_is_fetched_as_it_is(corpus, in_s3, s3, operators, rows, tmp_path):
    plan = prepare(AnnotateConfig(input=in_s3, output=str(tmp_path), block_rows=40, storage_options=s3.options))
    found = {rows.file_name(row): row for row in operators.load(plan, 0).drop_columns("crop").to_pylist()}
    assert {name: row["status"] for name, row in found.items()} == corpus.status
    assert all(found[path.name]["bytes"] in (path.stat().st_size, None) for path in corpus.files)


def test_an_object_of_s3_that_changed_has_another_id_and_one_that_stayed_the_same(s3, images, tmp_path):
    def ids(run):
        plan = prepare(AnnotateConfig(input=f"s3://{s3.bucket}/changing", output=str(tmp_path), run_id=run, storage_options=s3.options))
        return plan.manifest.read(plan.output, 0).column("image_id").to_pylist()

    s3.put("changing/a.jpg", images.jpeg(1))
    s3.put("changing/b.jpg", images.jpeg(2))
    before = ids("before")
    s3.put("changing/a.jpg", images.jpeg(3))
    s3.put("changing/b.jpg", images.jpeg(2))
    after = ids("after")
    assert (before[0] != after[0], before[1] == after[1]) == (True, True)


def test_shards_and_tables_in_s3_are_read_in_place(s3, images, tar, operators, tmp_path):
    tar(tmp_path / "x.tar", {"a.jpg": images.jpeg(1), "b.jpg": images.jpeg(2)})
    uris = [s3.put("shards/x.tar", (tmp_path / "x.tar").read_bytes())]
    s3.put("lists/c.jpg", images.jpeg(3))
    uris.append(s3.put("lists/list.csv", f"uri\nc.jpg\n{uris[0].replace('x.tar', 'gone.jpg')}\nfile:///etc/hostname\n".encode()))
    statuses = []
    for i, uri in enumerate(uris):
        plan = prepare(AnnotateConfig(input=uri, output=str(tmp_path), run_id=f"r{i}", storage_options=s3.options))
        statuses.append(operators.load(plan, 0).column("status").to_pylist())
    assert statuses == [["ok", "ok"], ["ok", "missing", "forbidden"]]


def test_aws_variables_do_instead_of_storage_options(s3, in_s3, monkeypatch, tmp_path):
    names = {
        "AWS_ACCESS_KEY_ID": s3.key,
        "AWS_SECRET_ACCESS_KEY": s3.secret,
        "AWS_ENDPOINT_URL": s3.endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert prepare(AnnotateConfig(input=in_s3, output=str(tmp_path))).manifest.rows == 40


def test_a_key_that_is_refused_is_said_before_anything_is_done(s3, in_s3, corpus, tmp_path):
    with pytest.raises(UserError, match=r"s3://images/corpus can't be listed: .*; check the credentials"):
        annotate(AnnotateConfig(input=in_s3, output=str(tmp_path / "out"), storage_options=s3.refused))
    with pytest.raises(UserError, match=r"output can't be read: .*; check the path and the credentials"):
        annotate(AnnotateConfig(input=str(corpus.folder), output=f"s3://{s3.bucket}/out", storage_options=s3.refused))
    assert not (tmp_path / "out").exists()


def test_credentials_that_are_refused_end_the_run_and_stamp_no_rows(s3, in_s3, operators, tmp_path):
    plan = prepare(AnnotateConfig(input=f"{in_s3}/a/photo0*.jpg", output=str(tmp_path), limit=2, storage_options=s3.options))
    plan.config.storage_options.update(s3.refused)
    with pytest.raises(
        StorageError, match=r"credentials for s3://.* are expired or wrong \(InvalidAccessKeyId\): renew them; the same --run-id"
    ):
        operators.load(plan, 0)
