"""An output's folder: its layout, and what reading and writing say where they can't."""

import datetime as dt
import pickle

import pytest

from pipeline.errors import UserError
from pipeline.table import output_folder
from pipeline.table.output_folder import OutputFolder, partition, record_path, work_folder


@pytest.fixture(params=["local", "memory", "s3"])
def output(request, tmp_path):
    if request.param == "local":
        return OutputFolder(f"{tmp_path}/", {})
    if request.param == "memory":
        return OutputFolder(f"memory://{tmp_path.name}", {})
    s3 = request.getfixturevalue("s3")
    return OutputFolder(f"s3://{s3.bucket}/{tmp_path.name}/", s3.options)


def test_what_is_written_is_found_under_paths_within_the_folder(output):
    output.write("runs/r.json", b'{"a": 1}')
    output.write("annotations/dt=2026-01-02/part-0.parquet", b"rows")
    assert output.read("runs/r.json") == b'{"a": 1}'
    assert output.read_json("runs/r.json") == {"a": 1}
    assert output.names("annotations") == ["dt=2026-01-02"]
    assert [entry["size"] for entry in output.entries("annotations/dt=2026-01-02")] == [4]
    assert sorted(output.find()) == ["annotations/dt=2026-01-02/part-0.parquet", "runs/r.json"]
    with output.open("annotations/dt=2026-01-02/part-0.parquet") as file:
        assert file.read() == b"rows"


def test_a_folders_files_come_with_their_sizes_without_what_is_hidden_or_in_folders_of_it(output):
    for name in ("b", "a", ".draft", "folder/c"):
        output.write(f"_work/r/rows/{name}", name.encode())
    assert [(file.name, file.size) for file in output.files("_work/r/rows")] == [
        (output.absolute("_work/r/rows/a"), 1),
        (output.absolute("_work/r/rows/b"), 1),
    ]


def test_what_is_not_there_is_empty_or_none(output):
    assert output.read_json("runs/gone.json") is None
    assert output.names("_work") == list(output.files("_work")) == []
    assert not output.exists("_work")
    with pytest.raises(FileNotFoundError):
        output.read("runs/gone.json")


def test_of_two_that_create_a_file_the_first_keeps_it(output):
    assert output.create("runs/r.json", b"mine")
    assert not output.create("runs/r.json", b"yours")
    assert output.read("runs/r.json") == b"mine"


def test_a_file_or_a_folder_is_removed_with_what_is_in_it(output):
    for path in ("_work/r/plan.json", "_work/r/rows/block-0.parquet", "_work/s/plan.json"):
        output.write(path, b"x")
    output.remove("_work/r", recursive=True)
    output.fs.invalidate_cache()
    assert sorted(output.find()) == ["_work/s/plan.json"]
    output.remove("_work/s/plan.json")
    assert output.find() == {}


def test_a_folder_of_s3_is_removed_some_files_at_a_time(s3, monkeypatch):
    output = OutputFolder(f"s3://{s3.bucket}/removed", s3.options)
    for i in range(25):
        output.write(f"folder/{i % 3}/{i}.parquet", b"x")
    for name in ("folder/_SUCCESS", "folder/0/.hidden", "beside/1.parquet", "folder2/1.parquet"):
        output.write(name, b"x")
    monkeypatch.setattr(output_folder, "REMOVED_AT_ONCE", 10)
    removed, remove = [], output.fs.rm
    monkeypatch.setattr(output.fs, "rm", lambda path, **options: removed.append(path) or remove(path, **options))
    output.remove("folder", recursive=True)
    assert [len(paths) for paths in removed[:-1]] == [10, 10, 5]
    output.fs.invalidate_cache()
    assert sorted(output.find()) == ["beside/1.parquet", "folder2/1.parquet"]
    with pytest.raises(FileNotFoundError):
        output.remove("folder", recursive=True)
    output.remove("beside", recursive=True)
    output.fs.invalidate_cache()
    assert sorted(output.find()) == ["folder2/1.parquet"]


def test_a_local_file_is_copied_to_it(output, tmp_path):
    (tmp_path / "merged").write_bytes(b"rows")
    output.upload(str(tmp_path / "merged"), "annotations/part-0.parquet")
    assert output.read("annotations/part-0.parquet") == b"rows"


def test_it_passes_between_processes_without_its_connection(output):
    output.write("a", b"x")
    copy = pickle.loads(pickle.dumps(output))
    assert copy == output
    assert vars(copy) == {"uri": output.uri, "options": output.options}
    assert copy.read("a") == b"x"


def test_its_options_are_secret():
    assert "hunter2" not in repr(OutputFolder("s3://bucket/out", {"secret": "hunter2"}))


def test_where_it_can_not_be_read_the_message_says_what_to_check(s3, tmp_path):
    refused = OutputFolder(f"s3://{s3.bucket}/out", s3.refused)
    with pytest.raises(UserError, match=r"^the output can't be read: .+; check the path and the credentials$"):
        refused.read_json("runs/r.json")
    (tmp_path / "r.json").write_text("{")
    with pytest.raises(UserError, match=r"^the output can't be read: Expecting property name .*; check the path and the credentials$"):
        OutputFolder(str(tmp_path), {}).read_json("r.json")


def test_where_it_can_not_be_written_the_message_names_it(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    output = OutputFolder(f"{tmp_path}/file", {})
    with pytest.raises(UserError, match=rf"^{output.uri} can't be written: .+; check the path and the credentials$"), output.writable():
        output.write("runs/r.json", b"")


def test_an_unknown_protocol_is_the_users_error():
    with pytest.raises(UserError, match="'s4://' of s4://bucket is no known kind of storage"):
        _ = OutputFolder("s4://bucket", {}).fs


def test_the_layout_is_that_of_the_docs():
    assert partition(dt.date(2026, 1, 2)) == "annotations/dt=2026-01-02"
    assert (record_path("r"), work_folder("r")) == ("runs/r.json", "_work/r")


@pytest.mark.parametrize("size", [0, 9, 10, 11, 30])
def test_a_file_is_read_back_in_pieces(tmp_path, monkeypatch, size):
    monkeypatch.setattr(output_folder, "COMPARED_BYTES", 10)
    output = OutputFolder(str(tmp_path), {})
    data, local = bytes(range(size)), tmp_path / "local"
    output.write("file", data)
    local.write_bytes(data)
    assert output.holds("file", str(local))
    for other in (data + b"x", data[:-1] + b"x", data[1:] or b"x"):
        local.write_bytes(other)
        assert not output.holds("file", str(local))
