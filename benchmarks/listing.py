"""Lists one flat prefix of a million keys in SeaweedFS: page by page, and in ranges of keys as UGRIE does.

    python benchmarks/listing.py      # some twenty minutes, of which four make the keys

Server, client and a proxy that counts requests share this machine's cores. The proxy also delays each request, as a distant store would.
The CPU seconds are those of all three: divided by the number of cores, they are the least that a listing can take on this machine.
"""

import argparse
import hashlib
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
from measure import report

from benchmarks.servers.proxy import Proxy
from benchmarks.servers.seaweed import S3, seaweed

FOLDER = "flat"
NAMINGS: dict[str, Callable[[int], str]] = {
    "hashes": lambda i: f"{hashlib.md5(str(i).encode()).hexdigest()}.jpg",
    "numbers": lambda i: f"IMG-{i}.jpg",
}


def varint(number: int) -> bytes:
    """Encode a number as protobuf does."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def message(fields: dict[int, int | bytes]) -> bytes:
    """Encode a protobuf message of numbers and bytes."""
    parts = []
    for number, value in fields.items():
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        else:
            parts.append(varint(number << 3 | 2) + varint(len(value)) + value)
    return b"".join(parts)


def entry(folder: str, name: str) -> bytes:
    """Return an object's entry as SeaweedFS saves it: its folder, name, size, times, mode and MD5, but no data."""
    attributes = {1: 100_000, 2: 1_760_000_000, 3: 0o660, 6: 1_760_000_000, 14: hashlib.md5(name.encode()).digest()}
    data = message({1: folder.encode(), 2: message({1: name.encode(), 4: message(attributes)})})
    return len(data).to_bytes(4, "big") + data


def fill(s3: S3, naming: str, keys: int, place: Path) -> None:
    """Put objects without data under a flat prefix. The first come once more at the end: the shell ends before its last few are made."""
    folder = f"{FOLDER}-{naming}"
    s3.put(f"{folder}/{NAMINGS[naming](0)}", b"first")  # makes the folder, which many writers at once may lose keys of
    entries = place / "entries"
    with entries.open("wb") as file:
        for number in (*range(1, keys), *range(1, min(keys, 100))):
            file.write(entry(f"/buckets/{s3.bucket}/{folder}", NAMINGS[naming](number)))
    s3.load(entries)
    entries.unlink()


def page_by_page(s3: S3, folder: str) -> list[str]:
    """List a prefix by botocore, one ListObjectsV2 after the other."""
    import botocore.session

    key = {"aws_access_key_id": s3.key, "aws_secret_access_key": s3.secret, "region_name": "us-east-1"}
    client = botocore.session.get_session().create_client("s3", endpoint_url=s3.endpoint, **key)
    keys: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = client.list_objects_v2(Bucket=s3.bucket, Prefix=f"{folder}/", **token)
        keys += [each["Key"] for each in page.get("Contents", ())]
        if not page["IsTruncated"]:
            return keys
        token = {"ContinuationToken": page["NextContinuationToken"]}


def in_ranges(s3: S3, folder: str, divided: bool = True) -> list[str]:
    """List a prefix as UGRIE does; or, if it is not `divided`, one page after the other by the same client."""
    from pipeline.storage import listing
    from pipeline.storage.filesystem import connect

    fs, root = connect(f"s3://{s3.bucket}/{folder}", s3.options)
    fs.invalidate_cache()
    pages = listing.DIVIDED_PAGES
    listing.DIVIDED_PAGES = pages if divided else sys.maxsize
    try:
        return [file.name.removeprefix(f"{s3.bucket}/") for file in listing.files_below(fs, root)]
    finally:
        listing.DIVIDED_PAGES = pages


CONTENDERS: dict[str, Callable[[S3, str], list[str]]] = {
    "botocore, page by page": page_by_page,
    "UGRIE, page by page": lambda s3, folder: in_ranges(s3, folder, divided=False),
    "UGRIE, in ranges": in_ranges,
}


def _serve(upstream: str, delay: float, pipe: Any) -> None:
    """Run the proxy until a message comes; then send how many requests it has seen."""
    with Proxy(upstream, delay=delay) as proxy:
        pipe.send(proxy.endpoint)
        pipe.recv()
        pipe.send(proxy.count("GET"))


@contextmanager
def counted(s3: S3, delay: float) -> Iterator[tuple[S3, Callable[[], int]]]:
    """Start a proxy in a process of its own. Yield the server behind it, and a function that stops it and returns the count of GETs."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(s3.endpoint, delay, theirs), daemon=True)
    process.start()

    def stop() -> int:
        ours.send(None)
        count: int = ours.recv()
        return count

    try:
        yield replace(s3, endpoint=ours.recv()), stop
    finally:
        process.terminate()
        process.join()


def cpu_seconds() -> float:
    """Return what this process, the server and the proxy have used of the cores."""
    ours = psutil.Process()
    return sum(times.user + times.system for times in (each.cpu_times() for each in (ours, *ours.children(recursive=True))))


def measured(s3: S3, folder: str, delay: float, count: int) -> dict[str, Any]:
    """Time all contenders behind a delay. Raises RuntimeError where one misses keys, or their keys differ."""
    found: dict[str, dict[str, Any]] = {}
    expected: list[str] = []
    for name, contender in CONTENDERS.items():
        with counted(s3, delay) as (behind, stop):
            cpu, began = cpu_seconds(), time.perf_counter()
            keys = contender(behind, folder)
            seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
            found[name] = {"seconds": round(seconds, 1), "requests": stop(), "cpu_seconds": round(cpu, 1)}
            found[name]["load"] = round(os.getloadavg()[0], 1)  # also of others' work, which slows down the contenders
        print(f"{delay:g} s, {name}: {found[name]}", file=sys.stderr)
        expected = expected or keys
        if keys != expected or len(keys) != count:
            raise RuntimeError(f"{name} found {len(keys)} of {count} keys, or in another order than others")
    plain, ours = found["UGRIE, page by page"], found["UGRIE, in ranges"]
    ratios = {"times_as_fast": plain["seconds"] / ours["seconds"], "times_the_requests": ours["requests"] / plain["requests"]}
    return found | {name: round(ratio, 2) for name, ratio in ratios.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument(
        "--delays", type=float, nargs="*", default=[0.0, 0.05, 0.1], help="seconds that each request waits before the server"
    )
    parser.add_argument("--names", nargs="*", choices=NAMINGS, default=["hashes"])
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    results: dict[str, Any] = {"keys": args.keys}
    with tempfile.TemporaryDirectory(prefix="ugrie-listing-") as folder, seaweed(Path(folder) / "server") as s3:
        for naming in args.names:
            fill(s3, naming, args.keys, Path(folder))
            results[naming] = {f"{delay:g} s": measured(s3, f"{FOLDER}-{naming}", delay, args.keys) for delay in args.delays}
    report("listing", results, args.json)


if __name__ == "__main__":
    main()
