"""Inputs that are nearly right: bytes and documents with a few changes, which get further into a reader than random ones."""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from functools import reduce
from operator import getitem
from typing import Any

from hypothesis import strategies as st

EXTREMES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**63, 2**64 - 1]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-(2**63), 2**63, 10**400, 10**4000])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", "a\nb", "\x1b[2J", "\0", "x" * 100_000, "İ", "../x", "/"])
    | st.dates()
    | st.datetimes()
)
NAMES = st.text(st.characters(exclude_characters="/"), max_size=12)  # of files within a folder
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4), max_leaves=8
)


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes], mend: Callable[[bytes], bytes] | None = None) -> bytes:
    """One of the seeds with a few changes of its bytes: flips, extreme numbers, cuts, repeats, and pieces of other seeds.

    `mend` makes checksums right again, in three of four.
    """
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        near = draw(st.booleans())  # headers are at the beginning
        at = draw(st.integers(0, min(len(data), 100) if near else len(data)))
        length = draw(st.integers(1, 64) | st.integers(1, max(1, len(data))))
        match draw(st.sampled_from(["flip", "number", "cut", "remove", "repeat", "splice", "insert", "fill"])):
            case "flip" if at < len(data):
                data[at] ^= draw(st.integers(1, 255))
            case "number":
                size, order = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from(["little", "big"]))
                data[at : at + size] = (draw(st.sampled_from(EXTREMES)) % 256**size).to_bytes(size, order)
            case "cut":
                del data[at:]
            case "remove":
                del data[at : at + length]
            case "repeat":
                data[at:at] = data[at : at + length] * draw(st.integers(1, 20))
            case "splice":
                other = draw(st.sampled_from(seeds))
                begin = draw(st.integers(0, len(other)))
                data[at : at + length] = other[begin : begin + length]
            case "insert":
                data[at:at] = draw(st.binary(max_size=40))
            case "fill":
                data[at : at + length] = bytes([draw(st.sampled_from([0, 0xFF, 0x20, 0x41]))]) * len(data[at : at + length])
    return mend(bytes(data)) if mend and draw(st.integers(0, 3)) else bytes(data)


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a document of dicts and lists."""
    yield path
    inside = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, value in inside:
        yield from places(value, (*path, key))


@st.composite
def changed(draw: st.DrawFn, documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One of the documents with a few values replaced, removed, renamed, repeated or put elsewhere."""
    document = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(0, 4))):
        paths = list(places(document))[1:]
        if not paths:
            break
        *path, key = draw(st.sampled_from(paths))
        around = reduce(getitem, path, document)
        match draw(st.sampled_from(["replace", "remove", "rename", "repeat", "move"])):
            case "replace":
                around[key] = draw(VALUES)
            case "remove":
                del around[key]
            case "rename" if isinstance(around, dict):
                around[draw(st.text(max_size=8) | st.sampled_from([f"{key}s", "a\nb", "x" * 5000]))] = around.pop(key)
            case "repeat" if isinstance(around, list):
                around[key:key] = [around[key]] * draw(st.integers(1, 3))
            case "move":
                other = draw(st.sampled_from(paths))
                around[key] = copy.deepcopy(reduce(getitem, other, document))
    return document


def _inline(value: Any) -> str:
    match value:
        case None:
            return '"none"'
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case float():
            return repr(value)
        case int():
            return f"0x{value:x}" if value >= 0 else str(max(value, -(2**63)))
        case datetime() | date():
            return value.isoformat()
        case dict():
            return "{" + ", ".join(f"{_inline(key)} = {_inline(part)}" for key, part in value.items()) + "}"
        case _:
            return "[" + ", ".join(map(_inline, value)) + "]"


def toml(document: dict[str, Any]) -> bytes:
    """A document as a TOML file: a key a line, and all that is within it inline."""
    return "".join(f"{_inline(key)} = {_inline(value)}\n" for key, value in document.items()).encode(errors="replace")
