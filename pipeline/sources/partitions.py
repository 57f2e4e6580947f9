"""Hive partitions: columns whose values are in the names of folders, such as `dt=2024-01-01/country=de/part-0.parquet`.

Types are those that pyarrow's datasets infer: a column is int32 where all files have whole numbers, and else text, dates too.
"""

import re
from collections.abc import Sequence
from urllib.parse import unquote

import pyarrow as pa

from pipeline.storage.listing import File

NULL = "__HIVE_DEFAULT_PARTITION__"
_FOLDERS = re.compile(r"(?:^|/)((?:[^/=]+=[^/]*/)+)[^/]*\Z")  # those directly above the file
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_INT32 = range(-(2**31), 2**31)


def texts_of(path: str) -> dict[str, str | None]:
    """Return the partition columns of a file, by their names: None where the value is null."""
    match = _FOLDERS.search(path)
    pairs = (folder.partition("=") for folder in match[1].split("/")[:-1]) if match else ()
    return {unquote(name): None if value == NULL else unquote(value) for name, _, value in pairs}


def values_of(files: Sequence[File]) -> list[dict[str, pa.Scalar]]:
    """Return the partition columns of each file, of one type in all of them."""
    found = [texts_of(file.name) for file in files]
    kinds = {name: pa.int32() for texts in found for name in texts}
    for texts in found:
        for name, text in texts.items():
            if text is not None and not (_WHOLE.fullmatch(text) and int(text) in _INT32):
                kinds[name] = pa.string()
    kinds |= {name: pa.string() for name in kinds if not any(texts.get(name) for texts in found)}
    return [{name: pa.scalar(_value(text, kinds[name]), kinds[name]) for name, text in texts.items()} for texts in found]


def _value(text: str | None, kind: pa.DataType) -> int | str | None:
    return int(text) if text is not None and pa.types.is_int32(kind) else text
