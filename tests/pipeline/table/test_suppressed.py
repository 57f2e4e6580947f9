"""Lists of images that are left out."""

import hashlib
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.table.output_folder import OutputFolder
from pipeline.table.suppressed import NOTHING, RunLists, SuppressList, read_list, save

HASHES = [hashlib.sha256(bytes([i])).hexdigest() for i in range(5)]
ROWS = pa.table(
    {
        "image_id": pa.array([1, -2, 3, 2**62, 5], pa.int64()),
        "uri": [f"s3://b/{i}.jpg" for i in range(5)],
        "content_hash": [HASHES[0], None, *HASHES[2:]],
    }
)


@pytest.fixture
def listed(tmp_path):
    """Return a function that reads a list of these lines."""

    def read(*lines):
        (tmp_path / "list.txt").write_text("\n".join(lines))
        return read_list(str(tmp_path / "list.txt"), {})

    return read


@pytest.mark.parametrize(
    ("lines", "rows"),
    [
        (["-2"], [1]),
        ([str(2**62), "7"], [3]),
        (["s3://b/1.jpg", "s3://b/9.jpg", "https://h/x"], [1]),
        ([HASHES[3].upper(), HASHES[1]], [3]),
        (["  3  ", "", HASHES[0], "s3://b/4.jpg", "s3://b/4.jpg"], [0, 2, 4]),
        ([], []),
    ],
)
def test_a_row_is_named_by_its_id_its_uri_or_its_content(listed, lines, rows):
    about, found = listed(*lines)
    assert np.flatnonzero(found.rows(ROWS)).tolist() == rows
    assert about.entries == len({line.strip() for line in lines} - {""})
    assert found.rows(ROWS[:0]).tolist() == []


def test_a_uri_is_the_tables_however_it_is_spelled_and_signed(listed):
    _, found = listed("S3A://b/0.jpg", "https://me:pw@host/x.jpg?id=7&X-Amz-Signature=1", "file:/x//y/../a.jpg")
    uris = ["s3://b/0.jpg", "https://host/x.jpg?id=7", "file:///x/a.jpg", "s3://b/0.jpg?", ""]
    assert found.images(np.arange(5), uris).tolist() == [True, True, True, False, False]


def test_what_names_no_image_is_refused_with_its_line(listed):
    for line in ("photos/a.jpg", "/home/ada/a.jpg", HASHES[0][:-1], str(2**63), "uri", "0x1f", "s3://", "1,2"):
        with pytest.raises(UserError, match=rf"^.*list\.txt, line 3: '{re.escape(line)}' names no image: give a URI \(.*$"):
            listed("s3://b/a.jpg", "", line, "s3://b/b.jpg")
    with pytest.raises(UserError, match=r"line 1: 'a\\x1b\[31m' names no image"):
        listed("a\x1b[31m")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.txt can't be read: .*No such file"):
        read_list(str(tmp_path / "gone.txt"), {})
    (tmp_path / "latin.txt").write_bytes(b"s3://b/a.jpg\ns3://b/caf\xe9.jpg\n")
    with pytest.raises(UserError, match=r"latin\.txt, line 2: it is not in UTF-8"):
        read_list(str(tmp_path / "latin.txt"), {})


def test_a_parquet_file_has_columns_of_the_tables_names(tmp_path):
    path = str(tmp_path / "list.parquet")
    pq.write_table(pa.table({"post": [9, 9, 9], "image_id": [3, None, 3], "uri": ["s3://b/0.jpg", "", None]}), path)
    about, found = read_list(path, {})
    assert np.flatnonzero(found.rows(ROWS)).tolist() == [0, 2]
    assert about.model_dump(exclude={"sha256"}) == {"uris": 1, "image_ids": 1, "content_hashes": 0}
    pq.write_table(pa.table({"uri": ["s3://b/0.jpg", "0.jpg"]}), path)
    with pytest.raises(UserError, match=r"list\.parquet, row 2: '0\.jpg' names no image"):
        read_list(path, {})
    pq.write_table(pa.table({"link": ["s3://b/0.jpg"]}), path)
    with pytest.raises(UserError, match=r"list\.parquet has none of the columns image_id, uri, content_hash"):
        read_list(path, {})


def test_many_images_are_found_as_a_set_finds_them(listed):
    rng = np.random.default_rng(0)
    ids, numbers = rng.integers(-(2**63), 2**63, 3000).tolist(), rng.permutation(3000).tolist()
    _, found = listed(*map(str, ids[::3]), *(f"s3://b/{n}" for n in numbers[:1000]))
    named = found.images(np.array(ids), [f"s3://b/{n}" for n in range(3000)])
    assert named.tolist() == [i % 3 == 0 or i in set(numbers[:1000]) for i in range(3000)]


def test_hashes_that_begin_alike_are_told_apart(listed):
    same = ["ab" * 8 + f"{i << 130:048x}" for i in range(8)]
    _, found = listed(*same[1::2])
    assert found.contents(same).tolist() == [False, True] * 4


def test_a_runs_lists_are_those_of_its_work_folder(listed, tmp_path):
    output = OutputFolder(str(tmp_path / "out"), {})
    lists = RunLists().now(output, "r")
    assert (lists.names, lists.about, bool(lists.suppressed)) == (frozenset(), (), False)
    first, second = listed("3", "s3://b/0.jpg"), listed("5", HASHES[3])
    save(output, "r", "a", *first)
    save(output, "r", "a", *second)  # a name stands for one list
    lists = lists.now(output, "r")
    assert lists.about == (first[0],)
    save(output, "r", "b", *second)
    save(output, "r", "c", *second)
    lists = lists.now(output, "r")
    assert lists.about == (first[0], second[0])
    assert np.flatnonzero(lists.suppressed.rows(ROWS)).tolist() == [0, 2, 3, 4]
    assert b"s3://" not in b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*.npz"))


def test_nothing_names_nothing():
    assert not NOTHING.rows(ROWS).any()
    assert not NOTHING.images(np.arange(2), ["", "x"]).any()
    assert not NOTHING.contents(HASHES).any()
    assert SuppressList(sha256="0").entries == 0
