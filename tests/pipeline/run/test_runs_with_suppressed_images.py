"""Whole runs with `--suppress`: what the list names is not fetched, annotated, shown or copied, and every image is counted."""

import hashlib
import shutil

import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.images.fetch import Fetcher
from pipeline.run import driver
from pipeline.run.plan import prepare
from pipeline.run.summary import summary
from pipeline.stages.reannotate import Reannotator
from tests.plugins.operators import block_path
from tests.plugins.posts import NAMES

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def folder(tmp_path, images):
    """Twelve images: 06 to 11 have the bytes of 00 to 05."""
    (tmp_path / "in").mkdir()
    for i in range(12):
        (tmp_path / "in" / f"{i:02}.jpg").write_bytes(images.jpeg(i % 6, 60, 50))
    return tmp_path / "in"


def uri(folder, number):
    return f"file://{folder}/{number:02}.jpg"


def digest(folder, number):
    return hashlib.sha256((folder / f"{number:02}.jpg").read_bytes()).hexdigest()


def list_of(tmp_path, *entries, name="list.txt"):
    (tmp_path / name).write_text("\n".join(map(str, entries)) + "\n")
    return str(tmp_path / name)


def config_of(folder, name="r", **settings):
    settings = {"date": "2026-01-02", "block_rows": 4, "report_images": False} | settings
    return AnnotateConfig(input=str(folder), output=str(folder.parent / "out"), run_id=name, **settings)


def numbers(found):
    return [int(row["uri"][-6:-4]) for row in found]


@pytest.fixture
def fetched(monkeypatch):
    """The names of the images that were fetched, in order."""
    names, fetch = [], Fetcher.fetch

    def watched(self, rows):
        names.extend(row["uri"][-6:-4] for row in rows)
        return fetch(self, rows)

    monkeypatch.setattr(Fetcher, "fetch", watched)
    return names


def test_images_on_the_list_have_no_row_and_are_counted(folder, annotate_here, rows, fetched):
    named = list_of(folder.parent, uri(folder, 1), digest(folder, 2), uri(folder, 77))
    record = annotate_here(config_of(folder, suppress=named, report_images=True))
    assert numbers(rows.of(folder.parent / "out", record)) == [0, 3, 4, 5, 6, 7, 9, 10, 11]
    assert "01" not in fetched
    assert {"02", "08"} < set(fetched)  # whose hashes are not known before
    counts = record.counts
    assert (counts.listed, counts.suppressed, counts.rows, counts.known) == (12, 3, 9, 0)
    assert counts.reposts.run == 4  # 07 is another image than 01, whose bytes it has
    assert record.suppressed[0].model_dump() == {
        "sha256": hashlib.sha256((folder.parent / "list.txt").read_bytes()).hexdigest(),
        "uris": 2,
        "image_ids": 0,
        "content_hashes": 1,
    }
    said = summary(record, "out")
    assert "9 of 9 images annotated" in said
    assert "3 more are on the list of --suppress, and have no row" in said
    left = [path for path in (folder.parent / "out").rglob("*") if path.is_file()]
    assert not any(name.encode() in path.read_bytes() for path in left for name in ("/01.jpg", "/02.jpg", "/08.jpg"))
    page = (folder.parent / "out" / "runs" / "r.html").read_text()
    assert "jpeg;base64" in page
    assert "3 are on a list of images to leave out" in page


def test_an_image_is_known_by_its_id_and_a_night_may_hold_nothing_else(folder, annotate_here, rows):
    first = annotate_here(config_of(folder, limit=2))
    ids = [row["image_id"] for row in rows.of(folder.parent / "out", first)]
    others = [uri(folder, i) for i in range(3, 12)]
    second = annotate_here(config_of(folder, "second", suppress=list_of(folder.parent, ids[0], *others, digest(folder, 2))))
    assert (second.counts.known, second.counts.suppressed, second.counts.rows, second.files) == (1, 11, 0, ())
    assert "nothing new: 12 images listed, 1 annotated before, 11 on the list of --suppress, by" in summary(second, "out")
    third = annotate_here(config_of(folder, "third"))
    assert numbers(rows.of(folder.parent / "out", third)) == list(range(2, 12))


def test_nothing_is_copied_to_or_from_an_image_whose_content_is_on_the_list(folder, annotate_here, rows):
    annotate_here(config_of(folder, limit=6))
    second = annotate_here(config_of(folder, "second", suppress=list_of(folder.parent, digest(folder, 3))))
    assert numbers(rows.of(folder.parent / "out", second)) == [6, 7, 8, 10, 11]
    assert (second.counts.reposts.earlier, second.counts.suppressed) == (5, 1)


