"""`ugrie annotate`: arguments, configuration file, exit codes, on clusters of one and of two CPUs."""

import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.commands.annotate import EXAMPLE, _stop
from pipeline.config import AnnotateConfig
from pipeline.run.plan import prepare

ROOT = Path(__file__).parents[3]


@pytest.fixture
def refused(command, capsys, monkeypatch, tmp_path):
    """Return a function that runs the command with wrong arguments and returns its messages. Nothing may be started or written."""
    import ray

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("Ray was started"))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def run(*tokens):
        before = set(tmp_path.rglob("*"))
        assert command.run([str(token) for token in tokens]) == 2
        assert set(tmp_path.rglob("*")) == before
        said = capsys.readouterr()
        assert said.out == ""
        lines = said.err.splitlines()
        assert all(line.startswith("annotate: ") for line in lines)
        return [line.removeprefix("annotate: ") for line in lines]

    return run


@pytest.mark.parametrize(
    ("tokens", "line"),
    [
        ("", r"Parameter --input requires an argument\."),
        ("--input in", r"--output: must be given \(Folder or prefix .*\)"),
        ("--inptu in --output out", r"Unknown option: --inptu. Did you mean --input\?"),
        ("--input in --output out --date 2024-13-40", r"--date '2024-13-40': should be a valid date.* \(.*dt=YYYY-MM-DD.*"),
        ("--input in --output out --device tpu", r"--device 'tpu': .*\(auto, cpu or cuda: .*"),
        ("--input in --output out --batch-size 0", "--batch-size '0': should be greater than or equal to 1 .*"),
        ("--input in --output out --limit many", "--limit 'many': should be a valid integer.*"),
        ("--input in --output out --run-id a/b", r"--run-id 'a/b': .*\(Name of the run; .*"),
        ("--input in --output out --limit 3 --limit 4", "Parameter --limit specified multiple times."),
        ("--input in --output out --config gone.toml", "--config gone.toml can't be read: No such file or directory"),
        ("--input in --output out --schemes ekman66", "ugrie-tiny was not trained for 'ekman66'.*; it knows .*"),
        ("--input in --output out --schemes ,", "schemes = none: a template needs at least one scheme.*"),
        ("--input in --output out --model ugrie-tny", r"there is no model 'ugrie-tny' \(did you mean 'ugrie-tiny'\?\).*"),
        ("--input in --output out", "nothing found at in, as /.*/in: check the path, and that it is not empty"),
        ("--input in --output out --log-format xml", r"--log-format 'xml': should be 'text' or 'json' \(.*\)"),
        ("--input in --output out --on-success no-such-command", "on_success: the command no-such-command is not found .*"),
        ("--input in --output out --on-failure http://chat.org/x", "on_failure is a URL of http://: give an https:// URL .*"),
        ("--input s4://in --output out", r"'s4://' of s4://in is no known kind of storage \(did you mean 's3://'\?\)"),
        ("--input . --output out", r"nothing found at \., as /.*: check the path, and that it is not empty"),
    ],
)
def test_a_setting_that_is_wrong_is_one_line_that_names_it(refused, tokens, line):
    (said,) = refused(*tokens.split())
    assert re.fullmatch(line, said)


def test_an_empty_input_or_output_is_refused_and_not_taken_for_the_working_folder(refused):
    assert [line.split(":")[0] for line in refused("--input", "", "--output", "")] == ["--input ''", "--output ''"]


def test_every_setting_that_is_wrong_is_a_line(refused):
    said = refused("--input", "in", "--output", "out", "--limit", "0", "--device", "tpu", "--max-bytes", "x")
    assert sorted(line.split()[0] for line in said) == ["--device", "--limit", "--max-bytes"]


def test_storage_options_are_not_shown_when_something_else_is_wrong(refused):
    (said,) = refused("--input", "in", "--storage-options", '{"secret": "hunter2"}')
    assert "hunter2" not in said


