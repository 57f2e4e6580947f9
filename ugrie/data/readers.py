"""Readers of data sets: an .npz of embeddings, Parquet, a table of labels with a folder of images, or folders named by class.

`read_table` picks the reader by the files at the path. It checks that every image file exists, and opens none.
"""

import csv
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ugrie.data.format import Derived, Format
from ugrie.data.table import DataError, Table, as_embeddings, column, with_files
from ugrie.text import did_you_mean

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def read_table(path: Path, form: Format) -> Table:
    """Read the data set at a path, with the format's derived columns and only its splits. Raises DataError."""
    table = _read(path, form)
    columns = dict(table.columns)
    for name, derived in form.derived.items():
        if name == derived.column and name not in columns:
            continue  # a copy without this column, as the recipe's `folders` say
        columns[name] = _derive(columns, name, derived, table.source)
    table = replace(table, columns=columns)
    if form.splits:
        splits = table.column("split").astype(str)
        for split in form.splits:
            if split not in splits:
                known = sorted(set(splits))
                raise DataError(f"{table.source} has no split '{split}'{did_you_mean(split, known)}; it has {', '.join(known)}")
        table = table.take(np.flatnonzero(np.isin(splits, form.splits)))
    if not len(table):
        raise DataError(f"{table.source} holds no images")
    return table


def _read(path: Path, form: Format) -> Table:
    if not path.exists():
        neighbours = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"there is no data set at {path}{did_you_mean(path.name, neighbours)}")
    if path.suffix == ".npz":
        return _npz(path)
    if path.suffix == ".parquet":
        return _parquet(path, [path], form)
    if not path.is_dir():
        raise DataError(f"{path} is not a data set: give a folder, an .npz file or a .parquet file")
    if "folders" in form.model_fields_set:
        return _folders(path / form.images if "images" in form.model_fields_set else path, form.folders)
    if "labels" in form.model_fields_set or (path / str(form.labels)).is_file():
        return _tables(path, form)
    if parquet := _visible(path, "**/*.parquet"):
        return _parquet(path, parquet, form)
    if any(_is_image(file) for file in path.glob("*/*") if file.parent.name != form.images):
        return _folders(path, ("class",))
    raise DataError(
        f"{path} is not a data set: it has no {form.labels}, no .parquet files and no folders of images named by class; "
        "name another table as `labels`, or other levels of folders as `folders`"
    )


def _parquet(path: Path, files: Sequence[Path], form: Format) -> Table:
    from ugrie.data.parquet import read_parquet  # pyarrow is slow to import, and few data sets need it

    return read_parquet(path, files, form)


def _npz(path: Path) -> Table:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} can't be read: {error}") from None
    embeddings = as_embeddings(column(columns, "embedding", path), path)
    del columns["embedding"]
    for name, values in columns.items():
        if values.shape[:1] != (len(embeddings),):
            raise DataError(f"{path}: '{name}' has the shape {list(values.shape)}, but there are {len(embeddings)} embeddings")
    return Table(path, columns, embeddings, np.char.add("row ", np.arange(len(embeddings)).astype(str)))


def _tables(path: Path, form: Format) -> Table:
    """Read the table of labels, or one table for each split."""
    files = {"": form.labels} if isinstance(form.labels, str) else form.labels
    parts = []
    for split, name in files.items():
        part = _columns(path / name, form)
        if split:
            part["split"] = [split] * len(next(iter(part.values())))
        parts.append(part)
    source = path / next(iter(files.values())) if len(files) == 1 else path
    for part in parts[1:]:
        if set(part) != set(parts[0]):
            raise DataError(f"{path}: the tables of {', '.join(files)} have different columns")
    columns = {name: np.array([value for part in parts for value in part[name]], dtype=str) for name in parts[0]}
    return with_files(source, columns, path / form.images, form.file)


def _columns(file: Path, form: Format) -> dict[str, list[str]]:
    """Return the columns of a delimited file, its cells stripped of white space, or of a JSON list of rows."""
    if not file.is_file():
        raise DataError(f"there are no labels at {file}: name the table as `labels`")
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            if file.suffix == ".json":
                rows = [(number, _cells(row, number)) for number, row in enumerate(json.load(lines), 1)]
            else:
                reader = csv.reader(lines, delimiter=form.delimiter, quotechar=form.quote, skipinitialspace=True)
                rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (csv.Error, ValueError, TypeError) as error:
        raise DataError(f"{file} can't be read as a table: {error}") from None
    if form.header and not rows:
        raise DataError(f"{file} is empty")
    names = list(form.columns) or rows[0][1]
    rows = rows[form.header :]
    unit = "row" if file.suffix == ".json" else "line"
    fewer = [name for name in names if name not in form.optional]
    either = f" ({len(fewer)} without {', '.join(form.optional)})" if len(fewer) < len(names) else ""
    if rows and len(rows[0][1]) == len(fewer):
        names, either = fewer, ""
    for line, row in rows:
        if len(row) != len(names):
            raise DataError(
                f"{file}, {unit} {line} has {len(row)} cells for {len(names)} columns: {', '.join(names)}{either}; all must be alike"
            )
    return {name: [row[i] for _, row in rows] for i, name in enumerate(names)}


def _cells(row: object, number: int) -> list[str]:
    """Return the cells of a row of a JSON table as text. Raises TypeError if the row is not a list."""
    if not isinstance(row, list):
        raise TypeError(f"row {number} is not a list of cells")
    return [str(cell) for cell in row]


def _folders(path: Path, levels: Sequence[str]) -> Table:
    """Read images in nested folders. `levels` names the columns that hold the folders' names. Other files are ignored."""
    files = [file for file in _visible(path, "/".join(["*"] * (len(levels) + 1))) if _is_image(file)]
    if not files:
        where = "/".join([str(path), *(f"<{level}>" for level in levels)])
        raise DataError(f'there are no images in {where}; state the levels of folders, such as folders = ["split", "class"]')
    parts = [file.relative_to(path).parts for file in files]
    names = np.array([file.relative_to(path).as_posix() for file in files])
    columns = {level: np.array([part[i] for part in parts]) for i, level in enumerate(levels)}
    return Table(path, {"image": names, **columns}, files, names)


def _derive(columns: Mapping[str, np.ndarray], name: str, derived: Derived, source: Path) -> np.ndarray:
    found = [re.search(derived.pattern, value) for value in column(columns, derived.column, source).astype(str)]
    if None in found:
        value = columns[derived.column][found.index(None)]
        raise DataError(f"{source}: the pattern of '{name}', {derived.pattern}, finds nothing in '{value}'")
    return np.array([match.group(1) or "" for match in found if match], dtype=str)


def _visible(path: Path, pattern: str) -> list[Path]:
    """List the files of a folder that match a pattern, sorted by path, without hidden ones."""
    return sorted(f for f in path.glob(pattern) if not any(part.startswith(".") for part in f.relative_to(path).parts))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
