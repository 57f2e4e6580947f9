"""A run is planned, and user errors are found, before any cluster work begins."""

import datetime as dt
import json
import os
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.run.plan import find_committed, overtaken_ids, prepare, too_many_failed
from pipeline.stages.write import file_name
from pipeline.table.run_record import RunRecord
from pipeline.table.schema import SCHEMA_VERSION
from ugrie.model import checkpoint


@pytest.fixture
def config(corpus, tmp_path):
    def make(**settings):
        return AnnotateConfig(**{"input": str(corpus.folder), "output": str(tmp_path / "out"), "run_id": "r", "block_rows": 9} | settings)

    return make


@pytest.fixture
def commit(tmp_path):
    """Return a function that commits a run whose table has these IDs, by the tower of ugrie-tiny unless it names another."""
    folder = checkpoint.find("ugrie-tiny")
    tower = checkpoint.tower_digest(folder, checkpoint.read_config(folder))

    def write(run_id, ids, model, schemes=("polarity3", "polarity2", "valence", "arousal"), status="ok", days_ago=30, **settings):
        file = f"annotations/dt=2026-01-02/part-{run_id}-00000000-00000.parquet"
        record = {
            "run_id": run_id,
            "schema_version": settings.pop("schema_version", SCHEMA_VERSION),
            "model": model,
            "tower": settings.pop("tower", tower),
            "date": "2026-01-02",
            "finished_at": (dt.datetime.now(dt.UTC) - dt.timedelta(days=days_ago)).isoformat(),
        }
        record |= {"schemes": dict.fromkeys(schemes, "ordinal"), "counts": {"rows": len(ids)}, "files": [file], "config": settings}
        for name in (file, f"runs/{run_id}.json"):
            (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image_id": pa.array(ids, pa.int64()), "status": [status] * len(ids)}), tmp_path / "out" / file)
        (tmp_path / "out" / "runs" / f"{run_id}.json").write_text(json.dumps(record))

    return write


def write_block(plan, number):
    """Write some bytes as a block's file: planning reads only the names of these files."""
    plan.output.write(f"{plan.rows_folder}/{file_name(number)}", b"rows")


def manifest(plan):
    return pa.concat_tables(plan.manifest.read(plan.output, block) for block in range(plan.manifest.blocks))


def test_a_plan_has_a_manifest_of_all_images_and_all_blocks_to_do(config, corpus):
    plan = prepare(config())
    uris = [uri for block in plan.todo for uri in plan.manifest.read(plan.output, block).column("uri").to_pylist()]
    assert uris == [f"file://{path}" for path in corpus.files]
    assert (plan.manifest.rows, plan.todo) == (40, (0, 1, 2, 3, 4))


def test_only_the_first_images_are_planned_where_a_limit_is_set(config):
    assert prepare(config(limit=3)).manifest.rows == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "ugrie-tny"}, r"there is no model 'ugrie-tny' \(did you mean 'ugrie-tiny'\?\)"),
        ({"schemes": "polarity2,valense"}, r"ugrie-tiny was not trained for 'valense' \(did you mean 'valence'\?\); it knows .*polarity2"),
        ({"schemes": "goemotions27"}, "ugrie-tiny was not trained for 'goemotions27'; it knows"),
        ({"schemes": ""}, "schemes = none: a template needs at least one scheme"),
        ({"schemes": "valence,valence"}, "schemes = valence, valence: two schemes of the template have the name 'valence'"),
        ({"input": "nowhere/at/all"}, "nothing found at nowhere/at/all"),
        ({"input": "s4://bucket"}, "did you mean 's3://'"),
        ({"output": "s4://bucket"}, "did you mean 's3://'"),
    ],
)
def test_what_a_user_got_wrong_is_said_and_nothing_is_written(config, tmp_path, settings, message):
    with pytest.raises(UserError, match=message) as error:
        prepare(config(**settings))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_named(config, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"can't be written: .*check the path and the credentials|output can't be read"):
        prepare(config(output=str(tmp_path / "file" / "out")))


