"""What a listing leaves out, and why: hidden files, and markers that other programs write beside images.

Only names that are known are left out. Cameras and keys may begin with an underscore (`_DSC0001.JPG`), so that alone says nothing.
"""

import re
from typing import NamedTuple

# The reasons, as logs, records and plans count them.
MARKER = "hidden or a marker"
OUTPUT = "the output's own"
LOOP = "a link to a folder around it"
SPECIAL = "no regular file"  # a device, a pipe
NOT_BY_NAME = "no image by its name"
DEAD_LINK = "a link to no file"


class LeftOut(NamedTuple):
    """A file or a folder that is not listed, and why."""

    path: str
    reason: str


# Parts of tables, and marks of jobs that began or ended: Hadoop and Spark, Databricks, Delta Lake.
_TABLES = r"_(?:SUCCESS|metadata|common_metadata|temporary|delta_log|delta_index|change_data|spark_metadata|symlink_format_manifest)"
_DATABRICKS = r"_(?:started|committed)_(?:vacuum)?\d+"
# What file managers leave behind. `__MACOSX/` holds the AppleDouble files (`._name`) of a .zip.
_DESKTOPS = r"__MACOSX|[Tt]humbs\.db|[Dd]esktop\.ini"
_HIDDEN = r"\.(?!\.?(?:/|$))[^/]*"  # .name: .DS_Store, ._name, .git, Hadoop's .part-0.crc; not the path's own . and ..
_LEFT_OUT = re.compile(rf"/(?:{_HIDDEN}|(?:{_TABLES}|{_DATABRICKS}|{_DESKTOPS}|[^/]+\.crc)(?=/|$))")


def marker(path: str, start: int = 0) -> str | None:
    """Return the path up to the first marker or hidden name in it, from `start` on, or None if it has none."""
    match = _LEFT_OUT.search(path, start)
    return path[: match.end()] if match else None
