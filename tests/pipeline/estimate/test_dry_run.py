"""A dry run as JSON, and its summary as text; tests/jobs/test_plan.py runs the whole job."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.estimate import dry_run as module
from pipeline.estimate.cost import Cluster, estimate_cost
from pipeline.estimate.dry_run import DryRun, check, dry_run
from pipeline.estimate.scan import scan_input
from pipeline.estimate.summary import _bytes, summary
from pipeline.run.plan import tables_of
from pipeline.table.schema import SCHEMA_VERSION
from tests.plugins import estimates
from tests.plugins.estimates import CPUS, GPUS

CONFIG = AnnotateConfig(
    input="https://me:hunter2@host/list.csv", output="s3://key:hunter2@bucket/out", storage_options={"secret": "hunter2"}
)
SCAN = replace(
    estimates.SCAN, listed=1_250_000, known=250_000, sample=[{"uri": "https://host/a.jpg", "link": "https://host/a.jpg?sig=hunter2"}]
)
PROFILE = replace(
    estimates.PROFILE,
    status={"ok": 62, "corrupt": 2},
    failures=["https://host/b.jpg  corrupt: cut off"],
    bytes=np.full(62, 10**5),
    decode=np.full(62, 0.004),
)


@pytest.fixture(scope="module")
def tables():
    return tables_of(CONFIG)


@pytest.fixture
def found(tables):
    """Make a dry run with these figures."""

    def make(profile=PROFILE, cluster=CPUS, **counts):
        scan = replace(SCAN, **counts)
        return DryRun(CONFIG, tables, cluster, scan, profile, estimate_cost(scan, profile, cluster, None))

    return make


@pytest.fixture
def lines(found):
    """Return the lines of its summary."""
    return lambda *args, **counts: summary(found(*args, **counts)).splitlines()


def test_it_says_what_goes_where_by_which_model_and_no_secrets(lines, tables):
    said = lines()
    assert said[0] == f"https://host/list.csv -> s3://bucket/out, by {tables.model}: polarity3, polarity2, mikels8, valence, arousal"
    assert "hunter2" not in "\n".join(said)
    assert said[2] == "1,250,000 images are listed; 250,000 were annotated before, 1,000,000 are new"


def test_what_is_left_out_of_the_input_is_said_by_reason(lines, found):
    assert not any("left out" in line for line in lines())
    left_out = {"hidden or a marker": 1_234, "no image by its name": 2}
    assert lines(left_out=left_out)[3] == "left out of the input: 1,234 x hidden or a marker, 2 x no image by its name"
    assert found(left_out=left_out).public()["survey"]["left_out"] == left_out


def test_images_on_a_list_are_said(lines, found):
    assert lines(suppressed=1_234)[3] == "1,234 more are on the list of --suppress, and would get no row"
    assert found(suppressed=3).public()["survey"]["suppressed"] == 3


def test_columns_that_are_kept_are_named_with_their_types_and_rows_are_counted(lines, found):
    kept = {"post": "int64", "tags": "list<element: string>"}
    assert lines(kept=kept)[2:4] == [
        "1,250,000 rows are listed; 250,000 were annotated before, 1,000,000 are new",
        "kept from the input: post int64, tags list<element: string>",
    ]
    assert found(kept=kept).public()["kept"] == kept


def test_a_scan_counts_rows_and_refuses_columns_that_the_input_lacks(some_posts, tmp_path):
    posts = some_posts(40)
    for kind in ("parquet", "jsonl"):
        source, column = posts.write(kind, tmp_path / "posts")
        settings = {"input": source, "output": str(tmp_path / "out"), "column": column}
        config = AnnotateConfig(**settings, keep_columns=("post_id", "place"))
        found = scan_input(config, tables_of(config), 8)
        assert (found.listed, found.new, len(found.sample)) == (40, 40, 8)
        struct = "struct<name: string, lat: double>" if kind == "parquet" else "string"
        assert found.kept == {"post_id": "int64" if kind == "parquet" else "string", "place": struct}
        wrong = AnnotateConfig(**settings, keep_columns=("post_id", "placa"))
        with pytest.raises(UserError, match=r"'placa' \(did you mean 'place'\?\)"):
            scan_input(wrong, tables_of(wrong), 8)
    assert not (tmp_path / "out").exists()


def test_names_that_are_taken_and_inputs_without_columns_are_refused_together(corpus, tmp_path):
    config = AnnotateConfig(input=str(corpus.folder), output=str(tmp_path / "out"), keep_columns=("status",))
    with pytest.raises(ExceptionGroup) as refused:
        check(config)
    names, images = map(str, refused.value.exceptions)
    assert names.startswith("keep_columns: the table has a column 'status' of its own: keep it under another name, such as input_status")
    assert images.startswith(f"keep_columns: {corpus.folder} holds images, which have no columns")


@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_a_table_that_cant_be_read_is_told_with_the_other_problems(some_posts, tmp_path, monkeypatch, kind):
    source, column = some_posts(5).write(kind, tmp_path / "posts")
    wrong = {"output": str(tmp_path / "out"), "column": column, "keep_columns": ("post_ids", "uri")}
    with pytest.raises(ExceptionGroup) as refused:
        check(AnnotateConfig(input=source, **wrong))
    taken, lacking = map(str, refused.value.exceptions)
    assert taken.startswith("keep_columns: the table has a column 'uri' of its own")
    assert "posts has no column 'post_ids' (did you mean 'post_id'?)" in lacking
    for name in ("table_formats.delta_log", "sources.iceberg_table"):
        monkeypatch.setattr(f"pipeline.{name}.find_spec", lambda library: None)
    with pytest.raises(ExceptionGroup) as refused:
        check(AnnotateConfig(input=source, **wrong))
    assert str(refused.value.exceptions[1]).endswith(f"pip install 'ugrie[{kind}]'")


def test_the_sample_is_counted_by_status_and_some_failures_are_shown(lines):
    said = lines()
    assert "random sample of 64 new images, annotated on this machine (cpu, 2 cores):" in said
    assert "  ok                62  annotated" in said
    assert "    https://host/b.jpg  corrupt: cut off" in said
    assert "  ms per image: fetch 1.0 and decode 4.0 on one core, annotate 5.0 on the whole machine" in said
    many = lines(replace(PROFILE, failures=[f"{i} corrupt" for i in range(20)]))
    assert [line for line in many if line.endswith(" corrupt")] == [f"    {i} corrupt" for i in range(5)]


def test_copies_and_reposts_are_said_where_they_are_known(lines):
    assert not any("duplicates" in line for line in lines())
    said = lines(copies=40_000, repost_share=0.125)
    assert "  40,000 of them are duplicates by their ETags: they are fetched, but not annotated again" in said
    assert "  12.5% of the last runs' rows were duplicates" in said


def test_what_is_to_come_is_a_likely_value_and_its_range(found, lines):
    cost, said = found().cost, lines()
    assert "estimate for 16 CPUs, likely (least to most):" in said
    assert "  read      100 GB" in said, "all sizes are known"
    (time,) = [line for line in said if line.startswith("  time ")]
    assert time.endswith("); limited by the model")
    assert cost.dollars.least < cost.dollars.likely < cost.dollars.most
    (machines,) = [line for line in said if line.startswith("  machines ")]
    assert machines.split()[1:] == [f"${cost.dollars.likely:.2f}", f"(${cost.dollars.least:.2f}", "to", f"${cost.dollars.most:.2f})"]
    assert not any(line.startswith("  machines ") for line in lines(PROFILE, Cluster(16, 0, None)))


def test_gpus_that_would_wait_are_said_with_the_cpus_that_they_need(lines):
    profile = replace(PROFILE, device="cuda", annotate=0.0005)
    assert "            the GPUs would wait for images: 4 more CPUs would keep them busy" in lines(profile, GPUS)
    assert not any("would wait" in line for line in lines(replace(profile, annotate=0.005), GPUS))


@pytest.mark.parametrize(
    ("device", "cluster", "remedy"), [("cpu", GPUS, "on a machine with a GPU, as"), ("cuda", CPUS, "on a machine with no GPU, as")]
)
def test_a_time_that_is_not_known_says_how_it_would_be(lines, device, cluster, remedy):
    (time,) = [line for line in lines(replace(PROFILE, device=device), cluster) if line.startswith("  time ")]
    assert "not known" in time
    assert remedy in time


def test_on_gpus_they_are_what_annotates(lines):
    said = lines(replace(PROFILE, device="cuda"), GPUS)
    assert "estimate for 16 CPUs and 2 GPUs, likely (least to most):" in said
    assert any(line.endswith("annotate 5.0 on the GPU") for line in said)


@pytest.mark.parametrize("profile", [PROFILE, replace(PROFILE, status={"corrupt": 3}, bytes=np.empty(0), decode=np.empty(0))])
def test_as_json_it_has_the_same_and_no_secrets(found, tables, profile):
    text = json.dumps(found(profile, copies=3).public())
    assert "hunter2" not in text
    shown = json.loads(text)
    assert (shown["input"], shown["output"], shown["model"]) == ("https://host/list.csv", "s3://bucket/out", tables.model)
    assert shown["survey"]["copies"] == 3
    assert "sample" not in shown["survey"]
    assert shown["trial"]["status"] == profile.status
    assert shown["trial"]["milliseconds_an_image"]["annotate_device"] == 5
    assert shown["forecast"]["encoded"]["least"] == 999_997


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (999.7, "1 kB"), (3.98e6, "3.98 MB"), (999.7e6, "1 GB"), (1.5e12, "1.5 TB"), (12_345e12, "12,345 TB")],
)
def test_bytes_are_shown_in_the_unit_that_fits(value, text):
    assert _bytes(value) == text


@pytest.fixture
def annotated(corpus, tmp_path):
    """Settings for a corpus that an earlier run has annotated completely, by its record."""
    config = AnnotateConfig(input=str(corpus.folder), output=str(tmp_path))
    tables = tables_of(config)
    ids = [row["image_id"] for row in scan_input(config, tables, 100).sample]
    pq.write_table(pa.table({"image_id": pa.array(ids, pa.int64())}), tmp_path / "part.parquet")
    record = {
        "run_id": "r",
        "schema_version": SCHEMA_VERSION,
        "model": tables.model,
        "tower": tables.tower,
        "date": "2026-01-02",
        "finished_at": "2026-01-02T03:00:00+00:00",
    }
    record |= {"schemes": {scheme.name: scheme.kind for scheme in tables.schemes}, "counts": {"rows": 40}}
    record |= {"files": ["part.parquet"], "config": {}}
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "r.json").write_text(json.dumps(record))
    return config


def test_where_nothing_is_new_nothing_is_tried(annotated, monkeypatch):
    monkeypatch.setattr(module, "profile_images", lambda *args: pytest.fail("images were annotated"))
    found = dry_run(annotated, 64, CPUS)
    assert (found.profile, found.cost) == (None, None)
    said = summary(found).splitlines()
    assert said[-3] == "40 images are listed; 40 were annotated before, 0 are new"
    assert said[-2:] == ["left out of the input: 3 x hidden or a marker", "a run would write no rows"]
    assert json.loads(json.dumps(found.public()))["trial"] is None


def test_settings_that_are_right_pass_and_each_wrong_one_is_told_alone(annotated, tmp_path):
    check(annotated)
    for wrong, message in (
        ({"model": "ugrie-tny"}, "there is no model"),
        ({"input": str(tmp_path / "gone")}, "nothing found"),
        ({"output": "s4://bucket"}, "no known kind of storage"),
    ):
        with pytest.raises(ExceptionGroup) as problems:
            check(annotated.model_copy(update=wrong))
        (problem,) = problems.value.exceptions
        assert isinstance(problem, UserError)
        assert message in str(problem)


def test_a_night_from_embeddings_is_refused_since_it_reads_no_image(annotated):
    with pytest.raises(UserError, match=r"--from-embeddings reads none: try --limit 1000 instead"):
        dry_run(annotated.model_copy(update={"from_embeddings": True}), 64, CPUS)
