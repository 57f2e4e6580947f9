"""Starts Ray heads and worker nodes on this machine, by the commands that an operator uses."""

import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.servers.processes import free_ports, script, stop_tree, wait_for

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Head:
    """A Ray cluster's head node. Alone it is a cluster of one node."""

    address: str
    dashboard: str | None
    environment: dict[str, str]
    pid: int
    folder: str
    started: ExitStack = field(default_factory=ExitStack)

    def python(self, *arguments: object, timeout: float = 280, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Run a script of this project that joins the cluster through RAY_ADDRESS."""
        command = [sys.executable, *map(str, arguments)]
        environment = self.environment | {"RAY_ADDRESS": self.address}
        return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=timeout)

    def submit(self, *options: object, entrypoint: Sequence[object]) -> subprocess.Popen[str]:
        """Run `ray job submit` from the repository's root. Its output, which includes the job's, is on stdout."""
        command = [script("ray"), "job", "submit", "--address", self.dashboard, *map(str, options), "--", *map(str, entrypoint)]
        process = subprocess.Popen(command, env=self.environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.started.callback(stop_tree, process)
        return process

    def join(self, name: str, cpus: int, gpus: int = 0, store: int = 100_000_000) -> "Node":
        """Start a worker node that joins the cluster and ends with its head. GPUs need not exist; `store` is in bytes.

        Start nodes one after another: Ray gives a node 30 s to join, most of which is CPU time. Each has a temporary folder of its own, as
        each machine has: in a shared one, a node that joins replaces the uploaded working folder that the others' workers run in.
        """
        (agent,) = free_ports(1)
        folder = tempfile.mkdtemp(prefix="ugrie-node-")  # short: Ray's sockets lie below it
        self.started.callback(shutil.rmtree, folder, ignore_errors=True)
        command = [script("ray"), "start", "--block", f"--address={self.address}", "--node-ip-address=127.0.0.1", f"--node-name={name}"]
        command += [f"--temp-dir={folder}", f"--dashboard-agent-listen-port={agent}"]
        command += [f"--num-cpus={cpus}", f"--num-gpus={gpus}", f"--object-store-memory={store}"]
        command += ["--min-worker-port=0", "--max-worker-port=0", "--include-log-monitor=false", "--disable-usage-stats"]
        log = Path(self.folder) / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(command, env=self.environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        self.started.callback(stop_tree, process)
        wait_for(name, lambda: b"Ray runtime started" in log.read_bytes(), process, log)
        return Node(name, process)


@dataclass(frozen=True)
class Node:
    """A worker node, on the same machine as its head."""

    name: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """Send SIGKILL to the raylet and its processes, as if the machine were switched off."""
        (raylet,) = [child for child in psutil.Process(self.process.pid).children(recursive=True) if child.name() == "raylet"]
        for each in [raylet, *raylet.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait(20)  # `ray start --block` notices and ends the rest


@contextmanager
def ray_head(cpus: int, dashboard: bool) -> Iterator[Head]:
    """Start a head of `cpus` logical CPUs, and stop it with all its nodes in the end."""
    folder = tempfile.mkdtemp(prefix="ugrie-head-")  # short, because Ray's sockets lie below it and their paths are limited
    port, board, client, agent = free_ports(4)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_") or key.startswith("RAY_AUTH")}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    command = [script("ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}", f"--num-cpus={cpus}"]
    command += [f"--include-dashboard={str(dashboard).lower()}", "--dashboard-host=127.0.0.1", f"--dashboard-port={board}"]
    command += [f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}", f"--temp-dir={folder}"]
    command += ["--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=300000000", "--disable-usage-stats"]
    log = Path(folder) / "head.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    token = Path(environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    url = f"http://127.0.0.1:{board}"

    def ready() -> bool:
        if b"Ray runtime started" not in log.read_bytes():
            return False
        if not dashboard:
            return True
        try:
            request = urllib.request.Request(f"{url}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
            return urllib.request.urlopen(request, timeout=10).status == 200
        except (urllib.error.URLError, OSError):
            return False

    try:
        wait_for("Ray's head", ready, process, log)
        head = Head(f"127.0.0.1:{port}", url if dashboard else None, environment, process.pid, folder)
        with head.started:
            yield head
    finally:
        stop_tree(process)
        shutil.rmtree(folder, ignore_errors=True)
