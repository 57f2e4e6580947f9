"""Who plans a run: the driver, or above a size the cluster."""

import pytest

from pipeline.errors import UserError
from pipeline.run import begin
from pipeline.run.plan import prepare, tables_of
from tests.plugins.planned import check_same, commit, csv, folder


def test_above_a_size_the_cluster_plans_unless_it_is_told_not_to(config, plan_here, tmp_path, monkeypatch, caplog):
    source = folder(tmp_path / "in")
    by_driver = prepare(config(input=str(source), run_id="small"))
    monkeypatch.setattr(begin, "DRIVER_ROWS", 7)
    caplog.set_level("INFO")
    check_same(by_driver, prepare(config(input=str(source), run_id="large")))
    assert "more than 7 images are listed, or known: the cluster plans the run" in caplog.messages
    assert any(message.startswith("planning by the cluster: 10 rows are listed") for message in caplog.messages)
    caplog.clear()
    check_same(by_driver, prepare(config(input=str(source), run_id="told", planning="driver")))
    check_same(prepare(config(input=str(source), run_id="few", limit=3)), prepare(config(input=str(source), run_id="few-again", limit=3)))
    assert not [message for message in caplog.messages if "cluster" in message]


def test_earlier_runs_of_such_a_size_are_not_read_by_the_driver(config, plan_here, tmp_path, monkeypatch):
    source = folder(tmp_path / "in")
    first = prepare(config(input=str(source), run_id="first"))
    commit(first, tmp_path, tables_of(first.config), ("ok",))
    expected = prepare(config(input=str(source), run_id="small"))
    monkeypatch.setattr(begin, "DRIVER_ROWS", 4)
    monkeypatch.setattr(begin, "images_of", lambda *_: pytest.fail("read by the driver"))
    check_same(expected, prepare(config(input=str(source), run_id="large")))


@pytest.mark.parametrize(("settings", "message"), [({"limit": 3}, "with limit"), ({"keep_columns": "post=uri"}, "with keep_columns")])
def test_what_only_the_driver_can_plan_is_said(config, tmp_path, settings, message):
    with pytest.raises(UserError, match=f"planning = cluster: {message} the driver .*; leave planning at auto"):
        prepare(config(input=str(csv(tmp_path / "in")), planning="cluster", **settings))


def test_a_driver_that_has_to_plan_a_run_of_such_a_size_says_so(config, tmp_path, monkeypatch, caplog):
    source = tmp_path / "in.csv"
    source.write_text("uri,post\n" + "".join(f"s3://bucket/{i}.jpg,{i}\n" for i in range(9)))
    for most, said in ((9, []), (8, ["more than 8 rows are listed, and with keep_columns the driver gives rows their IDs"])):
        monkeypatch.setattr(begin, "DRIVER_ROWS", most)
        caplog.clear()
        assert prepare(config(input=str(source), run_id=f"of{most}", keep_columns="post")).manifest.rows == 9
        found = [message for message in caplog.messages if "rows are listed, and" in message]
        assert [message.partition(":")[0] for message in found] == said
