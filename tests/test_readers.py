"""Every reader that the documentation shows sees the columns of all nights, also where these have different schemes, in either order."""

import importlib
import re
import sys
from pathlib import Path

import duckdb
import pytest

from pipeline.table.output_folder import OutputFolder
from pipeline.table_formats import delta, iceberg

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
NIGHTS = [("polarity2", "arousal"), ("valence", "polarity3", "polarity2")]
SCHEMES = {"polarity2", "arousal", "valence", "polarity3"}
SNIPPETS = {
    f"{page.name} {number}": (language, text)
    for page in (ROOT / "README.md", ROOT / "docs" / "tables.md", ROOT / "docs" / "annotating.md")
    for number, (language, text) in enumerate(re.findall(r"```(sql|python)\n(.*?)```", page.read_text(), re.DOTALL))
    if ("OUTPUT/" in text or '"OUTPUT"' in text) and "post_id" not in text  # joins: test_joins_by_kept_columns.py
}


@pytest.fixture(params=["first", "last", "in lists"])
def output(request, night, tmp_path, in_lists):
    """An output of two nights of six images each, of which one failed; the one with fewer schemes is the first, or the last.

    Or the records of the two nights name lists of files.
    """
    parts = 3 if request.param == "in lists" else 1
    for number, schemes in enumerate(NIGHTS[::-1] if request.param == "last" else NIGHTS, 1):
        images = [(f"file:///{number}/{i}.jpg", b"%d-%d" % (number, i)) for i in range(5)]
        failed = [(f"file:///{number}/gone.jpg", "missing", "no such file")]
        night(tmp_path, f"2026-01-0{number}", images, failed, schemes=schemes, parts=parts)
    if parts > 1:
        in_lists(OutputFolder(str(tmp_path), {}))
    return tmp_path


def columns_of(value):
    return set(value.column_names if hasattr(value, "column_names") else value.columns)


@pytest.mark.parametrize("name", [name for name, (language, _) in SNIPPETS.items() if language == "sql"])
def test_queries_of_the_documentation_see_all_nights_and_no_run_that_is_not_committed(output, night, name):
    night(output, "2026-01-03", [("file:///3/0.jpg", b"3-0")], [("file:///3/gone.jpg", "missing", "no such file")], schemes=("mikels8",))
    (output / "runs" / "night-2026-01-03.json").unlink()
    base = duckdb.connect()
    *before, query = [part for part in SNIPPETS[name][1].replace("OUTPUT", str(output)).split(";") if part.strip()]
    for statement in before:
        base.execute(statement)
    found = base.sql(query)
    rows, columns = found.fetchall(), found.columns
    if "SELECT *" in SNIPPETS[name][1]:
        assert len(rows) == 12
        assert set(columns) >= SCHEMES
        assert "mikels8" not in columns
    elif "valence.value" in SNIPPETS[name][1]:
        assert sum(row[1] for row in rows) == 10
        assert any(row[2] is not None for row in rows)
    else:
        counts = [next(value for value in row if isinstance(value, int)) for row in rows]
        assert sum(counts) == (2 if "!=" in SNIPPETS[name][1] else 12)


@pytest.mark.parametrize("name", [name for name, (language, text) in SNIPPETS.items() if language == "python" and "vacuum" not in text])
def test_programs_of_the_documentation_see_all_nights(output, name):
    text = SNIPPETS[name][1]
    for library, kind in (("deltalake", delta), ("pyiceberg", iceberg)):
        if library in text:
            kind.add(OutputFolder(str(output), {}))
    space = {}
    exec(text.replace("OUTPUT", str(output)), space)
    found = [space[name] for name in ("table", "frame", "rows") if name in space]
    assert found
    for table in found:
        assert columns_of(table) >= SCHEMES
        assert len(table) == (10 if "deltalake" in text or "pyiceberg" in text else 12)


def test_snippets_are_found():
    """Otherwise the tests above would check nothing."""
    languages = [language for language, _ in SNIPPETS.values()]
    assert (languages.count("sql"), languages.count("python")) >= (4, 4)


@pytest.mark.parametrize(
    "command",
    [
        ["mood_of_topics"],
        ["what_changed", "--scheme", "polarity2"],
        ["what_changed", "--scheme", "polarity3"],
        ["pandas_table"],
        ["recommender"],
        ["tensors", "--scheme", "valence"],
        ["tensors", "--scheme", "polarity2"],
    ],
    ids=" ".join,
)
def test_examples_run_over_all_nights(output, monkeypatch, capsys, command):
    monkeypatch.setattr(sys, "path", [*sys.path, str(EXAMPLES)])
    module = importlib.import_module(command[0])
    monkeypatch.setattr(sys, "argv", [f"{command[0]}.py", str(output), *command[1:]])
    module.main()
    printed = capsys.readouterr().out
    if command[0] == "tensors":
        count = 5 if "valence" in command else 10
        assert f"'image_id': (({count},)" in printed
    else:
        assert printed


def test_a_frame_of_pandas_has_the_columns_of_all_nights(output, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(EXAMPLES)])
    module = importlib.import_module("pandas_table")
    images = module.frame(*module.committed(str(output)))
    assert (len(images), images["valence"].notna().sum(), images["polarity2"].notna().sum()) == (12, 5, 10)
