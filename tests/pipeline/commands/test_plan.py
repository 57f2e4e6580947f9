"""The dry run from its command line: text, JSON, and all problems of the settings at once."""

import json
import re

import pytest


@pytest.fixture
def planned(command, corpus, capsys, tmp_path):
    """Return a function that runs the command over the corpus, with more flags, and returns its output."""

    def run(*flags):
        assert command.run(["--input", str(corpus.folder), "--output", str(tmp_path / "out"), *flags]) == 0
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_it_says_what_a_night_would_be_and_writes_nothing(planned, tmp_path):
    said = planned("--sample", "40", "--dollars-an-hour", "3.5")
    assert "40 images are listed; 0 were annotated before, 40 are new" in said
    assert re.search(r"  ok +34  annotated\n", said)
    assert re.search(r"  corrupt +1  damaged image: its decoder can't finish\n", said)
    assert re.search(r"time +\d+ s \(\d+ s to .*\); limited by the model\n", said)
    assert re.search(r"machines +\$0\.\d\d \(", said)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_as_json_it_is_all_there(planned):
    found = json.loads(planned("--sample", "4", "--json", "--cpus", "64", "--gpus", "2"))
    assert found["cluster"] == {"cpus": 64, "gpus": 2, "dollars_an_hour": None}
    assert found["survey"]["new"] == 40
    assert sum(found["trial"]["status"].values()) == 4
    assert found["forecast"]["seconds"] is None, "the sample ran on a CPU"
    assert found["forecast"]["requests"]["likely"] > 40


def test_every_problem_is_said_at_once(command, capsys, tmp_path):
    (tmp_path / "out" / "runs").mkdir(parents=True)
    (tmp_path / "out" / "runs" / "x.json").write_text("half a rec")
    settings = ["--input", str(tmp_path / "gone"), "--output", str(tmp_path / "out"), "--model", "ugrie-tny", "--on-success", "ftp://x"]
    assert command.run(settings) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert re.match(r"plan: there is no model 'ugrie-tny' \(did you mean 'ugrie-tiny'\?\)", lines[0])
    assert re.match(r"plan: nothing found at .*gone", lines[1])
    assert re.match(r"plan: .*runs/x\.json is no run record", lines[2])
    assert re.match(r"plan: on_success is a URL of ftp://: give an https:// URL", lines[3])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--sample", "0"], r"plan: Invalid value \"0\" for --sample\. Must be >= 1\."),
        (["--smple", "3"], r"plan: Unknown option: --smple\. Did you mean --sample\?"),
        (["--device", "tpu"], r"plan: --device 'tpu': .*"),
    ],
)
def test_flags_that_are_wrong_are_named(command, capsys, flags, said):
    assert command.run(["--input", "in", "--output", "out", *flags]) == 2
    assert re.match(said, capsys.readouterr().err)
