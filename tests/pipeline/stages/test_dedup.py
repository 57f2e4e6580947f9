"""Duplicates are found by content hash, in a run and in earlier rows."""

import datetime as dt
import hashlib
import json
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import AnnotateConfig
from pipeline.run.plan import prepare
from pipeline.stages import dedup, write
from pipeline.stages.dedup import LASTING, DedupActor, Deduplicator, EarlierRows, key, keys_of, part_of
from pipeline.table.output_folder import OutputFolder
from pipeline.table.schema import SCHEMA_VERSION, Tables
from tests.plugins.operators import block_path
from ugrie.schemes.scheme import load_scheme

pytestmark = pytest.mark.timeout(300)
NOW = dt.datetime(2026, 1, 31, tzinfo=dt.UTC)


# --- the actor


def test_bytes_are_the_blocks_that_claimed_them_first():
    actor = DedupActor()
    assert actor.claim(7, [1, 2, 1]) == [None, None, None]
    assert actor.claim(8, [2, 3]) == ["block-00000007.parquet", None]
    assert actor.claim(7, [3, 2]) == ["block-00000008.parquet", None]


def test_a_block_that_is_begun_again_claims_the_same():
    actor = DedupActor()
    first = [actor.claim(block, [block, 9, -block]) for block in (1, 2)]
    assert [actor.claim(block, [block, 9, -block]) for block in (1, 2)] == first


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 4), max_size=6)), max_size=20))
def test_whatever_is_claimed_has_one_owner_for_ever(claims):
    actor, owner = DedupActor(), {}
    for block, keys in claims:
        for each in keys:
            owner.setdefault(each, block)
        assert actor.claim(block, keys) == [None if owner[each] == block else write.file_name(owner[each]) for each in keys]


@given(st.lists(st.none() | st.binary(max_size=3), max_size=30))
def test_a_key_is_the_beginning_of_a_content_hash(contents):
    hashes = [data if data is None else hashlib.sha256(data).hexdigest() for data in contents]
    keys = keys_of(pa.chunked_array([pa.array(hashes, pa.string())]))
    assert keys.dtype == np.int64
    assert keys.tolist() == sorted({key(each) for each in hashes if each is not None})
    assert [int(each) & (2**64 - 1) for each in keys] == [int(each, 16) for each in (f"{key & (2**64 - 1):016x}" for key in keys.tolist())]


class Known:
    """Earlier rows with the given keys; with `wait`, an event, they wait for it before the last file."""

    def __init__(self, *files, wait=None):
        self.files, self.wait = files, wait

    def keys(self):
        for i, (file, keys) in enumerate(self.files):
            if self.wait is not None and i == len(self.files) - 1:
                self.wait.wait(20)
            if isinstance(keys, Exception):
                raise keys
            yield file, np.array(keys, np.int64)


def test_what_was_annotated_before_is_the_first_files_that_has_it():
    actor = DedupActor(Known(("annotations/b", [1, 2]), ("block-00000004.parquet", [9]), ("annotations/a", [2, 3])))
    assert actor.claim(0, [1, 2, 3, 4, 9]) == ["annotations/b", "annotations/b", "annotations/a", None, "block-00000004.parquet"]


def test_the_first_claim_waits_until_all_is_known():
    wait = threading.Event()
    actor = DedupActor(Known(("annotations/b", [1]), ("annotations/a", [2]), wait=wait))
    threading.Timer(0.2, wait.set).start()
    assert actor.claim(0, [2]) == ["annotations/a"]


def test_a_claim_does_not_wait_long_and_what_it_got_stays_its_own(monkeypatch):
    monkeypatch.setattr(dedup, "LOAD_SECONDS", 0.1)
    wait = threading.Event()
    actor = DedupActor(Known(("annotations/b", [1]), ("annotations/a", [2, 3]), wait=wait))
    assert actor.claim(0, [1, 2]) == ["annotations/b", None]
    wait.set()
    assert actor.loaded.wait(20)
    assert actor.claim(1, [2, 3]) == ["block-00000000.parquet", "annotations/a"]


def test_a_past_that_cannot_be_known_stops_nothing(caplog):
    actor = DedupActor(Known(("annotations/b", [1]), ("annotations/a", OSError("gone"))))
    assert actor.claim(0, [1, 2]) == ["annotations/b", None]
    assert "not all earlier rows could be read" in caplog.text


# --- several actors


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.integers(1, 8))
def test_parts_are_equal_ranges_of_keys(keys, parts):
    found = part_of(np.array(keys, np.int64), parts)
    assert found.tolist() == [part_of(each, parts) for each in keys]
    assert [part_of(each, parts) for each in sorted(keys)] == sorted(found.tolist())
    assert all(
        0 <= part < parts and abs(each + 2**63 - (2 * part + 1) * 2**63 / parts) <= 2**63 / parts + 2**32
        for each, part in zip(keys, found.tolist(), strict=True)
    )
    assert [part_of(each * 2**61 + 1 - 2**63, 8) for each in range(8)] == list(range(8))


