"""The cluster plans the same manifest as the driver, whatever the input, and says the same where something is wrong."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.planning import cluster
from pipeline.planning.cluster import ClusterPlanner
from pipeline.planning.new_images import NewImages
from pipeline.planning.pieces import PieceLister
from pipeline.run.plan import prepare, tables_of
from tests.plugins.planned import check_same, commit, csv, delta, folder, parquet, uris, write
from tests.plugins.plans import manifest


@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_tables_with_a_log_have_the_manifest_that_the_driver_makes(config, plan_here, tmp_path, request, kind):
    source = delta(tmp_path / "in") if kind == "delta" else request.getfixturevalue(kind)(tmp_path / "in")
    by_driver = prepare(config(source))
    assert by_driver.manifest.rows > 9
    check_same(by_driver, plan_here(config(source)))


def test_a_prefix_has_the_manifest_that_the_driver_makes(config, plan_here, tmp_path, s3, bucket, monkeypatch):
    source = bucket(tmp_path / "in")
    monkeypatch.setattr("pipeline.storage.listing.DIVIDED_PAGES", 1)
    by_driver = prepare(config(source, storage_options=s3.options, output=f"s3://{s3.bucket}/planned-out"))
    check_same(by_driver, plan_here(config(source, storage_options=s3.options, output=f"s3://{s3.bucket}/planned-out")))
    assert by_driver.manifest.rows == 10


def test_embeddings_of_earlier_runs_have_the_manifest_that_the_driver_makes(config, plan_here, operators, corpus, tmp_path):
    operators.commit(prepare(config(corpus.folder, keep_embeddings=True, run_id="one")))
    operators.commit(prepare(config(corpus.folder / "b", keep_embeddings=True, reannotate=True, run_id="two")))
    settings = {"from_embeddings": True, "output": str(tmp_path / "again")}
    by_driver = prepare(config(tmp_path / "out", **settings))
    assert by_driver.manifest.rows == 34
    check_same(by_driver, plan_here(config(tmp_path / "out", **settings)))
    (tmp_path / "out/runs/two.json").unlink()
    record = json.loads((tmp_path / "out/runs/one.json").read_text())
    (tmp_path / "out/runs/one.json").write_text(json.dumps(record | {"files": []}))
    with pytest.raises(UserError, match="holds no embeddings of this model's image tower: no image of its runs could be annotated"):
        plan_here(config(tmp_path / "out", **settings, run_id="nothing"))


def test_every_kind_of_input_has_the_manifest_that_the_driver_makes(config, source, plan_here):
    by_driver = prepare(config(source))
    by_cluster = plan_here(config(source))
    check_same(by_driver, by_cluster)
    assert by_driver.manifest.rows > 9
    saved = json.loads(by_cluster.output.read("_work/r-by-cluster/plan.json"))
    assert sorted(by_cluster.output.names("_work/r-by-cluster")) == sorted(["plan.json", saved["manifest"]])


@pytest.mark.parametrize("statuses", [("ok",), ("ok", "missing", "corrupt", "timeout")])
def test_images_of_earlier_runs_are_known_or_retried_as_the_driver_has_it(config, source, plan_here, tmp_path, statuses):
    first = prepare(config(source, run_id="first"))
    commit(first, tmp_path, tables_of(first.config), statuses)
    by_driver = prepare(config(source))
    assert by_driver.manifest.known > 0
    assert (by_driver.manifest.retried > 0) == (len(statuses) > 1)
    check_same(by_driver, plan_here(config(source)))


def test_a_night_without_anything_new_has_no_manifest(config, plan_here, tmp_path):
    source = folder(tmp_path / "in")
    first = prepare(config(source, run_id="first"))
    ids = manifest(first)["image_id"]
    commit(first, tmp_path, tables_of(first.config), ("ok",))
    (path,) = (tmp_path / "out/annotations").rglob("*.parquet")
    pq.write_table(pa.table({"image_id": ids, "status": ["ok"] * len(ids)}), path)
    found = plan_here(config(source))
    assert (found.manifest.rows, found.manifest.known, found.todo.tolist()) == (0, 10, [])
    check_same(prepare(config(source)), found)


def test_images_on_the_list_are_left_out(config, source, plan_here, tmp_path):
    rows = manifest(prepare(config(source, run_id="first")))
    write(tmp_path / "list.txt", "\n".join([rows["uri"][1].as_py(), str(rows["image_id"][4].as_py())]))
    by_driver = prepare(config(source, suppress=str(tmp_path / "list.txt")))
    assert by_driver.manifest.suppressed == 2
    check_same(by_driver, plan_here(config(source, suppress=str(tmp_path / "list.txt"))))


@pytest.mark.parametrize("glob", ["a/**", "*/*.jpg", "{a,b}/*", "{9.jpg,a/1.jpg}", "9.jpg", "c"])
def test_globs_and_braces_name_the_same_images(config, plan_here, tmp_path, glob):
    source = folder(tmp_path / "in") / glob
    check_same(prepare(config(source)), plan_here(config(source)))


def test_blocks_have_the_drivers_size_by_default(config, source, plan_here):
    check_same(prepare(config(source, block_rows=None)), plan_here(config(source, block_rows=None)))


@pytest.mark.parametrize(
    ("glob", "content", "message"),
    [
        ("", {}, "nothing found at"),
        ("{a,b}/*", {"a/1.jpg": "x"}, "nothing found at .*, as .*/b/\\*"),
        ("", {"README.md": "x"}, "it holds only files that are not read"),
        ("", {"1.csv": "uri\na.jpg\n", "2.csv": "url\nb.jpg\n"}, "2.csv has no column 'uri'"),
        ("", {"1.csv": "uri\n"}, "holds no images"),
        ("", {"1.parquet": "no table"}, "1.parquet can't be read as a table"),
        ("", {"1.tar": "x" * 600}, "1.tar is not a readable .tar"),
        ("", {"photo.xyz": "x", "x.csv": "uri"}, "x.csv is beside photo.xyz, whose name is not known"),
    ],
)
def test_what_is_wrong_with_an_input_is_said_as_the_driver_says_it(config, plan_here, tmp_path, glob, content, message):
    source = tmp_path / "in"
    source.mkdir()
    for name, data in content.items():
        write(source / name, data)
    said = []
    for plan in (prepare, plan_here):
        with pytest.raises(UserError, match=message) as error:
            plan(config(source / glob))
        said.append(str(error.value))
    assert said[0] == said[1]
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_what_the_cluster_loses_is_found_once_more(config, plan_here, tmp_path, monkeypatch, caplog):
    from ray.exceptions import NodeDiedError

    source, shuffle, lost = csv(tmp_path / "in"), cluster.Shuffle.__call__, [NodeDiedError("node 2"), NodeDiedError("node 3")]

    def losing(self, files):
        found = shuffle(self, files)
        yield next(found)
        if lost:
            raise lost.pop()
        yield from found

    monkeypatch.setattr(cluster.Shuffle, "__call__", losing)
    check_same(prepare(config(source)), plan_here(config(source)))
    assert sum("the cluster lost a part of it" in message for message in caplog.messages) == 2


def test_a_listing_that_fails_half_way_leaves_no_plan(config, plan_here, tmp_path, monkeypatch):
    source = parquet(tmp_path / "in")
    (source / "1.parquet").write_bytes((source / "1.parquet").read_bytes()[:-9])
    with pytest.raises(UserError, match=r"1\.parquet can't be read as a table"):
        plan_here(config(source))
    assert not (tmp_path / "out/_work/r-by-cluster/plan.json").exists()
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_a_file_of_an_earlier_run_that_is_gone_is_named(config, plan_here, tmp_path):
    source = csv(tmp_path / "in")
    first = prepare(config(source, run_id="first"))
    commit(first, tmp_path, tables_of(first.config), ("ok",))
    (path,) = (tmp_path / "out/annotations").rglob("*.parquet")
    path.unlink()
    with pytest.raises(UserError, match=r"part-earlier-00000000-00000\.parquet can't be read .* and a run record lists it"):
        plan_here(config(source))


def test_drivers_that_begin_one_run_at_once_settle_on_one_list_of_the_cluster(config, plan_here, tmp_path):
    source = csv(tmp_path / "in")
    with ThreadPoolExecutor(3) as pool:
        plans = list(pool.map(lambda _: plan_here(config(source)), range(3)))
    assert len({(plan.manifest.folder, plan.started_at) for plan in plans}) == 1
    folders = {path.parent.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out/_work").rglob("*.parquet")}
    assert folders == {plans[0].manifest.folder}


def test_files_that_an_erasure_replaces_while_the_cluster_compares_are_read_again(config, plan_here, tmp_path, monkeypatch):
    source = csv(tmp_path / "in")
    first = prepare(config(source, run_id="first"))
    commit(first, tmp_path, tables_of(first.config), ("ok",))
    expected = prepare(config(source))
    record, shuffle = tmp_path / "out/runs/earlier.json", cluster.Shuffle.__call__

    def erasing(self, files):
        for path in (tmp_path / "out/annotations").rglob("part-earlier-00000000*"):
            path.rename(path.with_name("part-earlier-11111111-00000.parquet"))
        record.write_text(record.read_text().replace("00000000-00000", "11111111-00000"))
        return shuffle(self, files)

    monkeypatch.setattr(cluster.Shuffle, "__call__", erasing)
    found = plan_here(config(source))
    check_same(expected, found)
    assert found.manifest.known == 6


def test_an_object_that_comes_while_others_are_listed_hurts_none(config, plan_here, tmp_path, monkeypatch):
    source, list_piece, calls = folder(tmp_path / "in"), PieceLister.__call__, []

    def listing(self, *arguments):
        found = list_piece(self, *arguments)
        for name in ("0.jpg", "a/b/0.jpg", "z/99.jpg") if not calls else ():
            write(source / name, "late")
        calls.append(arguments)
        return found

    monkeypatch.setattr(PieceLister, "__call__", listing)
    found = manifest(plan_here(config(source)))["uri"].to_pylist()
    assert len(calls) > 1
    assert found == sorted(set(found))
    late = {f"file://{source}/{name}" for name in ("0.jpg", "a/b/0.jpg", "z/99.jpg")}
    assert len(set(found) - late) == 10


def test_the_driver_holds_no_more_than_files_and_counts(config, plan_here, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.planning.part.BATCH", 1000)
    monkeypatch.setattr("pipeline.planning.part.MAX_ROWS", 10_000)
    held, new = [], []
    write_, of = ClusterPlanner.write, NewImages.of
    monkeypatch.setattr(NewImages, "of", lambda *arguments: new.append(of(*arguments)) or new[-1])
    monkeypatch.setattr(ClusterPlanner, "write", lambda self, *arguments: held.append(self.parts) or write_(self, *arguments))
    for count in (40, 4000):
        write(tmp_path / f"{count}.csv", "\n".join(["uri", *uris(count)]))
        plan = plan_here(config(tmp_path / f"{count}.csv", block_rows=500, run_id=f"of{count}"))
        assert plan.manifest.rows == count
    small, large = (len(pickle.dumps(each)) for each in zip(held, new, strict=True))
    assert large < 1.2 * small
