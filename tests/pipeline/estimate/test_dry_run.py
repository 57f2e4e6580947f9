"""A prospect as text and as JSON, for nights of every kind; tests/jobs/test_plan.py has a whole one."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.estimate import dry_run as module
from pipeline.estimate.cost import Cluster, forecast
from pipeline.estimate.dry_run import Prospect, _bytes, check, page, prospect
from pipeline.estimate.profile import Trial
from pipeline.estimate.scan import Survey, survey
from pipeline.run.plan import tables_of
from pipeline.table.schema import SCHEMA_VERSION

CONFIG = AnnotateConfig(
    input="https://me:hunter2@host/list.csv", output="s3://key:hunter2@bucket/out", storage_options={"secret": "hunter2"}
)
SURVEY = Survey(
    listed=1_250_000,
    known=250_000,
    new=1_000_000,
    bytes=10**11,
    sized=1_000_000,
    copies=None,
    in_files=0,
    repost_share=None,
    sample=[{"uri": "https://host/a.jpg", "link": "https://host/a.jpg?sig=hunter2"}],
)
TRIAL = Trial(
    status={"ok": 62, "corrupt": 2},
    failures=["https://host/b.jpg  corrupt: cut off"],
    bytes=np.full(62, 10**5),
    fetch_core=0.001,
    fetch_wait=0.01,
    decode=np.full(62, 0.004),
    annotate=0.005,
    device="cpu",
    cores=2,
    batch_size=8,
)
CPUS, GPUS = Cluster(16, 0, 1.0), Cluster(16, 2, 4.0)


@pytest.fixture(scope="module")
def tables():
    return tables_of(CONFIG)


@pytest.fixture
def found(tables):
    """What a night with these figures would be."""

    def make(trial=TRIAL, cluster=CPUS, **counts):
        about = replace(SURVEY, **counts)
        return Prospect(CONFIG, tables, cluster, about, trial, forecast(about, trial, cluster, None))

    return make


@pytest.fixture
def lines(found):
    """The page of such a night, line by line."""
    return lambda *args, **counts: page(found(*args, **counts)).splitlines()


def test_it_says_what_goes_where_by_which_model_and_no_secrets(lines, tables):
    said = lines()
    assert said[0] == f"https://host/list.csv -> s3://bucket/out, by {tables.model}: polarity3, polarity2, valence, arousal"
    assert "hunter2" not in "\n".join(said)
    assert said[2] == "1,250,000 images are listed; 250,000 were annotated before, 1,000,000 are new"


def test_the_sample_is_counted_by_status_and_some_failures_are_shown(lines):
    said = lines()
    assert "of 64 new images, drawn at random and annotated here (cpu, 2 cores):" in said
    assert "  ok                62  annotated" in said
    assert "    https://host/b.jpg  corrupt: cut off" in said
    assert "  ms an image: 1.0 of a core to fetch, 4.0 to decode, 5.0 on the whole machine to annotate" in said
    many = lines(replace(TRIAL, failures=[f"{i} corrupt" for i in range(20)]))
    assert [line for line in many if line.endswith(" corrupt")] == [f"    {i} corrupt" for i in range(5)]


def test_copies_and_reposts_are_said_where_they_are_known(lines):
    assert not any("another's bytes" in line or "were copies" in line for line in lines())
    said = lines(copies=40_000, repost_share=0.125)
    assert "  40,000 of them have another's bytes, as their ETags say: they are fetched, and not annotated again" in said
    assert "  12.5% of the last nights' rows were copies" in said


def test_what_is_to_come_is_a_likely_value_and_its_range(found, lines):
    about, said = found().forecast, lines()
    assert "on 16 CPUs, likely (at least to at most):" in said
    assert "  read      100 GB" in said, "all sizes are known"
    (time,) = [line for line in said if line.startswith("  time ")]
    assert time.endswith("); limited by the model")
    assert about.dollars.least < about.dollars.likely < about.dollars.most
    (machines,) = [line for line in said if line.startswith("  machines ")]
    assert machines.split()[1:] == [f"${about.dollars.likely:.2f}", f"(${about.dollars.least:.2f}", "to", f"${about.dollars.most:.2f})"]
    assert not any(line.startswith("  machines ") for line in lines(TRIAL, Cluster(16, 0, None)))


@pytest.mark.parametrize(
    ("device", "cluster", "remedy"), [("cpu", GPUS, "on a machine with a GPU, as"), ("cuda", CPUS, "on a machine with no GPU, as")]
)
def test_a_time_that_is_not_known_says_how_it_would_be(lines, device, cluster, remedy):
    (time,) = [line for line in lines(replace(TRIAL, device=device), cluster) if line.startswith("  time ")]
    assert "not known" in time
    assert remedy in time


def test_on_gpus_they_are_what_annotates(lines):
    said = lines(replace(TRIAL, device="cuda"), GPUS)
    assert "on 16 CPUs and 2 GPUs, likely (at least to at most):" in said
    assert any(line.endswith("5.0 on the GPU to annotate") for line in said)


@pytest.mark.parametrize("trial", [TRIAL, replace(TRIAL, status={"corrupt": 3}, bytes=np.empty(0), decode=np.empty(0))])
def test_as_json_it_has_the_same_and_no_secrets(found, tables, trial):
    text = json.dumps(found(trial, copies=3).public())
    assert "hunter2" not in text
    shown = json.loads(text)
    assert (shown["input"], shown["output"], shown["model"]) == ("https://host/list.csv", "s3://bucket/out", tables.model)
    assert shown["survey"]["copies"] == 3
    assert "sample" not in shown["survey"]
    assert shown["trial"]["status"] == trial.status
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
    """A night over a corpus of which an earlier run, by its record, has annotated all."""
    config = AnnotateConfig(input=str(corpus.folder), output=str(tmp_path))
    tables = tables_of(config)
    ids = [row["image_id"] for row in survey(config, tables, 100).sample]
    pq.write_table(pa.table({"image_id": pa.array(ids, pa.int64())}), tmp_path / "part.parquet")
    record = {
        "run_id": "r",
        "schema_version": SCHEMA_VERSION,
        "model": tables.model,
        "date": "2026-01-02",
        "finished_at": "2026-01-02T03:00:00+00:00",
    }
    record |= {"schemes": {scheme.name: scheme.kind for scheme in tables.schemes}, "counts": {"rows": 40}}
    record |= {"files": ["part.parquet"], "config": {}}
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "r.json").write_text(json.dumps(record))
    return config


def test_where_nothing_is_new_nothing_is_tried(annotated, monkeypatch):
    monkeypatch.setattr(module, "try_out", lambda *args: pytest.fail("images were annotated"))
    found = prospect(annotated, 64, CPUS)
    assert (found.trial, found.forecast) == (None, None)
    said = page(found).splitlines()
    assert said[-2:] == ["40 images are listed; 40 were annotated before, 0 are new", "a night would commit a run of no rows"]
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
    with pytest.raises(UserError, match=r"from_embeddings = True: .* try --limit 1000 instead"):
        prospect(annotated.model_copy(update={"from_embeddings": True}), 64, CPUS)