def test_each_part_knows_its_own_of_the_earlier_rows():
    keys = [each * 2**61 + 1 - 2**63 for each in range(8)]
    actors = [DedupActor(Known(("annotations/a", keys)), part, 8) for part in range(8)]
    assert [actor.claim(0, keys).count("annotations/a") for actor in actors] == [1] * 8


class Remote:
    """A handle of an actor in this process, which counts its claims. `ray.get` is replaced by `answer`."""

    def __init__(self, part, parts):
        self.actor, self.claims, self.claim = DedupActor(part=part, parts=parts), [], self

    def remote(self, block, keys):
        self.claims.append(keys)
        return lambda: self.actor.claim(block, keys)


@pytest.fixture
def four_parts(monkeypatch):
    import ray

    def answer(claim, timeout):
        if (found := claim()) is None:
            raise ray.exceptions.ActorDiedError
        return found

    monkeypatch.setattr(ray, "get", answer)
    return Deduplicator(tuple(Remote(part, 4) for part in range(4)))


HASHES = [hashlib.sha256(bytes([i])).hexdigest() for i in range(40)]


def test_a_claim_is_one_call_to_each_part_that_is_concerned(four_parts):
    assert four_parts.owners(1, HASHES) == [None] * 40
    assert four_parts.owners(2, [*reversed(HASHES)]) == [write.file_name(1)] * 40
    assert four_parts.owners(3, HASHES[:1]) == [write.file_name(1)]
    calls = [len(actor.claims) for actor in four_parts.actors]
    assert sorted(calls) == [2, 2, 2, 3]
    assert calls[part_of(key(HASHES[0]), 4)] == 3
    assert sorted(each for actor in four_parts.actors for each in actor.claims[0]) == sorted(map(key, HASHES))
    assert four_parts.most_claimed == 4 * Deduplicator().most_claimed


def test_a_part_that_is_lost_loses_only_what_it_knew(four_parts, caplog):
    four_parts.owners(1, HASHES)
    four_parts.actors[2].actor.claim = lambda block, keys: None
    of_lost = [part_of(key(each), 4) == 2 for each in HASHES]
    assert any(of_lost)
    assert four_parts.owners(2, HASHES) == [None if lost else write.file_name(1) for lost in of_lost]
    assert caplog.text.count("does not answer (ActorDiedError)") == 1


# --- the rows of earlier runs


TABLES = Tables((load_scheme("polarity2"), load_scheme("valence")), crop_size=8, embedding_dim=None, model="m@1", tower="t")


def earlier_rows(output, **settings):
    defaults = {"folder": "rows", "done": (), "tables": TABLES, "precision": "fp32", "decoder": "d"}
    return EarlierRows(OutputFolder(str(output), {}), **defaults | {"since": NOW - dt.timedelta(days=30)} | settings)


def committed(output, name, **changes):
    """Write a record, without the files that it lists."""
    record = {
        "run_id": name,
        "schema_version": SCHEMA_VERSION,
        "model": "m@1",
        "tower": "t",
        "precision": "fp32",
        "decoder": "d",
        "date": "2026-01-30",
        "finished_at": (NOW - dt.timedelta(days=1)).isoformat(),
        "schemes": {"polarity2": "categorical", "valence": "ordinal"},
        "counts": {},
        "files": [f"annotations/{name}.parquet"],
        "config": {},
    }
    (output / "runs").mkdir(exist_ok=True)
    (output / "runs" / f"{name}.json").write_text(json.dumps(record | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "m@2"},
        {"precision": "bf16"},
        {"precision": None},
        {"schemes": {"valence": "ordinal", "polarity2": "categorical"}},
        {"schemes": {"polarity2": "categorical", "arousal": "ordinal", "valence": "ordinal"}},
        {"tower": "u"},
        {"tower": None},
        {"finished_at": (NOW - dt.timedelta(days=31)).isoformat()},
    ],
    ids=lambda changes: ", ".join(changes),
)
def test_runs_that_did_not_say_the_same_are_not_copied_from(tmp_path, changes):
    committed(tmp_path, "a")
    committed(tmp_path, "b", **changes)
    assert list(earlier_rows(tmp_path).files()) == ["annotations/a.parquet"]


def test_the_newest_night_comes_first_and_no_days_are_no_nights(tmp_path):
    for name, date in (("a", "2026-01-29"), ("b", "2026-01-30"), ("c", "2026-01-28")):
        committed(tmp_path, name, date=date)
    assert list(earlier_rows(tmp_path).files()) == [f"annotations/{name}.parquet" for name in "bac"]
    assert earlier_rows(tmp_path, since=None).files() == {}


