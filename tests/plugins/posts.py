"""A table of posts with typed columns, whose images are shared, broken or missing, in every form that an input may have."""

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.plugins.corpus import Images, write_tar

TYPES = pa.schema(
    [
        pa.field("post_id", pa.int64()),
        pa.field("user_id", pa.string()),
        pa.field("posted_at", pa.timestamp("us", "UTC")),
        pa.field("budget", pa.decimal128(10, 2)),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("place", pa.struct([("name", pa.string()), ("lat", pa.float64())])),
    ]
)
NAMES = ("post_id", "user_id", "posted_at", "budget", "tags", "place")
TEXT = ("post_id", "user_id", "posted_at")  # those that a CSV holds
TYPED = ("parquet", "bytes", "delta", "delta bytes", "iceberg", "iceberg bytes")
KINDS = (*TYPED, "csv", "tsv", "jsonl", "tar")
KEEP = {"csv": TEXT, "tsv": TEXT}
FIRST = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Posts:
    """Rows with NAMES and `image`, the name of a file in `folder` or None; and the status expected of each file that is not `ok`."""

    folder: Path
    rows: list[dict[str, Any]]
    failures: dict[str | None, str]

    def status(self, post: dict[str, Any]) -> str:
        return self.failures.get(post["image"], "ok")

    def bytes_of(self, post: dict[str, Any]) -> bytes | None:
        path = self.folder / (post["image"] or "none")
        return path.read_bytes() if path.is_file() else None

    def write(self, kind: str, path: Path, rows: list[dict[str, Any]] | None = None) -> tuple[str, str]:
        """Write the posts in a form, by its name in KINDS. Return the input, and its column.

        Tables of Delta and Iceberg, with URIs or bytes, have several files, and rows of no post that were deleted.
        """
        rows = self.rows if rows is None else rows
        path.parent.mkdir(parents=True, exist_ok=True)
        links = [row["image"] and str(self.folder / row["image"]) for row in rows]
        if kind == "tar":
            members = {}
            for i, row in enumerate(rows):
                if (data := self.bytes_of(row)) is not None:
                    members |= {f"{i:05}.jpg": data, f"{i:05}.json": json.dumps(as_json(row)).encode(), f"{i:05}.txt": b"a post"}
            write_tar(path.with_suffix(".tar"), members)
            return str(path.with_suffix(".tar")), "uri"
        if kind == "jsonl":
            lines = [json.dumps(as_json(row) | {"image": link}) for row, link in zip(rows, links, strict=True)]
            path.with_suffix(".jsonl").write_text("\n".join(lines) + "\n")
            return str(path.with_suffix(".jsonl")), "image"
        table = pa.Table.from_pylist([{name: row[name] for name in NAMES} for row in rows], TYPES)
        if kind in ("csv", "tsv"):
            table = table.select(TEXT).append_column("image", pa.array(links, pa.string()))
            options = pa.csv.WriteOptions(delimiter="," if kind == "csv" else "\t")
            pa.csv.write_csv(table, path.with_suffix(f".{kind}"), options)
            return str(path.with_suffix(f".{kind}")), "image"
        images = pa.array(map(self.bytes_of, rows), pa.binary()) if kind.endswith("bytes") else pa.array(links, pa.string())
        if kind.startswith(("delta", "iceberg")):
            whole = table.append_column("image", images)
            removed = whole.slice(0, 3).set_column(0, "post_id", pa.array([-3, -2, -1], pa.int64()))
            parts = [pa.concat_tables([removed, whole.slice(0, len(rows) // 3)]), whole.slice(len(rows) // 3)]
            return (write_delta if kind.startswith("delta") else write_iceberg)(path.with_suffix(""), parts), "image"
        pq.write_table(table.append_column("image", images), path.with_suffix(".parquet"), row_group_size=70)
        return str(path.with_suffix(".parquet")), "image"

    def listed(self, kind: str) -> list[dict[str, Any]]:
        """The posts that an input of this kind can hold: in a .tar every sample has an image."""
        return [post for post in self.rows if kind != "tar" or self.bytes_of(post) is not None]


def write_delta(folder: Path, parts: list[pa.Table]) -> str:
    """Write a Delta table, and delete the rows whose post_id is below 0. Return its place."""
    import deltalake

    for i, part in enumerate(parts):
        deltalake.write_deltalake(folder, part, mode="append" if i else "overwrite")
    deltalake.DeltaTable(folder).delete("post_id < 0")
    return str(folder)


def write_iceberg(folder: Path, parts: list[pa.Table]) -> str:
    """Write an Iceberg table, and delete the rows whose post_id is below 0. Return its place."""
    from pyiceberg.catalog.sql import SqlCatalog

    catalog = SqlCatalog("posts", uri="sqlite://", warehouse=f"file://{folder}")
    catalog.create_namespace("lake")
    table = catalog.create_table("lake.posts", parts[0].schema)
    for part in parts:
        table.append(part)
    table.delete("post_id < 0")
    return str(folder / "lake" / "posts")


def as_json(post: dict[str, Any]) -> dict[str, Any]:
    row = {name: post[name] for name in NAMES if post[name] is not None}
    return row | {name: str(row[name]) for name in ("posted_at", "budget") if name in row}


def written(post: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return the values of a post as the table of a run is to have them that kept the columns of such an input."""
    if kind in TYPED:
        return {name: post[name] for name in NAMES}
    if kind in ("jsonl", "tar"):
        row = as_json(post)
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()}
        return dict.fromkeys(NAMES) | texts
    posted_at = post["posted_at"] and f"{post['posted_at']:%Y-%m-%d %H:%M:%S.%f}Z"
    return {"post_id": str(post["post_id"]), "user_id": post["user_id"] or "", "posted_at": posted_at or ""}


def posts_of(folder: Path, images: Images, count: int = 300) -> Posts:
    """Make posts: every fifth is a repost under another name, every seventh names an image that another post has named."""
    failures: dict[str | None, str] = {None: "missing", "gone.jpg": "missing"}
    rows: list[dict[str, Any]] = []
    for i in range(count):
        name = f"{i:03}.jpg"
        data = images.jpeg(i % 40 if i % 5 == 0 else 1000 + i, 40, 30)
        if i % 50 == 7:
            data, failures[name] = data[:300], "corrupt"
        elif i % 50 == 9:
            data, failures[name] = b"<html>not found</html>", "not_an_image"
        (folder / name).write_bytes(data)
        shared = {3: "gone.jpg", 4: None}.get(i % 60, f"{i // 2:03}.jpg" if i % 7 == 6 else name)
        rows.append(
            {
                "post_id": 9_000_000_000 + i,
                "user_id": None if i % 11 == 0 else f"użytkownik {i % 13}, „{i}”",
                "posted_at": None if i % 17 == 1 else FIRST + dt.timedelta(seconds=977 * i, microseconds=i),
                "budget": None if i % 19 == 2 else Decimal(i * 100 + i % 100) / 100,
                "tags": None if i % 23 == 3 else [f"tag{j}" for j in range(i % 4)] + [None] * (i % 29 == 0),
                "place": None if i % 9 == 4 else {"name": f"p{i}", "lat": i / 7 if i % 3 else None},
                "image": shared,
            }
        )
    return Posts(folder, rows, failures)


@pytest.fixture(scope="session")
def posts(tmp_path_factory: pytest.TempPathFactory, images: Images) -> Posts:
    return posts_of(tmp_path_factory.mktemp("posts"), images)


@pytest.fixture
def some_posts(tmp_path_factory: pytest.TempPathFactory, images: Images) -> Callable[[int], Posts]:
    """Make some posts with files of their own, which a test may change."""
    return lambda count: posts_of(tmp_path_factory.mktemp("posts"), images, count)