def test_a_run_that_is_resumed_leaves_out_what_a_later_list_names(folder, annotate_here, operators, rows, fetched):
    """Also what was annotated before the list came, and without the list being given again."""
    plan = prepare(config_of(folder, suppress=list_of(folder.parent, uri(folder, 0))))
    operators.do(plan, [0])
    assert pq.read_table(block_path(plan, 0))["status"].to_pylist() == ["ok"] * 4
    again = list_of(folder.parent, uri(folder, 1), uri(folder, 6), digest(folder, 2), name="later.txt")
    plan = prepare(config_of(folder, suppress=again))
    assert len(plan.lists.about) == 2
    del fetched[:]
    record = annotate_here(config_of(folder))
    assert "06" not in fetched
    assert numbers(rows.of(folder.parent / "out", record)) == [3, 4, 5, 7, 9, 10, 11]
    assert (record.counts.suppressed, len(record.suppressed)) == (5, 2)


def test_a_list_that_comes_while_blocks_are_merged_is_seen_before_the_commit(folder, annotate_here, rows, monkeypatch):
    from pipeline.run import execute
    from pipeline.table.suppressed import read_list, save

    merge = execute._merge_groups
    merged = []

    def merge_and_then(plan, *others):
        files = merge(plan, *others)
        merged.append(files.counts["rows"])
        save(plan.output, "r", "erased", *read_list(list_of(folder.parent, uri(folder, 5)), {}))
        return files

    monkeypatch.setattr(execute, "_merge_groups", merge_and_then)
    record = annotate_here(config_of(folder))
    assert merged == [12, 11]
    assert 5 not in numbers(rows.of(folder.parent / "out", record))
    assert record.counts.suppressed == 1


def test_embeddings_of_images_on_the_list_are_not_annotated_again(folder, annotate_here, rows, monkeypatch):
    annotate_here(config_of(folder, keep_embeddings=True))
    predicted, predict = [], Reannotator._predict
    monkeypatch.setattr(Reannotator, "_predict", lambda self, batch: predicted.append(len(batch)) or predict(self, batch))
    out = folder.parent / "out"
    named = list_of(folder.parent, uri(folder, 1), digest(folder, 2))
    settings = {"input": str(out), "output": str(folder.parent / "again"), "from_embeddings": True, "suppress": named}
    record = annotate_here(config_of(folder).model_copy(update=settings))
    assert numbers(rows.of(folder.parent / "again", record)) == [0, 3, 4, 5, 6, 7, 9, 10, 11]
    assert (sum(predicted), record.counts.suppressed) == (9, 3)


def test_all_posts_of_an_image_on_the_list_are_left_out(posts, annotate_here, rows, tmp_path):
    source, column = posts.write("parquet", tmp_path / "in" / "posts")
    named = [post["post_id"] for post in posts.rows if post["image"] in ("006.jpg", "013.jpg")]
    content = hashlib.sha256((posts.folder / "020.jpg").read_bytes()).hexdigest()
    same = [p["post_id"] for p in posts.rows if (data := posts.bytes_of(p)) and hashlib.sha256(data).hexdigest() == content]
    entries = [f"file://{posts.folder}/006.jpg", f"file://{posts.folder}/013.jpg", content]
    settings = {"keep_columns": NAMES, "column": column, "report_images": False, "suppress": list_of(tmp_path, *entries)}
    record = annotate_here(AnnotateConfig(input=source, output=str(tmp_path / "out"), run_id="r", block_rows=32, **settings))
    found = {row["post_id"] for row in rows.of(tmp_path / "out", record)}
    assert len(named) >= 2
    assert len(same) >= 2
    assert found == {post["post_id"] for post in posts.rows} - {*named, *same}
    assert record.counts.suppressed == len({*named, *same})


def test_a_wrong_list_is_found_before_the_input_is_listed(folder, monkeypatch):
    monkeypatch.setattr(driver, "check_address", lambda: None)
    named = list_of(folder.parent, uri(folder, 1), "01.jpg")
    with pytest.raises(UserError, match=r"list\.txt, line 2: '01\.jpg' names no image"):
        driver.annotate(config_of(folder, suppress=named))
    assert not (folder.parent / "out").exists()
    with pytest.raises(UserError, match=r"gone\.txt can't be read"):
        driver.annotate(config_of(folder, suppress=str(folder / "gone.txt")))


def test_without_a_list_all_is_as_before(folder, annotate_here, tmp_path):
    record = annotate_here(config_of(folder, suppress=list_of(tmp_path)))
    assert (record.counts.suppressed, record.counts.rows, record.suppressed[0].entries) == (0, 12, 0)
    shutil.rmtree(tmp_path / "out")
    assert annotate_here(config_of(folder)).suppressed == ()
