"""`ugrie report`: the page about a run, or about several nights."""

import pytest


@pytest.fixture
def output(tmp_path, night):
    for date in ("2026-01-01", "2026-01-02", "2026-01-03"):
        night(tmp_path, date, [("s3://b/a.jpg", b"a"), ("s3://b/b.jpg", b"b")], config={"report_images": False})
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "written", "title"),
    [
        ([], "runs/night-2026-01-03.html", "Night of 2026-01-03"),
        (["--run-id", "night-2026-01-02"], "runs/night-2026-01-02.html", "Night of 2026-01-02"),
        (["--until", "2026-01-02"], "runs/nights_2026-01-01_2026-01-02.html", "Nights of 2026-01-01 to 2026-01-02"),
    ],
)
def test_it_writes_the_page_beside_the_records(command, output, capsys, flags, written, title):
    assert command.run(["--output", str(output), *flags]) == 0
    assert capsys.readouterr().out == f"{output}/{written}\n"
    assert f"<h1>{title}</h1>" in (output / written).read_text()


def test_it_writes_the_page_where_it_is_told_to(command, output, capsys, tmp_path):
    assert command.run(["--output", str(output), "--to", str(tmp_path / "mine" / "page.html")]) == 0
    assert (tmp_path / "mine" / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert not list((output / "runs").glob("*.html"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--run-id", "night-2026-01-04"], "report: the output holds no committed run night-2026-01-04 (did you mean 'night-2026-01-0"),
        (
            ["--since", "2026-02-01"],
            "report: the output holds no run between --since and --until: its runs are of 2026-01-01 to 2026-01-03",
        ),
        (["--since", "yesterday"], 'report: Invalid value for --since: unable to convert "yesterday" into'),
        (["--storage-options", "3"], "report: --storage-options: not a JSON object"),
        (["--to", "s4://page.html"], "report: 's4://' of s4://page.html is no known kind of storage (did you mean 's3://'?)"),
        (["--form", "x"], "report: Unknown option: --form."),
    ],
)
def test_what_is_wrong_is_one_line(command, output, capsys, flags, said):
    assert command.run(["--output", str(output), *flags]) == 2
    told = capsys.readouterr().err
    assert told.startswith(said)
    assert told.count("\n") == 1


def test_an_output_without_runs_is_named(command, tmp_path, capsys):
    assert command.run(["--output", str(tmp_path / "none")]) == 2
    assert "holds no committed run: check --output" in capsys.readouterr().err
