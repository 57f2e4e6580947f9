"""Catalogs of Iceberg tables: the output's own, and those that pyiceberg is configured for."""

import json
from pathlib import Path

import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.catalog.sql import SqlCatalog

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.table_formats import iceberg, table_format
from pipeline.table_formats.iceberg_catalog import TableName
from tests.pipeline.table_formats.test_iceberg import tables_of
from tests.plugins.outputs import Made, in_order

NAMED = "prod.analytics.emotions"


@pytest.fixture
def prod(tmp_path, monkeypatch):
    """A catalog that pyiceberg is configured for."""
    settings = {"type": "sql", "uri": f"sqlite:///{tmp_path}/prod.db", "warehouse": f"{tmp_path}/warehouse"}
    config = {"prod": settings, "broken": {"uri": "ftp://user:secret@host"}}
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG.config", {"catalog": config})
    return load_catalog("prod")


def check(made, **settings):
    settings = {"input": "in", "output": made.output, "table_format": "iceberg", "storage_options": made.options} | settings
    table_format.check(AnnotateConfig(**settings), tables_of(made))


def add(made, name=NAMED):
    iceberg.add(made.folder, TableName.of(name))


def test_a_named_catalog_has_the_table_and_the_output_says_so(made, prod):
    check(made, iceberg_table=NAMED)
    for run_id in ("a", "b"):
        made.commit(run_id, range(5))
        add(made)
    table = prod.load_table("analytics.emotions")
    assert table.location() == f"{made.output}/annotations"
    assert in_order(table.scan().to_arrow()).cast(made.rows().schema).equals(made.rows())
    assert not (Path(made.output) / "iceberg.db").exists()
    assert json.loads((Path(made.output) / "iceberg.json").read_text()) == {"catalog": "prod", "table": "analytics.emotions"}


def test_what_follows_needs_no_name(made, prod):
    """Compaction and cleaning take it from the output."""
    for run_id in ("a", "b"):
        made.commit(run_id, range(5))
        add(made)
    assert iceberg.compact(made.folder, None)["numFilesRemoved"] == 2
    assert in_order(prod.load_table("analytics.emotions").scan().to_arrow()).cast(made.rows().schema).equals(made.rows())
    made.commit("c", range(5, 9))
    iceberg.add(made.folder)
    assert len(prod.load_table("analytics.emotions").scan().to_arrow()) == 14


def test_an_output_is_one_table_for_good(made, prod):
    made.commit("a", range(5))
    add(made)
    check(made, iceberg_table=NAMED)
    with pytest.raises(
        UserError, match=f"is the Iceberg table {NAMED} already, not in the output's own catalog: give --iceberg-table {NAMED}"
    ):
        check(made)
    with pytest.raises(UserError, match=f"is the Iceberg table {NAMED} already, not prod.analytics.others: give"):
        check(made, iceberg_table="prod.analytics.others")
    own = Made(made.output + "-own")
    own.commit("a", range(5))
    iceberg.add(own.folder)
    with pytest.raises(
        UserError, match=f"is the Iceberg table in the output's own catalog already, not {NAMED}: leave --iceberg-table out"
    ):
        check(own, iceberg_table=NAMED)


def test_another_outputs_table_is_refused_before_the_run(made, prod):
    made.commit("a", range(5))
    add(made)
    other = Made(made.output + "-other")
    with pytest.raises(
        UserError, match=f"the Iceberg table {NAMED} is at {made.output}/annotations, not at {other.output}/annotations: give"
    ):
        check(other, iceberg_table=NAMED)


@pytest.mark.parametrize("catalog", ["broken", "unknown"])
def test_a_catalog_that_pyiceberg_can_not_open_is_named_before_the_run(made, prod, catalog):
    with pytest.raises(UserError, match=rf"^iceberg_table: pyiceberg can't open the catalog {catalog} \(.*\); see docs/tables.md") as error:
        check(made, iceberg_table=f"{catalog}.analytics.emotions")
    assert "secret" not in str(error.value)
    assert not Path(made.output).exists()


def test_a_name_is_for_iceberg_tables_and_has_three_parts(made):
    with pytest.raises(UserError, match=r"iceberg_table = prod.analytics.emotions is for Iceberg tables: set table_format = iceberg too"):
        check(made, iceberg_table=NAMED, table_format="delta")
    for name in ("emotions", "analytics.emotions", "a..b", ".a.b"):
        with pytest.raises(ValueError, match="iceberg_table"):
            check(made, iceberg_table=name)
    assert TableName.of("prod.a.b.c") == ("prod", "a.b.c")


def test_a_check_makes_no_catalog(made):
    made.commit("a", range(5))
    iceberg.add(made.folder)
    database = Path(made.output) / "iceberg.db"
    database.unlink()
    check(made)
    assert not database.exists()


def test_a_lost_catalog_is_made_again_with_all_committed_runs(made):
    for run_id in ("a", "b"):
        made.commit(run_id, range(5))
        iceberg.add(made.folder)
    (Path(made.output) / "iceberg.db").unlink()
    iceberg.add(made.folder)
    assert made.in_iceberg().equals(made.rows())


def test_a_named_catalog_may_hold_a_table_in_s3(s3, tmp_path, monkeypatch):
    server = {"s3.endpoint": s3.endpoint, "s3.region": "us-east-1", "s3.access-key-id": s3.key, "s3.secret-access-key": s3.secret}
    settings = {"type": "sql", "uri": f"sqlite:///{tmp_path}/prod.db"} | server
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG.config", {"catalog": {"prod": settings}})
    made = Made(f"s3://{s3.bucket}/{tmp_path.name}", s3.options)
    for run_id in ("a", "b"):
        made.commit(run_id, range(5))
        add(made)
    assert iceberg.compact(made.folder, None)["numFilesRemoved"] == 2
    table = SqlCatalog("prod", **settings).load_table("analytics.emotions")
    assert in_order(table.scan().to_arrow()).cast(made.rows().schema).equals(made.rows())