def test_storage_options_that_are_wrong_are_not_shown(refused):
    for options in ('{"secret": "hunter2"', '["hunter2"]', '"hunter2"'):
        (said,) = refused("--input", "in", "--output", "out", "--storage-options", options)
        assert said.startswith("--storage-options: ")
        assert "JSON object" in said
        assert "hunter2" not in said


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('output = "out"\nbatchsize = 3\n', r'Unknown option: "\[batchsize\]" from .*job.toml. Did you mean --batch-size\?'),
        ("limit = " + "[" * 5000, "--config job.toml is not valid TOML: maximum recursion depth .*"),
        ('output = "out"\nschemes = [[2026-01-02]]\n', "--config job.toml can't be used: Object of type date is not JSON serializable"),
        (f'output = "out"\nlimit = "{"x" * 5000}"\n', r"--limit 'xxx.* … .*first N new images of the input\)"),
        ('output = "out\n', r"--config job.toml is not valid TOML: .*line 1.*"),
        ('output = "out"\nlimit = "many"\n', "--limit 'many': should be a valid integer.*"),
        ('output = "out"\ndate = "soon"\n', "--date 'soon': .*"),
        ('output = "out"\nconfig = "other.toml"\n', "--config job.toml can't name another file: leave out `config`"),
    ],
)
def test_a_configuration_file_that_is_wrong_is_one_line(refused, tmp_path, text, line):
    (tmp_path / "job.toml").write_text(text)
    (said,) = refused("--config", "job.toml", "--input", "in")
    assert re.fullmatch(line, said)


def test_a_flag_wins_over_the_configuration_file(refused, tmp_path):
    (tmp_path / "job.toml").write_text('input = "in-file"\noutput = "out"\nschemes = ["polarity2"]\n[storage_options]\nkey = "k"\n')
    assert "at in-file, as" in refused("--config", "job.toml")[0]
    assert "at in-flag, as" in refused("--config", "job.toml", "--input", "in-flag")[0]
    assert "'ekman77'" in refused("--config", "job.toml", "--schemes", "ekman77,polarity2")[0]


def test_one_configuration_file_does_not_reach_the_next_run(refused, tmp_path):
    (tmp_path / "job.toml").write_text('input = "in"\noutput = "out"\n')
    refused("--config", "job.toml")
    assert "--output: must be given" in refused("--input", "in")[0]


