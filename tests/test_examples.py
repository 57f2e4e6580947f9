"""Every example in the documentation runs on a run's output, and the SQL table definitions have the table's columns."""

import importlib
import json
import re
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.run.plan import prepare

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


@pytest.fixture
def example(monkeypatch, capsys, finished):
    """Run an example on the output of a run. Return the module and its printed text."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(EXAMPLES)])

    def run(name, *flags, output=finished.output):
        module = importlib.import_module(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", str(output), *map(str, flags)])
        module.main()
        return module, capsys.readouterr().out

    return run


@pytest.fixture
def rows_ok(finished):
    files = [finished.output / file for file in finished.record.files]
    return [row for file in files for row in pq.read_table(file).to_pylist() if row["status"] == "ok"]


def test_the_mood_of_topics(example, rows_ok, tmp_path):
    posts = [{"uri": row["uri"], "topic": "all", "day": "2026-01-02"} for row in rows_ok]
    pl.DataFrame(posts).write_parquet(tmp_path / "posts.parquet")
    _, printed = example("mood_of_topics", "--posts", tmp_path / "posts.parquet")
    positive = np.mean([row["polarity2"]["label"] == "positive" for row in rows_ok])
    assert f" {len(rows_ok)} " in printed
    assert f" {round(positive, 3)} " in printed
    assert "posts are made up" in example("mood_of_topics")[1]


def test_what_changed(example, rows_ok, tmp_path):
    weeks = [(row["uri"], "2026-01-01" if row["polarity2"]["label"] == "negative" else "2026-01-12") for row in rows_ok]
    pl.DataFrame(weeks, schema=["uri", "day"], orient="row").write_csv(tmp_path / "posts.csv")
    _, printed = example("what_changed", "--posts", tmp_path / "posts.csv")
    assert re.search(r"positive .* 0\.0 .* 1\.0 .* 1\.0 .* true", printed)
    assert "posts are made up" in example("what_changed")[1]


def test_a_recommenders_features(example, finished, rows_ok, tmp_path):
    first = min(row["uri"] for row in rows_ok)
    pl.DataFrame({"user": ["ada"], "uri": [first], "weight": [1.0]}).write_parquet(tmp_path / "seen.parquet")
    module, printed = example("recommender", "--interactions", tmp_path / "seen.parquet")
    assert f"ada's images would be\n  1.000  {first}\n" in printed
    images = module.vectors(module.committed(finished.output))
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, rtol=1e-5)
    assert module.reranked(np.array([0.5, 0.4]), np.array([1.0, 9.0]), wanted=9.0, weight=0.1).tolist() == [1, 0]
    assert "interactions are made up" in example("recommender")[1]


def test_tensors(example, finished, rows_ok):
    module, printed = example("tensors")
    assert "'probs': ((32, 2), torch.float32)" in printed
    found = {int(item["image_id"]): item["probs"].tolist() for item in module.Annotations(finished.output, "valence")}
    assert found == {row["image_id"]: row["valence"]["probs"] for row in rows_ok}


def test_a_frame_of_pandas(example, finished):
    module, printed = example("pandas_table")
    assert re.search(r"\nok +34\n", printed)
    assert re.search(r"\npositive +0\.\d+ +\d\.\d+ +\d\.\d+\n", printed)
    table, schemes = module.committed(str(finished.output))
    images, rows = module.frame(table, schemes), table.to_pylist()
    assert images["polarity3"].cat.categories.tolist() == ["negative", "neutral", "positive"]
    assert images["width"].dtype == pd.Int32Dtype()
    for name, part in (("polarity3", "label"), ("polarity3_score", "score"), ("valence", "value")):
        struct = name.removesuffix("_score")
        expected = [row[struct] and row[struct][part] for row in rows]
        assert [None if pd.isna(value) else value for value in images[name]] == expected
    probs = module.probabilities(table, "valence", 9)
    assert np.isnan(probs).all(axis=1).tolist() == (images["status"] != "ok").tolist()
    assert [row.tolist() for row in probs if not np.isnan(row).any()] == [row["valence"]["probs"] for row in rows if row["valence"]]


def test_a_frame_has_the_newest_row_of_each_image_whatever_its_schemes(example, finished, tmp_path):
    shutil.copytree(finished.output, tmp_path, dirs_exist_ok=True)
    later = pq.read_table(tmp_path / finished.record.files[0]).filter(pc.field("status") == "ok").slice(0, 3).drop_columns("arousal")
    when = pc.add(later["annotated_at"], pa.scalar(timedelta(days=1)))
    pq.write_table(later.set_column(later.column_names.index("annotated_at"), "annotated_at", when), tmp_path / "later.parquet")
    (tmp_path / "runs" / "a.json").write_text(json.dumps({"files": ["later.parquet"]}))
    module, _ = example("pandas_table", output=tmp_path)
    images = module.frame(*module.committed(str(tmp_path)))
    assert len(images) == images["image_id"].nunique() == 40
    changed = images["image_id"].isin(later["image_id"].to_pylist())
    assert images.loc[changed, "arousal"].isna().all()
    assert images.loc[~changed & (images["status"] == "ok"), "arousal"].notna().all()


def test_images_that_look_alike(example, model_operators, images, tmp_path):
    """Uses five pictures and a smaller copy of one."""
    (tmp_path / "in").mkdir()
    for seed in range(5):
        (tmp_path / "in" / f"{seed}.jpg").write_bytes(images.jpeg(seed))
    (tmp_path / "in" / "again.png").write_bytes(images.encoded(images.picture(3).resize((80, 60)), "PNG"))
    model_operators.rows(prepare(AnnotateConfig(input=str(tmp_path / "in"), output=str(tmp_path), keep_embeddings=True)))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "r.json").write_text(json.dumps({"files": ["annotations/part-0.parquet"]}))
    _, printed = example("similar", "--uri", f"file://{tmp_path}/in/3.jpg", "--count", "2", output=tmp_path)
    assert re.search(rf"the nearest\n  0\.9\d+  valence \d\.\d  file://{tmp_path}/in/again\.png\n", printed)
    assert len(re.findall(r"^  ", printed.partition("more pleasant")[0], re.MULTILINE)) == 2
    with pytest.raises(SystemExit, match="has no annotated image file:///gone"):
        example("similar", "--uri", "file:///gone", output=tmp_path)
    with pytest.raises(SystemExit, match="has no embeddings: annotate with --keep-embeddings"):
        example("similar")


@pytest.mark.parametrize("name", ["spark", "trino"])
def test_tables_are_defined_with_their_columns(finished, name):
    text = (EXAMPLES / f"{name}.sql").read_text()
    defined = re.findall(r"^  (\w+) [A-Z]", text, re.MULTILINE)
    assert defined == [*pq.read_schema(finished.output / finished.record.files[0]).names, "dt"]
    kinds = {"BIGINT": "int64", "INT": "int32", "INTEGER": "int32", "STRING": "string", "VARCHAR": "string"}
    schema = pq.read_schema(finished.output / finished.record.files[0])
    plain = dict(re.findall(r"^  (\w+) (BIGINT|INTEGER|INT|STRING|VARCHAR),$", text, re.MULTILINE))
    assert len(plain) > 8
    assert {column: kinds[kind] for column, kind in plain.items()} == {column: str(schema.field(column).type) for column in plain}


def test_the_page_of_examples_names_them_all():
    page = (EXAMPLES / "README.md").read_text()
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sql")} == set(re.findall(r"(\w+\.(?:py|sql))\b", page))


def test_the_queries_of_the_pages_are_valid(finished, monkeypatch):
    """Runs them on the run's output."""
    base = duckdb.connect()
    for page in ("README.md", "docs/tables.md", "docs/annotating.md"):
        for block in re.findall(r"```sql\n(.*?)```", (EXAMPLES.parents[1] / page).read_text(), re.DOTALL):
            if "post_id" not in block:  # a join: test_joins_by_kept_columns.py
                base.execute(block.replace("OUTPUT", str(finished.output)))
    assert json.loads((finished.output / "runs" / "undisturbed.json").read_text())["counts"]["rows"] == 40