def test_an_input_that_cannot_be_read_is_not_blamed_on_the_output(config, tmp_path):
    (tmp_path / "list.csv").symlink_to(tmp_path / "list.csv")
    with pytest.raises(UserError, match=r"list\.csv") as error:
        prepare(config(input=str(tmp_path / "list.csv")))
    assert "output" not in str(error.value).replace(str(tmp_path), "")
    assert "written" not in str(error.value)


def test_a_run_that_died_goes_on_with_the_blocks_that_are_left(config):
    plan = prepare(config(date="2026-01-02"))
    for number in (0, 3):
        write_block(plan, number)
    again = prepare(config(date="2026-01-03", block_rows=1))
    assert again.todo == (1, 2, 4)
    assert again.manifest == plan.manifest
    assert again.started_at == plan.started_at
    assert again.config.date.isoformat() == "2026-01-02"


def test_a_run_that_goes_on_has_the_manifest_it_began_with(config, corpus, tmp_path, images):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(images.jpeg(1))
    prepare(config(input=str(folder)))
    (folder / "b.jpg").write_bytes(images.jpeg(2))
    assert prepare(config(input=str(folder))).manifest.rows == 1


def test_a_run_that_died_before_its_plan_was_written_begins_again(config):
    plan = prepare(config())
    plan.output.remove("_work/r/plan.json")
    assert prepare(config(limit=7)).manifest.rows == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": 3}, "run r was begun with limit = None, not 3: give that again, or another --run-id"),
        ({"schemes": "valence"}, r"run r was begun with schemes = \[.*\], not \['valence'\]"),
        ({"column": "image"}, "run r was begun with column = uri, not image"),
        ({"keep_embeddings": True}, "run r was begun with keep_embeddings = False, not True"),
        ({"input": "elsewhere"}, "run r was begun with input = .*, not elsewhere"),
    ],
)
def test_a_run_that_goes_on_must_be_asked_for_the_same(config, settings, message):
    prepare(config())
    with pytest.raises(UserError, match=message):
        prepare(config(**settings))


def test_drivers_that_begin_one_run_at_once_settle_on_one_list(config, tmp_path):
    with ThreadPoolExecutor(6) as pool:
        plans = list(pool.map(lambda _: prepare(config()), range(6)))
    assert len({(plan.manifest.folder, plan.started_at, plan.todo) for plan in plans}) == 1
    assert len({plan.attempt for plan in plans}) == 6
    assert len(list((tmp_path / "out" / "_work" / "r").glob("manifest-*"))) == 1
    assert plans[0].manifest.read(plans[0].output, 0).num_rows == 9


def test_resume_goes_on_with_the_newest_run_that_was_asked_for_the_same(config, caplog, commit):
    caplog.set_level("INFO")

    def resumed(**settings):
        settings = {"resume": True} | settings
        return prepare(AnnotateConfig(**config(**settings).model_dump(exclude={"run_id"}, exclude_unset=True))).config.run_id

    assert resumed() not in ("a", "b")
    assert "no unfinished run has these settings: beginning a new one" in caplog.text
    for run_id, settings in {"a": {}, "b": {}, "other": {"limit": 3}, "c": {}}.items():
        prepare(config(run_id=run_id, **settings))
    assert resumed() == "c"
    assert "resuming run c" in caplog.text
    assert resumed(limit=3) == "other"
    commit("c", [], "another model")
    assert resumed() == "b"
    assert prepare(config(run_id="mine", resume=True)).config.run_id == "mine"


def test_another_run_into_the_same_output_is_a_run_of_its_own(config):
    plan = prepare(config())
    write_block(plan, 0)
    assert prepare(config(run_id="r2", limit=3)).todo == (0,)


# --- what was annotated before


def test_images_that_a_committed_run_annotated_are_not_planned_again(config, corpus, commit):
    first = prepare(config(run_id="first"))
    table = manifest(first)
    commit("first", table.column("image_id").to_pylist()[:15], first.tables.model)
    commit("second", table.column("image_id").to_pylist()[10:22], first.tables.model)
    plan = prepare(config())
    assert manifest(plan).equals(table[22:])
    assert (plan.manifest.listed, plan.manifest.known, plan.manifest.rows, plan.todo) == (40, 22, 18, (0, 1))
    settled = plan.output.read_json("_work/r/plan.json")
    assert (settled["listed"], settled["known"], settled["rows"]) == (40, 22, 18)