@pytest.mark.slow
def test_the_command_itself_exits_with_two_and_one_line(tmp_path):
    command = [sys.executable, str(ROOT / "jobs" / "annotate.py"), "--input", str(tmp_path / "gone"), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"annotate: nothing found at {tmp_path / 'gone'}: check the path, and that it is not empty\n"
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_setting():
    from pipeline.config import AnnotateConfig

    done = subprocess.run([sys.executable, str(ROOT / "jobs" / "annotate.py"), "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    flags = {f"--{name.replace('_', '-')}" for name in AnnotateConfig.model_fields} | {"--config"}
    assert {flag for flag in flags if flag not in done.stdout} == set()
    assert "--empty-" not in done.stdout
    assert done.stdout.startswith("Usage: ugrie annotate [OPTIONS] INPUT OUTPUT\n")
    assert done.stdout.splitlines()[-2:] == [line.rstrip() for line in EXAMPLE.splitlines()]


@pytest.mark.cluster
def test_a_run_that_is_done_says_so_and_exits_with_zero(command, finished, capsys):
    config = finished.config
    tokens = ["--input", config.input, "--output", config.output, "--run-id", config.run_id]
    assert command.run(tokens) == 0
    assert " of 40 images annotated by " in capsys.readouterr().out
    assert command.run([*tokens, "--limit", "3"]) == 2
    assert "run undisturbed was begun with limit = None, not 3" in capsys.readouterr().err


def test_json_lines_say_how_a_run_ended(command, finished, capsys, caplog, monkeypatch):
    """One that is committed, and one whose settings are wrong."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(sys.stderr)])
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    tokens = [
        "--input",
        finished.config.input,
        "--output",
        finished.config.output,
        "--run-id",
        finished.config.run_id,
        "--log-format",
        "json",
    ]
    assert command.run(tokens) == 0
    assert command.run([*tokens, "--limit", "3"]) == 2
    logging.captureWarnings(False)
    said = capsys.readouterr()
    assert said.out == ""
    begun, ended, wrong = map(json.loads, said.err.splitlines())
    assert begun["message"].startswith("run undisturbed was committed at ")
    assert begun["run_id"] == ended["run_id"] == "undisturbed"
    assert (ended["status"], ended["exit_code"], ended["counts"]) == ("succeeded", 0, finished.record.counts.model_dump())
    assert (wrong["level"], wrong["logger"]) == ("ERROR", "annotate")
    assert wrong["message"].startswith("run undisturbed was begun with limit = None, not 3")


def test_hooks_are_told_of_both_ends(command, finished, tmp_path, capsys):
    hooks = []
    for end in ("success", "failure"):
        hooks += [f"--on-{end}", f"sh -c 'echo $UGRIE_STATUS $UGRIE_RUN_ID $UGRIE_RECORD > {tmp_path}/{end}'"]
    tokens = ["--input", finished.config.input, "--output", str(finished.output), "--run-id", "undisturbed", *hooks]
    assert command.run(tokens) == 0
    assert command.run([*tokens, "--limit", "3"]) == 2
    assert (tmp_path / "success").read_text() == f"succeeded undisturbed {finished.output}/runs/undisturbed.json\n"
    assert (tmp_path / "failure").read_text() == "refused undisturbed\n"


def test_a_night_with_nothing_new_says_so_and_exits_with_zero(command, finished, capsys, tmp_path):
    shutil.copytree(finished.output, tmp_path, dirs_exist_ok=True)
    assert command.run(["--input", finished.config.input, "--output", str(tmp_path), "--run-id", "second"]) == 0
    model = finished.record.model
    assert capsys.readouterr().out == f"nothing new: 40 images listed, all annotated before by {model}, run second\n"


@pytest.mark.timeout(400)
def test_a_cluster_of_one_cpu_finishes_with_a_configuration_file_and_flags(start_head, model_operators, corpus, rows, tmp_path):
    """With the model itself: the labels are those that the operators give without Ray."""
    settings = {
        "input": str(corpus.folder),
        "output": str(tmp_path / "wrong"),
        "date": "2026-01-02",
        "schemes": ["valence"],
        "block_rows": 16,
    }
    (tmp_path / "job.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    output = tmp_path / "out"
    with start_head(cpus=1, dashboard=False) as head:
        done = head.python("jobs/annotate.py", "--config", tmp_path / "job.toml", "--output", output, "--schemes", "polarity3,valence")
    assert done.returncode == 0, done.stderr[-4000:]
    assert " of 40 images annotated by ugrie-tiny@" in done.stdout
    assert not (tmp_path / "wrong").exists()
    record = rows.record(output)
    assert record.schemes == {"polarity3": "categorical", "valence": "ordinal"}
    assert record.files[0].startswith("annotations/dt=2026-01-02/part-")
    plan = prepare(AnnotateConfig(input=str(corpus.folder), output=str(tmp_path / "alone"), schemes="polarity3,valence"))
    assert rows.differences(model_operators.rows(plan), rows.of(output, record), lambda row: row["image_id"]) == []


@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_a_run_that_is_told_to_stop_says_how_it_goes_on_and_does(finished, corpus, tmp_path, check_output):
    """SIGTERM, as a spot machine or a scheduler sends it, once the first block is written. Its Ray goes with it."""
    command = [sys.executable, str(ROOT / "benchmarks" / "stubs.py"), "--input", str(corpus.folder), "--output", str(tmp_path)]
    command += ["--date", "2026-01-02", "--block-rows", "4", "--run-id", "stopped"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        children = []
        while process.poll() is None and not list(tmp_path.rglob("block-*.parquet")):
            children = psutil.Process(process.pid).children(recursive=True)
            time.sleep(0.05)
        process.terminate()
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 143, said
    assert "run stopped was told to stop: the same command with --run-id stopped resumes it" in said
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    assert not (tmp_path / "runs").exists()
    done = subprocess.run([*command[:-2], "--resume"], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "resuming run stopped" in done.stderr
    check_output(tmp_path, "--rows", 40, "--same-as", finished.output)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_of_several_signals_the_first_ends_a_run_and_others_do_not_disturb_its_end(monkeypatch, number, raised):
    handlers = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    with pytest.raises(raised):
        _stop(number, None)
    assert handlers == {signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: signal.SIG_IGN}