def write_file(output, name, contents, columns=TABLES.output.names):
    """Write a committed run's file from pairs of status and content hash."""
    committed(output, name)
    (output / "annotations").mkdir(exist_ok=True)
    about = {"image_id": 1, "uri": "u", "model": "m@1", "run_id": name, "annotated_at": NOW}
    table = pa.Table.from_pylist([about | {"status": status, "content_hash": each} for status, each in contents], TABLES.output)
    pq.write_table(table.select(columns), output / "annotations" / f"{name}.parquet")


def test_of_a_file_only_what_is_so_for_good_is_copied(tmp_path):
    """Nothing is copied from a file that lacks a column, is broken, or no longer exists."""
    hashes = [hashlib.sha256(bytes([i])).hexdigest() for i in range(len(LASTING) + 2)]
    contents = [*zip([*LASTING, "too_large", "timeout"], hashes, strict=True), ("missing", None)]
    write_file(tmp_path, "a", contents)
    write_file(tmp_path, "b", contents, [name for name in TABLES.output.names if name != "valence"])
    for name in "cd":
        committed(tmp_path, name)
    (tmp_path / "annotations" / "c.parquet").write_bytes(b"no Parquet")
    found = {file: keys.tolist() for file, keys in dict(earlier_rows(tmp_path).keys()).items()}
    nothing = {f"annotations/{name}.parquet": [] for name in "bcd"}
    assert found == {"annotations/a.parquet": sorted(map(key, hashes[: len(LASTING)])), **nothing}


@pytest.mark.parametrize("decoder", [None, "another"])
def test_failures_under_other_limits_or_of_another_decoder_are_not_copied(tmp_path, decoder):
    """An earlier run's limits may have been lower, or its libraries older; those of older records are not known."""
    hashes = [hashlib.sha256(bytes([i])).hexdigest() for i in range(len(LASTING))]
    write_file(tmp_path, "a", list(zip(LASTING, hashes, strict=True)))
    committed(tmp_path, "a", decoder=decoder)
    assert LASTING[0] == "ok"
    assert [keys.tolist() for keys in dict(earlier_rows(tmp_path).keys()).values()] == [[key(hashes[0])]]


def test_a_run_that_goes_on_knows_what_its_blocks_did_themselves(images, operators, tmp_path):
    (tmp_path / "in").mkdir()
    for name, seed in {"0a": 1, "0b": 2, "1a": 1, "1b": 3, "2a": 1}.items():
        (tmp_path / "in" / f"{name}.jpg").write_bytes(images.jpeg(seed))
    plan = prepare(AnnotateConfig(input=str(tmp_path / "in"), output=str(tmp_path / "out"), block_rows=2))
    with operators.sharing():
        operators.do(plan, [0, 1])
    Path(block_path(plan, 2)).write_bytes(b"half a block")
    known = EarlierRows(plan.output, plan.rows_folder, np.arange(3), plan.tables, "fp32", None, "d")
    hashes = [hashlib.sha256(images.jpeg(seed)).hexdigest() for seed in (1, 2, 3, 4)]
    assert DedupActor(known).claim(9, list(map(key, hashes))) == [write.file_name(0), write.file_name(0), write.file_name(1), None]


# --- asked through Ray


def test_without_ray_and_where_nobody_answers_every_block_does_its_images_itself(local_ray, tmp_path):
    import ray

    hashes = [hashlib.sha256(bytes([i])).hexdigest() for i in range(3)]
    assert Deduplicator().owners(0, hashes) == [None] * 3
    shared = Deduplicator.start(earlier_rows(tmp_path), loaders=1)
    owners = ray.remote(num_cpus=0)(lambda block, some: shared.owners(block, some))
    assert ray.get(owners.remote(1, hashes[:2])) == [None, None]
    assert ray.get(owners.remote(2, hashes)) == [write.file_name(1), write.file_name(1), None]
    (actor,) = shared.actors
    ray.kill(actor)
    assert shared.owners(3, hashes) == [None] * 3


def test_a_ledger_that_was_lost_knows_what_was_before_the_run_again(local_ray, tmp_path):
    import ray

    before, new = [hashlib.sha256(data).hexdigest() for data in (b"before", b"new")]
    write_file(tmp_path, "a", [("ok", before)])
    shared = Deduplicator.start(earlier_rows(tmp_path), loaders=dedup.LOADERS_A_PART + 1)
    assert len(shared.actors) == 2
    assert shared.owners(1, [before, new]) == ["annotations/a.parquet", None]
    for actor in shared.actors:
        ray.kill(actor, no_restart=False)
    block, end = 2, time.monotonic() + 60
    while shared.owners(block, [new]) != [None] and time.monotonic() < end:
        block += 1
        time.sleep(0.05)
    assert shared.owners(1, [before, new]) == ["annotations/a.parquet", write.file_name(block)]
