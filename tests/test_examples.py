"""Every example of the documentation runs against a run's output, and the tables' definitions have the table's columns."""

import importlib
import json
import re
import sys
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


@pytest.fixture
def example(monkeypatch, capsys, finished):
    """Runs an example with the output of a run. Returns the module, and what it printed."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(EXAMPLES)])

    def run(name, *flags):
        module = importlib.import_module(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", str(finished.output), *map(str, flags)])
        module.main()
        return module, capsys.readouterr().out

    return run


@pytest.fixture
def rows_ok(finished):
    files = [finished.output / file for file in finished.record["files"]]
    return [row for file in files for row in pq.read_table(file).to_pylist() if row["status"] == "ok"]


def test_the_mood_of_topics(example, rows_ok, tmp_path):
    posts = [{"uri": row["uri"], "topic": "all", "day": "2026-01-02"} for row in rows_ok]
    pl.DataFrame(posts).write_parquet(tmp_path / "posts.parquet")
    _, said = example("mood_of_topics", "--posts", tmp_path / "posts.parquet")
    positive = np.mean([row["polarity2"]["label"] == "positive" for row in rows_ok])
    assert f" {len(rows_ok)} " in said
    assert f" {round(positive, 3)} " in said
    assert "posts are made up" in example("mood_of_topics")[1]


def test_what_changed(example, rows_ok, tmp_path):
    weeks = [(row["uri"], "2026-01-01" if row["polarity2"]["label"] == "negative" else "2026-01-12") for row in rows_ok]
    pl.DataFrame(weeks, schema=["uri", "day"], orient="row").write_csv(tmp_path / "posts.csv")
    _, said = example("what_changed", "--posts", tmp_path / "posts.csv")
    assert re.search(r"positive .* 0\.0 .* 1\.0 .* 1\.0 .* true", said)
    assert "posts are made up" in example("what_changed")[1]


def test_a_recommenders_features(example, finished, rows_ok, tmp_path):
    first = min(row["uri"] for row in rows_ok)
    pl.DataFrame({"user": ["ada"], "uri": [first], "weight": [1.0]}).write_parquet(tmp_path / "seen.parquet")
    module, said = example("recommender", "--interactions", tmp_path / "seen.parquet")
    assert f"ada's images would be\n  1.000  {first}\n" in said
    images = module.vectors(module.committed(finished.output))
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, rtol=1e-5)
    assert module.reranked(np.array([0.5, 0.4]), np.array([1.0, 9.0]), wanted=9.0, weight=0.1).tolist() == [1, 0]
    assert "interactions are made up" in example("recommender")[1]


def test_tensors(example, finished, rows_ok):
    module, said = example("tensors")
    assert "'probs': ((32, 2), torch.float32)" in said
    found = {int(item["image_id"]): item["probs"].tolist() for item in module.Annotations(finished.output, "valence")}
    assert found == {row["image_id"]: row["valence"]["probs"] for row in rows_ok}


@pytest.mark.parametrize("name", ["spark", "trino"])
def test_tables_are_defined_with_their_columns(finished, name):
    text = (EXAMPLES / f"{name}.sql").read_text()
    defined = re.findall(r"^  (\w+) [A-Z]", text, re.MULTILINE)
    assert defined == [*pq.read_schema(finished.output / finished.record["files"][0]).names, "dt"]
    kinds = {"BIGINT": "int64", "INT": "int32", "INTEGER": "int32", "STRING": "string", "VARCHAR": "string"}
    schema = pq.read_schema(finished.output / finished.record["files"][0])
    plain = dict(re.findall(r"^  (\w+) (BIGINT|INTEGER|INT|STRING|VARCHAR),$", text, re.MULTILINE))
    assert len(plain) > 8
    assert {column: kinds[kind] for column, kind in plain.items()} == {column: str(schema.field(column).type) for column in plain}


def test_the_page_of_examples_names_them_all():
    page = (EXAMPLES / "README.md").read_text()
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sql")} == set(re.findall(r"(\w+\.(?:py|sql))\b", page))


def test_the_queries_of_the_pages_are_valid(finished, monkeypatch):
    """Those in the README and in tables.md, against the run's output."""
    base = duckdb.connect()
    for page in ("README.md", "docs/tables.md"):
        for block in re.findall(r"```sql\n(.*?)```", (EXAMPLES.parents[1] / page).read_text(), re.DOTALL):
            base.execute(block.replace("OUTPUT", str(finished.output)))
    assert json.loads((finished.output / "runs" / "undisturbed.json").read_text())["counts"]["rows"] == 40