@pytest.mark.parametrize(
    ("had", "asked", "known"),
    [
        ({}, {}, True),
        ({}, {"reannotate": True}, False),
        ({}, {"schemes": "valence"}, True),
        ({"schemes": ("valence", "arousal")}, {}, False),
        ({"schemes": ("valence", "arousal")}, {"schemes": "arousal,valence"}, True),
        ({"schemes": ("valence", "arousal")}, {"schemes": "valence,polarity2"}, False),
        ({"keep_embeddings": False}, {"keep_embeddings": True}, False),
        ({"keep_embeddings": True}, {"keep_embeddings": True}, True),
        ({"keep_embeddings": True}, {}, True),
        ({"model": "ugrie-tiny@000000000000"}, {}, False),
    ],
)
def test_annotated_before_is_what_has_all_that_is_asked_for_by_the_same_model(config, commit, had, asked, known):
    first = prepare(config(run_id="first"))
    commit("first", manifest(first).column("image_id").to_pylist(), **{"model": first.tables.model} | had)
    assert prepare(config(**asked)).manifest.known == (40 if known else 0)


def test_images_whose_failure_may_pass_are_retried_for_some_days_by_themselves(config, commit, caplog):
    caplog.set_level("INFO")
    first = prepare(config(run_id="first"))
    ids, model = manifest(first).column("image_id").to_pylist(), first.tables.model
    commit("first", ids[:10], model)
    commit("late", ids[10:20], model, status="timeout", days_ago=2)
    commit("broken", ids[20:30], model, status="corrupt", days_ago=2)
    commit("later", ids[10:12], model, days_ago=1)
    plan = prepare(config(run_id="again"))
    assert manifest(plan).column("image_id").to_pylist() == [*ids[12:20], *ids[30:]]
    assert manifest(plan).column("retried").to_pylist() == [True] * 8 + [False] * 10
    assert (plan.manifest.listed, plan.manifest.known, plan.manifest.retried, plan.manifest.rows) == (40, 22, 8, 18)
    assert "40 images are listed, of which 22 were annotated before, 8 failed before and are retried and 10 are new" in caplog.text
    assert prepare(config(run_id="never", retry_days=0)).manifest.known == 30
    commit("failed before that", ids[12:15], model, status="missing", days_ago=4)
    assert manifest(prepare(config(run_id="fewer"))).column("image_id").to_pylist() == [*ids[15:20], *ids[30:]]
    assert prepare(config(run_id="more", retry_days=5)).manifest.retried == 8
    with pytest.raises(UserError, match="run again was begun with retry_days = 3, not 5"):
        prepare(config(run_id="again", retry_days=5))


def test_a_run_with_too_many_failures_does_those_again_and_leaves_the_next_date_to_another_run(config, commit, caplog):
    caplog.set_level("INFO")
    plan = prepare(config(date="2026-01-02"))
    for number in range(5):
        write_block(plan, number)
    too_many_failed(plan, [1, 4])
    too_many_failed(plan, [1])  # another driver of the same run
    assert prepare(config()).todo == (1, 4)

    def resumed(date):
        settings = config(resume=True, date=date).model_dump(exclude={"run_id"}, exclude_unset=True)
        return prepare(AnnotateConfig(**settings))

    assert resumed("2026-01-02").config.run_id == "r"
    later = resumed("2026-01-03")
    assert (later.config.run_id == "r", later.manifest.rows, later.todo) == (False, 40, (0, 1, 2, 3, 4))
    assert "run r is not resumed: too many of its images failed" in caplog.text


