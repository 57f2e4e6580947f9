"""What dead runs left in an output: found, and removed once it is old enough that no run can be at work on it."""

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fsspec

from pipeline.errors import UserError
from pipeline.storage.files import listed, read
from pipeline.storage.filesystem import Options, connect
from pipeline.table import delta
from pipeline.table.commit import part_of


@dataclass(frozen=True)
class Leftover:
    """A folder below _work, or a file below annotations/ that no record lists. `changed` is its newest file's time, in UTC."""

    path: str
    run_id: str
    files: int
    bytes: int
    changed: dt.datetime


def leftovers(output: str, options: Options, older_than: dt.timedelta) -> list[Leftover]:
    """What no run needs any more. A run that is not committed is left alone until nothing of it has changed for `older_than`.

    Raises UserError where a record can't be read: its run's files would be taken for a dead one's.
    """
    fs, root = connect(output, options)
    root = root.rstrip("/")
    found = listed(fs, root, lambda: fs.find(root, detail=True))
    records = _records(fs, [name for name in found if name.startswith(f"{root}/runs/") and name.endswith(".json")])
    kept = {f"{root}/{file}" for record in records.values() for file in record["files"]}
    if any(name.startswith(f"{root}/annotations/_delta_log/") for name in found):
        kept |= {f"{root}/{file}" for file in delta.files(output, options)}
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, info in found.items():
        folder, _, rest = name.removeprefix(f"{root}/").partition("/")
        if folder == "_work" and "/" in rest:
            run_id = rest.partition("/")[0]
            groups.setdefault((run_id, f"{root}/_work/{run_id}"), []).append(info)
        elif folder == "annotations" and name not in kept and (run_id := part_of(name) or ""):
            groups.setdefault((run_id, name), []).append(info)
    newest: dict[str, dt.datetime] = {}
    for (run_id, _), infos in groups.items():
        newest[run_id] = max([newest.get(run_id, dt.datetime.min.replace(tzinfo=dt.UTC)), *map(_changed, infos)])
    latest = dt.datetime.now(dt.UTC) - older_than
    return [
        Leftover(path, run_id, len(infos), sum(info["size"] or 0 for info in infos), max(map(_changed, infos)))
        for (run_id, path), infos in sorted(groups.items())
        if run_id in records or newest[run_id] <= latest
    ]


def remove(output: str, options: Options, found: list[Leftover]) -> Iterator[Leftover]:
    """Removes them, one after the other."""
    fs, _ = connect(output, options)
    for leftover in found:
        fs.rm(leftover.path, recursive=True)
        yield leftover


def _records(fs: fsspec.AbstractFileSystem, paths: list[str]) -> dict[str, dict[str, Any]]:
    records = {}
    for path in paths:
        try:
            record = json.loads(read(fs, path))
            records[record["run_id"]] = {"files": list(record["files"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is no run's record that can be read ({error}): mend or remove it first, nothing was removed") from None
    return records


def _changed(info: dict[str, Any]) -> dt.datetime:
    """When a file was last written; now, where the storage does not say, so that it is never too old."""
    value = info.get("LastModified") or info.get("last_modified") or info.get("updated") or info.get("mtime") or info.get("created")
    if isinstance(value, int | float):
        return dt.datetime.fromtimestamp(value, dt.UTC)
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value)
    return value.astimezone(dt.UTC) if isinstance(value, dt.datetime) else dt.datetime.now(dt.UTC)
