"""Tables of text: one column of CSV, TSV or JSON Lines, or one value a line. Read as text, line by line, whatever the size.

Python's own csv and json read them. Arrow guesses types (`0001` becomes 1), and reads blocks: a quoted line break at the end of a block
is taken for the end of a row.
"""

import csv
import json
from collections.abc import Iterator
from io import BufferedReader, TextIOWrapper
from itertools import islice, repeat
from typing import IO, Any

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.inputs.sniff import HEAD, what_it_is
from ugrie.text import did_you_mean

MAX_LINE = 64 * 2**20  # characters of a line, and of a value in quotes: what is held in memory
BUFFER = 2**18  # bytes
SHOWN = 20  # columns that a message names
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd"}
DELIMITERS = {"CSV": ",", "TSV": "\t"}
RAGGED = "put values that hold a delimiter or a line break in quotes"
JSON_LINES = "one JSON object a line is read"
CSV_ERRORS = {  # of Python's csv, in plain words
    "unexpected end of data": "a value in quotes never ends",
    "field larger than field limit": f"a value of more than {MAX_LINE >> 20} million characters: does a quote never end?",
    "expected after": "text follows a closing quote: double the quotes within a value",
}

csv.field_size_limit(MAX_LINE)


def text_values(file: IO[bytes], kind: str, column: str, name: str) -> Iterator[str | None]:
    """Return the values of a column of a table of `kind` (as in `kinds.TABLES`), None where a row has none.

    Compression is recognised by content. Raises UserError with the line for a table that is broken or not in UTF-8, and if it has no
    column `column`. Only this column need be in UTF-8.
    """
    lines = _Lines(file, name, newline="\n" if kind == "JSON Lines" else "")  # JSON may have \r between its tokens
    if kind == "text":
        yield from (_utf8(value, "", name, lines.number) for line in lines if (value := line.strip()))
    elif kind == "JSON Lines":
        yield from _json_values(lines, column, name)
    else:
        yield from _csv_values(lines, DELIMITERS[kind], column, name)


class _Lines:
    """The lines of a text with their ends, and in `number` the number of the line read last."""

    def __init__(self, file: IO[bytes], name: str, newline: str):
        self._name = name
        self.number = 0
        stream = _uncompressed(file)
        if (found := what_it_is(stream.peek(HEAD)[:HEAD])) is not None:
            raise UserError(f"{name} is {found}")
        self._text = TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline)

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(MAX_LINE + 1):
            self.number += 1
            if len(line) > MAX_LINE:
                raise UserError(f"{self._name} has more than {MAX_LINE >> 20} million characters in line {self.number}: is it a table?")
            yield line


def _uncompressed(file: IO[bytes]) -> BufferedReader:
    codec = MAGIC.get(file.read(2))
    file.seek(0)
    return BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), codec) if codec else file, BUFFER)  # type: ignore[arg-type]


def _csv_values(lines: _Lines, delimiter: str, column: str, name: str) -> Iterator[str]:
    rows, start = csv.reader(lines, delimiter=delimiter, strict=True), 1
    try:
        header = next(filter(None, rows), None)  # empty lines are not rows
        if header is None:
            raise UserError(f"{name} is empty")
        check_column(column, header, name)
        index, width = header.index(column), len(header)
        start = lines.number + 1
        for row in rows:
            if len(row) == width:
                value = row[index]
                yield value if value.isascii() else _utf8(value, column, name, start)
            elif row:
                raise UserError(f"{name}, line {start}: {len(row)} fields, but the header has {width}: {RAGGED}")
            start = lines.number + 1
    except csv.Error as error:
        message = next((known for part, known in CSV_ERRORS.items() if part in str(error)), str(error))
        raise UserError(f"{name}, line {start}: {message}") from None


def _json_values(lines: _Lines, column: str, name: str) -> Iterator[str | None]:
    decode = json.JSONDecoder(parse_int=str, parse_float=str).decode  # numbers stay as they are written
    missing, keys = 0, dict[str, None]()  # rows before the first that has the column, and their keys
    for line in lines:
        if line.isspace():
            continue
        try:
            row = decode(line)
        except (ValueError, RecursionError) as error:
            message = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise UserError(f"{name}, line {lines.number}: {message}; {JSON_LINES}") from None
        if not isinstance(row, dict):
            raise UserError(f"{name}, line {lines.number}: {_json_kind(row)}; {JSON_LINES}")
        if missing >= 0:
            if column not in row:
                missing += 1
                keys |= dict.fromkeys(islice(row, SHOWN)) if len(keys) < SHOWN else {}
                continue
            yield from repeat(None, missing)
            missing = -1
        value = row.get(column)
        if value is None or (isinstance(value, str) and value.isascii()):
            yield value
        elif isinstance(value, str):
            yield _utf8(value, column, name, lines.number)
        else:
            raise UserError(f"{name}, line {lines.number}: column '{column}' holds {_json_kind(value)}, no URI: name another with --column")
    if missing > 0:
        check_column(column, list(keys), name)


def _json_kind(value: Any) -> str:
    kinds = {dict: "an object", list: "an array", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _utf8(value: str, column: str, name: str, line: int) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        place = f"column '{column}'" if column else "it"
        raise UserError(f"{name}, line {line}: {place} is not in UTF-8: save the file as UTF-8") from None
    return value


def check_column(column: str, names: list[str], name: str) -> None:
    """Raise UserError where a table's columns, its `names`, don't have `column` once."""
    if column not in names:
        shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
        other = next((mark for mark in ";\t|" if len(names) == 1 and mark in names[0]), None)
        divided = f" (its fields are divided by {other!r}, not by ',')" if other else ""
        raise UserError(f"{name} has no column '{column}'{did_you_mean(column, names)}; it has {shown}{divided}: name one with --column")
    if names.count(column) > 1:
        raise UserError(f"{name} has more than one column '{column}': rename one, or name another with --column")
