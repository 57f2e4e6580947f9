"""docs/examples/schedules: a night by cron, systemd and Airflow."""

import ast
import configparser
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.config import AnnotateConfig

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "examples" / "schedules"


RAY = """#!/bin/bash
cd {folder}; echo "$*" >> asked
case "$1" in
  up) exit $(cat up) ;;
  dashboard) exec sleep 60 ;;
  job) code=$(head -1 codes); sed -i 1d codes; test "$code" != endless || exec sleep 60; exit $code ;;
esac
"""


class Night:
    """night.sh with a `ray` that writes down what it is asked, and whose jobs end with the codes given."""

    command = (FOLDER / "night.sh", "--input", "in put")

    def __init__(self, folder):
        self.folder = folder
        (folder / "ray").write_text(RAY.format(folder=folder))
        (folder / "ray").chmod(0o755)
        self.expect("endless")

    def expect(self, *codes, up=0):
        for name, text in (("codes", "".join(f"{code}\n" for code in codes)), ("up", str(up)), ("asked", "")):
            (self.folder / name).write_text(text)

    def asked(self):
        return (self.folder / "asked").read_text()

    def __call__(self, *codes, up=0):
        """Runs it. Returns its exit code, and what Ray was asked."""
        self.expect(*codes, up=up)
        ended = subprocess.run(self.command, capture_output=True, timeout=30)
        return ended.returncode, self.asked().splitlines()


@pytest.fixture
def night(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("PAUSE", "0")
    return Night(tmp_path)


@pytest.mark.parametrize(("codes", "code", "jobs"), [([0], 0, 1), ([1, 0], 0, 2), ([1, 1, 1], 1, 3)])
def test_a_night_is_tried_three_times_and_the_cluster_is_taken_down(night, codes, code, jobs):
    got, asked = night(*codes)
    assert got == code
    assert asked[0] == "up --yes cluster.yaml"
    assert asked[-1] == "down --yes cluster.yaml"
    submitted = [line for line in asked if line.startswith("job")]
    assert len(submitted) == jobs
    assert all(line.endswith("--working-dir . -- python jobs/annotate.py --resume --input in put") for line in submitted)


def test_a_cluster_that_did_not_start_is_taken_down_as_well(night):
    code, asked = night(up=3)
    assert code == 3
    assert asked == ["up --yes cluster.yaml", "down --yes cluster.yaml"]


def test_a_night_that_is_told_to_stop_takes_the_cluster_down(night):
    with subprocess.Popen(night.command, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        while "job submit" not in night.asked():
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGTERM)  # as systemd does
        process.wait(20)
    assert process.returncode != 0
    assert night.asked().splitlines()[-1] == "down --yes cluster.yaml"


def commands():
    """Every command that a schedule gives night.sh or jobs/annotate.py, by file."""
    for path in sorted(FOLDER.iterdir()):
        for line in re.findall(r"(?:night\.sh|annotate\.py) (--input[^\"\n]*)", path.read_text()):
            yield pytest.param(path, line.replace("{OUTPUT}", "s3://BUCKET/emotions"), id=path.name)


@pytest.mark.parametrize(("path", "line"), list(commands()))
def test_every_command_is_one_of_ours(path, line):
    flags = dict(zip(*[iter(shlex.split(line))] * 2, strict=True))
    config = AnnotateConfig.model_validate({name.removeprefix("--").replace("-", "_"): value for name, value in flags.items()})
    assert config.output.startswith("s3://")


def test_there_are_as_many_commands_as_schedules():
    assert {param.id for param in commands()} == {"crontab", "ugrie.service", "airflow_dag.py", "night.sh"}


def test_cron_runs_no_two_nights_at_once():
    jobs = [line for line in (FOLDER / "crontab").read_text().splitlines() if re.match(r"[\d*]", line)]
    assert len(jobs) == 2
    assert all(re.match(r"(\S+ ){5} \S", job) and "%" not in job for job in jobs)  # five fields; a % would end the command
    assert "flock --nonblock" in jobs[0]
    for path in re.findall(r"/opt/ugrie/(docs/\S+)", jobs[0]):
        assert (ROOT / path).stat().st_mode & 0o111


def test_systemd_runs_one_night_at_a_time_and_lets_it_take_its_cluster_down():
    service, timer = configparser.ConfigParser(strict=True), configparser.ConfigParser(strict=True)
    for parser, name in ((service, "ugrie.service"), (timer, "ugrie.timer")):
        parser.optionxform = str
        parser.read(FOLDER / name)
    assert service["Service"]["Type"] == "oneshot"
    assert service["Service"]["TimeoutStopSec"] == "10min"
    assert timer["Timer"]["OnCalendar"] == "*-*-* 01:00:00 UTC"
    assert timer["Install"]["WantedBy"] == "timers.target"


def test_airflows_dag_is_python_and_a_retry_has_the_runs_name():
    tree = ast.parse((FOLDER / "airflow_dag.py").read_text())
    calls = {ast.unparse(call.func): ast.unparse(call) for call in ast.walk(tree) if isinstance(call, ast.Call)}
    assert "max_active_runs=1" in calls["DAG"]
    assert "'retries': 3" in calls["DAG"]
    assert re.search(r"--run-id night-\{+ ts_nodash \}+", (FOLDER / "airflow_dag.py").read_text())
