"""Counts the S3 requests of a run, with images as single objects and in .tar shards.

    python benchmarks/storage_requests.py      # about four minutes

Runs of a smaller and a larger number of images go to SeaweedFS through a counting proxy; the difference is the cost of more images.
Requests are grouped by the place of their key: images, the run's work (manifest and blocks), or output (the table and the record).
"""

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from measure import report
from PIL import Image

from benchmarks.servers.proxy import Proxy
from benchmarks.servers.seaweed import S3, seaweed

ROOT = Path(__file__).parents[1]
MEMBERS = 1024  # images in a shard


def image(number: int) -> bytes:
    """Return a small JPEG that differs from all others."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


def shard(images: list[bytes]) -> bytes:
    """Return a .tar of these images."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number, data in enumerate(images):
            member = tarfile.TarInfo(f"{number:06d}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def place(path: str) -> str:
    """Return the group of a request's path: work, output, images or listing."""
    if "/_work/" in path:
        return "work"
    return "output" if "/out" in path else "images" if "/in" in path else "listing"


def counted(s3: S3, source: str, output: str) -> Counter[str]:
    """Return the number of a run's requests by method and place."""
    with Proxy(s3.endpoint) as proxy:
        known = {"AWS_ACCESS_KEY_ID": s3.key, "AWS_SECRET_ACCESS_KEY": s3.secret, "AWS_DEFAULT_REGION": "us-east-1"}
        command = [sys.executable, str(ROOT / "jobs" / "annotate.py"), "--input", source, "--output", output, "--block-rows", "256"]
        subprocess.run(command, env=os.environ | known | {"AWS_ENDPOINT_URL": proxy.endpoint}, stdout=subprocess.DEVNULL, check=True)
        requests: Counter[str] = Counter()
        for (method, path), count in proxy.requests.items():
            requests[f"{method} {place(path)}"] += count
    return requests


def measure(smaller: int, larger: int, folder: Path) -> dict:
    images = [image(number) for number in range(larger)]
    results: dict[str, dict] = {}
    with seaweed(folder) as s3:
        for size in (smaller, larger):
            s3.fs.pipe({f"{s3.bucket}/in-objects-{size}/{number:06d}.jpg": images[number] for number in range(size)})
            shards = {number: shard(images[number : min(number + MEMBERS, size)]) for number in range(0, size, MEMBERS)}
            s3.fs.pipe({f"{s3.bucket}/in-shards-{size}/{number:06d}.tar": data for number, data in shards.items()})
        for kind in ("objects", "shards"):
            counts = [
                counted(s3, f"s3://{s3.bucket}/in-{kind}-{size}/", f"s3://{s3.bucket}/out-{kind}-{size}") for size in (smaller, larger)
            ]
            names = sorted({*counts[0], *counts[1]})
            more = larger - smaller
            results[kind] = {
                "all": [dict(sorted(count.items())) for count in counts],
                "of_1000_images_more": {name: round(1000 * (counts[1][name] - counts[0][name]) / more, 2) for name in names},
            }
    return {"images": [smaller, larger], "block_rows": 256, "members_of_a_shard": MEMBERS, **results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smaller", type=int, default=512, help="images of the smaller runs")
    parser.add_argument("--larger", type=int, default=1536, help="images of the larger runs")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ugrie-requests-") as folder:
        results = measure(args.smaller, args.larger, Path(folder))
    report("storage-requests", results, args.json)


if __name__ == "__main__":
    main()
