"""Tables of text: columns of CSV, TSV or JSON Lines, or one value a line. Read as text, line by line, whatever the size.

Python's own csv and json read them. Arrow guesses types (`0001` becomes 1), and reads blocks: a quoted line break at the end of a block
is taken for the end of a row.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from io import BufferedReader, TextIOWrapper
from itertools import islice, repeat
from typing import IO, Any

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.inputs.sniff import HEAD, what_it_is
from pipeline.table.kept_columns import Keep
from ugrie.text import did_you_mean

MAX_LINE = 64 * 2**20  # characters of a line, and of a value in quotes: what is held in memory
BUFFER = 2**18  # bytes
SHOWN = 20  # columns that a message names
MAX_HELD = 2**20  # rows of JSON Lines before the first that has the column, where others are to be kept
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
    return (value for value, *_ in text_rows(file, kind, column, name, Keep()))


def text_rows(
    file: IO[bytes], kind: str, column: str, name: str, keep: Keep, others: Sequence[str] | None = None
) -> Iterator[Sequence[str | None]]:
    """Return for each row the value of a column, as `text_values` does, and those of the columns to keep, or of `others` of them.

    Raises UserError.
    """
    others = list(keep.columns.values()) if others is None else others
    lines = _Lines(file, name, newline="\n" if kind == "JSON Lines" else "")  # JSON may have \r between its tokens
    if kind == "text":
        if others:
            raise UserError(f"keep_columns: {name} holds one URI a line and no other column: save it as CSV with a header")
        yield from ([_utf8(value, "", name, lines.number)] for line in lines if (value := line.strip()))
    elif kind == "JSON Lines":
        yield from _json_rows(lines, column, name, keep, others)
    else:
        yield from _csv_rows(lines, DELIMITERS[kind], column, name, others)


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


def _csv_rows(lines: _Lines, delimiter: str, column: str, name: str, others: Sequence[str]) -> Iterator[Sequence[str | None]]:
    rows, start = csv.reader(lines, delimiter=delimiter, strict=True), 1
    try:
        header = next(filter(None, rows), None)  # empty lines are not rows
        if header is None:
            raise UserError(f"{name} is empty")
        check_column(column, header, name)
        for old in others:
            check_column(old, header, name, "--keep-columns")
        wanted, width = [(header.index(each), each) for each in (column, *others)], len(header)
        start = lines.number + 1
        for row in rows:
            if len(row) == width:
                yield [value if (value := row[i]).isascii() else _utf8(value, each, name, start) for i, each in wanted]
            elif row:
                raise UserError(f"{name}, line {start}: {len(row)} fields, but the header has {width}: {RAGGED}")
            start = lines.number + 1
    except csv.Error as error:
        message = next((known for part, known in CSV_ERRORS.items() if part in str(error)), str(error))
        raise UserError(f"{name}, line {start}: {message}") from None


def _json_rows(lines: _Lines, column: str, name: str, keep: Keep, others: Sequence[str]) -> Iterator[Sequence[str | None]]:
    missing, keys = 0, dict[str, None]()  # rows before the first that has the column, and their keys
    held: list[Sequence[str | None]] = []  # those rows, where columns are kept
    for line in lines:
        if line.isspace():
            continue
        place = f"{name}, line {lines.number}"
        row = json_object(line, f"{place}: ", JSON_LINES)
        kept = kept_texts(row, keep, others, f"{place}: ")
        if not all(value is None or value.isascii() for value in kept):
            _utf8(line, "", name, lines.number)
        if missing >= 0:
            if column not in row:
                missing += 1
                keys |= dict.fromkeys(islice(row, SHOWN)) if len(keys) < SHOWN else {}
                held += [[None, *kept]] if others else []
                if len(held) > MAX_HELD:
                    check_column(column, list(keys), name)
                continue
            yield from held or repeat([None], missing)
            missing, held = -1, []
        value = row.get(column)
        if value is not None and not isinstance(value, str):
            raise UserError(f"{place}: column '{column}' holds {_json_kind(value)}, no URI: name another with --column")
        yield [value if value is None or value.isascii() else _utf8(value, column, name, lines.number), *kept]
    if missing > 0:
        check_column(column, list(keys), name)


class _Number(str):
    """A number of JSON as it is written."""


def json_object(text: str, place: str, read: str) -> dict[str, Any]:
    """Return a JSON object, whose numbers stay as they are written. Raises UserError, which begins with `place` and ends with `read`."""
    try:
        row = _decode(text)
    except (ValueError, RecursionError) as error:
        message = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise UserError(f"{place}{message}; {read}") from None
    if not isinstance(row, dict):
        raise UserError(f"{place}{_json_kind(row)}; {read}")
    return row


def kept_texts(row: dict[str, Any], keep: Keep, columns: Sequence[str], place: str) -> list[str | None]:
    """Return columns to keep of a `json_object`: text as it is, null as None, anything else as JSON. Raises UserError."""
    if not columns:
        return []
    keep.note(row)
    try:
        return [_text(row.get(old)) for old in columns]
    except RecursionError:
        raise UserError(f"{place}a column to keep holds arrays within arrays, too many to read") from None


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = str(value) if isinstance(value, str) else _as_json(value)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates, such as of an emoji that was cut, can't be written as text
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _as_json(value: Any) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_as_json, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key, ensure_ascii=False)}: {_as_json(each)}' for key, each in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


_decode = json.JSONDecoder(parse_int=_Number, parse_float=_Number).decode


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


def check_column(column: str, names: list[str], name: str, flag: str = "--column") -> None:
    """Raise UserError where a table's columns, its `names`, don't have `column` once; `flag` is the setting that names it."""
    if column not in names:
        shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
        other = next((mark for mark in ";\t|" if len(names) == 1 and mark in names[0]), None)
        divided = f" (its fields are divided by {other!r}, not by ',')" if other else ""
        raise UserError(f"{name} has no column '{column}'{did_you_mean(column, names)}; it has {shown}{divided}: name one with {flag}")
    if names.count(column) > 1:
        raise UserError(f"{name} has more than one column '{column}': rename one, or name another with {flag}")
