"""docs/docker/Dockerfile: by hadolint's rules and ours. It is not built here, which takes Docker and a registry."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.servers.processes import script

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "docs" / "docker" / "Dockerfile"


@pytest.fixture(scope="module")
def steps():
    """Its instructions in order: (instruction, what it says on one line), a program that it holds left out."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    text = re.sub(r"<<'PROGRAM'\n.*?\nPROGRAM\n", "\n", text, flags=re.DOTALL)
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def said(steps, instruction):
    return [what for name, what in steps if name == instruction]


def test_hadolint_finds_nothing():
    found = subprocess.run([script("hadolint"), DOCKERFILE], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout) == (0, "")


def test_it_ends_as_a_user_that_is_not_root_and_has_a_number(steps):
    assert said(steps, "USER")[-1] == "1000:1000"
    last = max(i for i, (name, _) in enumerate(steps) if name == "FROM")
    assert [name for name, _ in steps[last:]].index("USER") > 0
    assert "--uid 1000 --shell /bin/bash ray" in " ".join(said(steps, "RUN"))
    assert "HOME=/home/ray" in said(steps, "ENV")[-1]


def test_bases_are_slim_and_named_by_version(steps):
    outside = {what.split()[0] for what in said(steps, "FROM")} - {"build"}
    assert outside == {"python:3.12-slim-bookworm"}


def test_everything_that_is_copied_is_there_and_not_ignored(steps):
    ignored = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().split()
    assert ignored[0] == "*"
    copied = [source for what in said(steps, "COPY") if not what.startswith("--from") for source in what.split()[:-1]]
    assert {f"!{source}" for source in copied} == {line for line in ignored if line.startswith("!")}
    assert all((ROOT / source).exists() for source in copied)


def test_no_caches_and_no_secrets_are_left_in_a_layer(steps):
    for run in said(steps, "RUN"):
        assert "apt-get install" not in run or "rm -rf /var/lib/apt/lists/*" in run
        assert "pip install" not in run or "--no-cache" in run
    assert not re.search(r"(TOKEN|SECRET|PASSWORD|KEY)\b", DOCKERFILE.read_text())


def test_bytecode_is_compiled_for_a_user_who_cannot_write_it(steps):
    installs = [run for run in said(steps, "RUN") if "uv pip install" in run]
    assert len(installs) == 2
    assert all("--compile-bytecode" in run for run in installs)


def test_kuberay_finds_what_it_calls(steps):
    """Its probes call wget and bash; ray is in /usr/local/bin, where login shells look as well."""
    assert "wget" in " ".join(said(steps, "RUN"))
    assert any("--system" in run and "-r pyproject.toml" in run for run in said(steps, "RUN"))
    assert "--from=build /usr/local /usr/local" in said(steps, "COPY")


def test_a_tower_can_be_compiled_on_a_gpu(steps):
    """Triton needs a C compiler with its headers; Python's own are in /usr/local."""
    (installed,) = [run for run in said(steps, "RUN") if "apt-get install" in run]
    assert {"gcc", "libc6-dev"} <= set(installed.split())


@pytest.mark.parametrize(("checkpoint", "code"), [("ugrie-tiny", 0), ("ugrie-tny", 1)])
def test_the_tower_of_a_checkpoint_is_fetched_by_its_name(checkpoint, code):
    """The build's commands for CHECKPOINT, here one that bundles its tower."""
    (program,) = re.findall(r"python - \"\$CHECKPOINT\" <<'PROGRAM'\n(.*?)\nPROGRAM\n", DOCKERFILE.read_text(), re.DOTALL)
    command = [sys.executable, "-c", program, checkpoint]
    assert subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120).returncode == code
