"""The catalog of numbered files."""

import pytest
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError

from pipeline.table_formats import iceberg
from pipeline.table_formats.file_catalog import HINT, FileCatalog
from tests.plugins.outputs import Made


@pytest.fixture
def made():
    made = Made("memory://file-catalog")
    made.place[0].store.clear()
    made.commit("a", range(5))
    iceberg.add(made.folder)
    return made


def versions(made):
    return sorted(name for name in made.folder.names("annotations/metadata") if name.startswith("v"))


def put(made, name):
    """Set a property of the table."""
    with FileCatalog(made.folder).load_table("any.name").transaction() as transaction:
        transaction.set_properties({name: "set"})


def test_each_commit_is_a_file_and_the_hint_states_the_newest(made):
    put(made, "x")
    put(made, "y")
    assert versions(made) == ["v1.metadata.json", "v2.metadata.json", "v3.metadata.json", "version-hint.text"]
    assert made.folder.read(HINT) == b"3"
    table = FileCatalog(made.folder).load_table("any.name")
    assert (table.properties["x"], table.properties["y"]) == ("set", "set")
    assert table.metadata_location == "memory:///file-catalog/annotations/metadata/v3.metadata.json"


def test_of_two_commits_to_one_version_the_second_fails(made, monkeypatch):
    catalog = FileCatalog(made.folder)
    table = catalog.load_table("any.name")
    transaction = table.transaction().set_properties({"x": "late"})
    newest = catalog._newest()
    monkeypatch.setattr(catalog, "_newest", lambda version=None: newest)  # it has looked before the other commit
    put(made, "x")
    with pytest.raises(CommitFailedException, match="another writer made version 2 of the table"):
        transaction.commit_transaction()
    assert FileCatalog(made.folder).load_table("any.name").properties["x"] == "set"


@pytest.mark.parametrize("hint", [None, b"1"])
def test_commits_do_not_depend_on_the_hint(made, hint):
    """Its writer died, or wrote it later than that of a newer version."""
    put(made, "x")
    made.folder.remove(HINT)
    if hint:
        made.folder.write(HINT, hint)
    assert FileCatalog(made.folder).load_table("any.name").properties["x"] == "set"
    put(made, "y")
    assert made.folder.read(HINT) == b"3"


def test_a_writer_that_states_its_version_late_states_the_newest(made, monkeypatch):
    catalog, write = FileCatalog(made.folder), type(made.folder).write

    def late(folder, path, data):
        monkeypatch.setattr(type(made.folder), "write", write)
        put(made, "y")  # another commit, which has stated its version
        write(folder, path, data)

    transaction = catalog.load_table("any.name").transaction().set_properties({"x": "set"})
    create = type(made.folder).create

    def creating(folder, path, data):
        found = create(folder, path, data)
        monkeypatch.setattr(type(made.folder), "create", create)
        monkeypatch.setattr(type(made.folder), "write", late)
        return found

    monkeypatch.setattr(type(made.folder), "create", creating)
    transaction.commit_transaction()
    assert made.folder.read(HINT) == b"3"


def test_there_is_no_table_before_the_first_commit():
    made = Made("memory://file-catalog-empty")
    with pytest.raises(NoSuchTableError):
        FileCatalog(made.folder).load_table("any.name")