def test_an_image_that_changed_is_new(config, commit, images, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(images.jpeg(1))
    first = prepare(config(run_id="first", input=str(tmp_path / "in")))
    commit("first", manifest(first).column("image_id").to_pylist(), first.tables.model)
    (tmp_path / "in" / "b.jpg").write_bytes(images.jpeg(2))
    os.utime(tmp_path / "in" / "b.jpg", (1, 1))
    assert manifest(prepare(config(input=str(tmp_path / "in")))).column("uri").to_pylist() == [f"file://{tmp_path}/in/b.jpg"]


def test_a_limit_counts_new_images(config, corpus, commit):
    first = prepare(config(run_id="first"))
    table = manifest(first)
    commit("first", table.column("image_id").to_pylist()[5:15], first.tables.model)
    plan = prepare(config(limit=7))
    assert manifest(plan).column("uri").to_pylist() == [f"file://{path}" for path in [*corpus.files[:5], *corpus.files[15:17]]]
    assert (plan.manifest.listed, plan.manifest.known) == (17, 10)


def test_a_run_that_goes_on_leaves_out_blocks_whose_images_another_run_annotated_meanwhile(config, commit):
    old = prepare(config(run_id="old"))
    ids, model = manifest(old).column("image_id").to_pylist(), old.tables.model
    commit("old", ids[:4], model)
    plan = prepare(config())
    assert (plan.before, overtaken_ids(plan).tolist()) == ({"old"}, [])
    commit("another model", ids, "m@1")
    commit("failed", ids[13:30], model, status="timeout", days_ago=0)
    assert prepare(config()).todo == (0, 1, 2, 3)
    commit("other", ids[4:25], model)
    assert overtaken_ids(plan).tolist() == sorted(ids[4:25])
    again = prepare(config())
    assert (again.manifest, again.todo) == (plan.manifest, (2, 3))
    write_block(plan, 2)
    assert prepare(config()).todo == (3,)


def test_a_run_that_annotates_everything_again_is_not_overtaken(config, commit):
    plan = prepare(config(reannotate=True))
    commit("other", manifest(plan).column("image_id").to_pylist(), plan.tables.model)
    assert prepare(config(reannotate=True)).todo == (0, 1, 2, 3, 4)


def test_where_nothing_is_new_there_is_nothing_to_do(config, commit):
    first = prepare(config(run_id="first"))
    commit("first", manifest(first).column("image_id").to_pylist(), first.tables.model)
    plan = prepare(config())
    assert (plan.manifest.listed, plan.manifest.known, plan.manifest.rows, plan.todo) == (40, 40, 0, ())
    assert prepare(config()).manifest == plan.manifest


def test_an_input_that_is_wrong_is_found_before_earlier_runs_are_read(config, commit, tmp_path):
    commit("first", [1], "a model")
    (tmp_path / "out" / "runs" / "first.json").write_text("half a rec")
    with pytest.raises(UserError, match="nothing found at nowhere"):
        prepare(config(input="nowhere"))
    with pytest.raises(UserError, match=r"runs/first\.json is no run record"):
        prepare(config())
    assert not (tmp_path / "out" / "_work").exists()


# --- runs that are done


def test_a_run_without_a_record_is_not_committed(config):
    prepare(config())
    assert find_committed(config()) is None


def test_a_run_with_a_record_is(config, tmp_path):
    record = RunRecord(
        run_id="r",
        model="m@1",
        date="2026-01-02",
        finished_at="2026-01-02T03:00:00+00:00",
        schemes={},
        counts={},
        files=(),
        config=config().public(),
    )
    (tmp_path / "out" / "runs").mkdir(parents=True)
    (tmp_path / "out" / "runs" / "r.json").write_bytes(record.to_json())
    assert find_committed(config()) == record
    assert find_committed(config(batch_size=3, date="2020-01-01")) == record
    with pytest.raises(UserError, match="run r was begun with limit = None, not 3: give that again, or another --run-id"):
        find_committed(config(limit=3))


def test_secrets_are_in_no_file_of_a_plan(config, corpus):
    fs = fsspec.filesystem("memory")
    plan = prepare(config(output="memory://plan-test", storage_options={"secret": "hunter2"}))
    files = fs.find("/plan-test")
    assert plan.output.absolute("_work/r/plan.json") in files
    assert all(b"hunter2" not in fs.cat_file(file) for file in files)


@pytest.mark.parametrize("settings", [{}, {"reannotate": True}, {"model": "ugrie-l14"}])
def test_an_output_with_runs_of_another_schema_version_is_refused_with_what_to_do(config, commit, tmp_path, settings, monkeypatch):
    (tmp_path / "clip.safetensors").write_bytes(b"weights")
    if "model" in settings:  # whichever model the runs are of
        settings = settings | {"tower_weights": str(tmp_path / "clip.safetensors")}
    commit("old", [1, 2], "m@1", schema_version=1)
    with pytest.raises(
        UserError,
        match=r"out holds runs of schema version 1, such as old, whose image IDs are others than those of version 2: give a new --out",
    ) as error:
        prepare(config(**settings))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "_work").exists()


def test_embeddings_of_another_schema_version_are_refused_with_what_to_do(config, commit, tmp_path):
    commit("old", [1, 2], "m@1", schema_version=1, keep_embeddings=True)
    with pytest.raises(
        UserError, match=r"out holds runs of schema version 1, .* annotate the images themselves, without --from-embeddings"
    ):
        prepare(config(input=str(tmp_path / "out"), output=str(tmp_path / "new"), from_embeddings=True))
    assert not (tmp_path / "new").exists()


def test_a_run_that_was_begun_in_another_schema_version_does_not_go_on(config, tmp_path):
    prepare(config())
    path = tmp_path / "out" / "_work" / "r" / "plan.json"
    plan = json.loads(path.read_text())
    del plan["schema_version"]  # as version 1 wrote it
    path.write_text(json.dumps(plan))
    with pytest.raises(UserError, match="run r was begun by another version of UGRIE, whose image IDs are others: give another --run-id"):
        prepare(config())
    assert prepare(AnnotateConfig(**config().model_dump(exclude={"run_id"}) | {"resume": True})).config.run_id != "r"


@pytest.fixture
def named(config, tmp_path):
    """Return settings of ugrie-l14, whose tower is known by name, with a file of weights of this content."""

    def settings(content, **others):
        (tmp_path / "clip.safetensors").write_bytes(content)
        return config(model="ugrie-l14", tower_weights=str(tmp_path / "clip.safetensors"), **others)

    return settings


def test_a_run_does_not_go_on_with_other_weights_of_the_tower_under_the_same_path(named):
    before = prepare(named(b"weights"))
    assert prepare(named(b"weights")).tables.tower == before.tables.tower
    with pytest.raises(
        UserError, match=r"run r was begun with tower = [0-9a-f]{12}, not [0-9a-f]{12}: give that again, or another --run-id"
    ):
        prepare(named(b"others!"))


def test_resuming_with_other_weights_of_the_tower_begins_a_new_run(named):
    def resumed(content):
        return prepare(AnnotateConfig(**named(content).model_dump(exclude={"run_id"}) | {"resume": True})).config.run_id

    prepare(named(b"weights"))
    assert (resumed(b"weights") == "r", resumed(b"others!") == "r") == (True, False)


def test_images_are_known_only_to_a_model_with_the_same_weights_of_its_tower(named, commit):
    plan = prepare(named(b"weights"))
    ids, schemes = manifest(plan)["image_id"].to_pylist(), [scheme.name for scheme in plan.tables.schemes]
    commit("first", ids, plan.tables.model, schemes=schemes, tower=plan.tables.tower)
    assert prepare(named(b"weights", run_id="again")).manifest.known == 40
    assert prepare(named(b"others!", run_id="others")).manifest.known == 0


def test_the_weights_of_a_named_tower_are_part_of_its_identity_from_embeddings_too(named, config, tmp_path, monkeypatch):
    def fetched(tower):
        raise OSError("no network")

    monkeypatch.setattr("ugrie.vision.encoder.fetch_weights", fetched)
    with pytest.raises(UserError, match="no network"):
        prepare(config(model="ugrie-l14", from_embeddings=True))
