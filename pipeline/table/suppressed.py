"""Images that are not to be annotated (`--suppress`), or to be erased (`ugrie clean --erase`): a list of URIs, IDs and content hashes.

A list is held as numbers, not as text: 16 bytes of a hash for a URI or a content hash, 8 bytes for an image's ID. A run keeps its lists in
its work folder, where `ugrie clean --erase` adds one to each run that is not committed yet:

    OUTPUT/_work/<run_id>/suppressed/<name>.npz

The record of a run states the digest and the size of each list, never what is in it.
"""

import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from pipeline.errors import UserError
from pipeline.storage.files import open_file
from pipeline.storage.filesystem import Options, connect
from pipeline.storage.spelling import canonical
from pipeline.storage.uris import public_message, without_secrets
from pipeline.table.output_folder import OutputFolder, work_folder
from ugrie.text import one_line

COLUMNS = ("image_id", "uri", "content_hash")  # of the table, by which a list names images
FORMS = "a URI (s3://bucket/a.jpg, file:///home/ada/a.jpg), an image_id, or a content_hash of 64 hexadecimal digits"
HASH = re.compile(r"[0-9A-Fa-f]{64}")
ID = re.compile(r"-?\d{1,19}")
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S|(?i:file|local):/")
MAX_LINE = 2**18  # bytes
READ_AHEAD = 2**20
SHOWN = 80  # characters of a line that a message quotes
FOLDER = "suppressed"  # in a run's work folder


class SuppressList(BaseModel):
    """A list as a record states it: the SHA-256 of its file, and how many images it names in which way."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    uris: int = 0
    image_ids: int = 0
    content_hashes: int = 0

    @property
    def entries(self) -> int:
        return self.uris + self.image_ids + self.content_hashes


def _nothing() -> np.ndarray:
    return np.empty((2, 0), np.int64)


@dataclass(frozen=True, eq=False)
class Suppressed:
    """Images named by `image_ids` (int64, sorted) and by hashes of their URIs and contents: int64 [2, n], sorted by both halves."""

    image_ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    uris: np.ndarray = field(default_factory=_nothing)
    content_hashes: np.ndarray = field(default_factory=_nothing)

    @property
    def columns(self) -> list[str]:
        """The columns of the table that tell which of its rows are named."""
        return [name for name, count in self.counts.items() if count]

    @property
    def counts(self) -> dict[str, int]:
        """The number of entries by the column that they are values of."""
        return {"image_id": len(self.image_ids), "uri": self.uris.shape[1], "content_hash": self.content_hashes.shape[1]}

    def __bool__(self) -> bool:
        return bool(self.columns)

    def images(self, image_ids: np.ndarray, uris: Sequence[str]) -> np.ndarray:
        """Return which images are named by their IDs or URIs, as booleans."""
        named = _find_ids(image_ids, self.image_ids) >= 0
        if self.counts["uri"]:
            named |= _find(_hash_uris(uris), self.uris) >= 0
        return named

    def contents(self, content_hashes: Sequence[str]) -> np.ndarray:
        """Return which content hashes are named, as booleans."""
        return _find(_hash_contents(content_hashes), self.content_hashes) >= 0

    def rows(self, rows: pa.Table) -> np.ndarray:
        """Return which rows of the table are named, as booleans. Only those of `columns` that are there are looked at."""
        named = np.zeros(len(rows), bool)
        for indices in self.find(rows).values():
            named |= indices >= 0
        return named

    def find(self, rows: pa.Table) -> dict[str, np.ndarray]:
        """Return for each of `columns` that is there the index of the entry that names each row: -1 for none."""
        found = {}
        for name in set(self.columns) & set(rows.column_names):
            if name == "image_id":
                found[name] = _find_ids(rows[name].to_numpy(), self.image_ids)
            elif name == "uri":
                found[name] = _find(_hash_uris(rows[name].to_pylist()), self.uris)
            else:
                found[name] = np.full(len(rows), -1)
                known = [content_hash for content_hash in rows[name].to_pylist() if content_hash is not None]
                found[name][pc.is_valid(rows[name]).to_numpy()] = _find(_hash_contents(known), self.content_hashes)
        return found

    def and_also(self, other: "Suppressed") -> "Suppressed":
        """Return the images of both lists."""
        if not self or not other:
            return self or other
        uris, contents = (
            _sorted(np.concatenate([getattr(self, name), getattr(other, name)], axis=1)) for name in ("uris", "content_hashes")
        )
        return Suppressed(np.union1d(self.image_ids, other.image_ids), uris, contents)


NOTHING = Suppressed()


def read_list(uri: str, options: Options) -> tuple[SuppressList, Suppressed]:
    """Read a list of images: a text of one a line, or the columns COLUMNS of a Parquet file, as many of them as it has.

    Raises UserError, which names the line or the row, for what is none of FORMS.
    """
    name = without_secrets(uri)
    try:
        fs, path = connect(uri, options)
        with open_file(fs, path, ahead=READ_AHEAD) as file:
            digest = hashlib.sha256()
            while piece := file.read(READ_AHEAD):
                digest.update(piece)
            file.seek(0)
            is_parquet = file.read(4) == b"PAR1"
            file.seek(0)
            found = _gathered(_parquet_values(file, name) if is_parquet else _lines(file, name))
    except UserError:
        raise
    except Exception as error:  # storage clients raise kinds of their own
        raise UserError(f"{name} can't be read: {public_message(error, options)}; check the path and the credentials") from None
    counts = found.counts
    about = SuppressList(sha256=digest.hexdigest(), uris=counts["uri"], image_ids=counts["image_id"], content_hashes=counts["content_hash"])
    return about, found


def _lines(file: IO[bytes], name: str) -> Iterator[tuple[str, str]]:
    """Yield the values of a text, each with its place. Empty lines are passed over."""
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        place = f"{name}, line {number}"
        try:
            value = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            raise UserError(f"{place}: it is not in UTF-8: save the list as a text in UTF-8, or as Parquet") from None
        if value:
            yield value, place


def _parquet_values(file: IO[bytes], name: str) -> Iterator[tuple[str, str]]:
    """Yield the values of the columns COLUMNS of a Parquet file, each with its place. Empty values are passed over."""
    parquet = pq.ParquetFile(file)
    columns = [column for column in COLUMNS if column in parquet.schema_arrow.names]
    if not columns:
        raise UserError(f"{name} has none of the columns {', '.join(COLUMNS)}: name one of its columns so")
    first = 1
    for batch in parquet.iter_batches(batch_size=2**14, columns=columns):
        for column in columns:
            for row, value in enumerate(batch.column(column).to_pylist(), first):
                if value is not None and value != "":
                    yield str(value), f"{name}, row {row}"
        first += len(batch)


def _gathered(values: Iterable[tuple[str, str]]) -> Suppressed:
    """Return the images that these values name, each given with its place. Raises UserError for a value that is none of FORMS."""
    ids, uris, contents = array("q"), bytearray(), bytearray()
    for value, place in values:
        if HASH.fullmatch(value):
            contents += bytes.fromhex(value[:32])
        elif ID.fullmatch(value) and -(2**63) <= int(value) < 2**63:
            ids.append(int(value))
        elif URI.match(value) and len(value) < MAX_LINE // 2:
            uris += _hash_uri(without_secrets(canonical(value)))
        else:
            raise UserError(f"{place}: '{one_line(value, SHOWN)}' names no image: give {FORMS}")
    return Suppressed(np.unique(np.frombuffer(ids, np.int64)), _sorted(_halves(uris)), _sorted(_halves(contents)))


def save(output: OutputFolder, run_id: str, name: str, about: SuppressList, suppressed: Suppressed) -> None:
    """Add a list to a run's work folder. A name stands for one list: where it is there, nothing is written."""
    buffer = BytesIO()
    np.savez(
        buffer,
        about=np.frombuffer(about.model_dump_json().encode(), np.uint8),
        image_ids=suppressed.image_ids,
        uris=suppressed.uris,
        content_hashes=suppressed.content_hashes,
    )
    output.create(f"{_folder(run_id)}/{name}.npz", buffer.getvalue())


@dataclass(frozen=True, eq=False)
class RunLists:
    """The lists in a run's work folder: their names there, how records state them, and the images of all of them."""

    names: frozenset[str] = frozenset()
    about: tuple[SuppressList, ...] = ()
    suppressed: Suppressed = NOTHING

    def now(self, output: OutputFolder, run_id: str) -> "RunLists":
        """Return the lists that are in the folder now: these and those that were added since."""
        names = {name for name in output.names(_folder(run_id)) if name.endswith(".npz") and not name.startswith(".")}
        about, suppressed = list(self.about), self.suppressed
        for name in sorted(names - self.names):
            with np.load(BytesIO(output.read(f"{_folder(run_id)}/{name}"))) as saved:
                stated = SuppressList.model_validate_json(saved["about"].tobytes())
                suppressed = suppressed.and_also(Suppressed(saved["image_ids"], saved["uris"], saved["content_hashes"]))
            about += [stated] if stated not in about else []
        return RunLists(self.names | names, tuple(about), suppressed)


def _folder(run_id: str) -> str:
    return f"{work_folder(run_id)}/{FOLDER}"


def _hash_uri(uri: str) -> bytes:
    return hashlib.blake2b(uri.encode(), digest_size=16).digest()


def _hash_uris(uris: Iterable[str]) -> np.ndarray:
    return _halves(b"".join(map(_hash_uri, uris)))


def _hash_contents(content_hashes: Iterable[str]) -> np.ndarray:
    return _halves(bytes.fromhex("".join(each[:32] for each in content_hashes)))


def _halves(hashes: bytes | bytearray) -> np.ndarray:
    """Return hashes of 16 bytes each as int64 [2, n]."""
    return np.ascontiguousarray(np.frombuffer(hashes, np.int64).reshape(-1, 2).T)


def _sorted(hashes: np.ndarray) -> np.ndarray:
    """Return hashes sorted by both halves, each once."""
    hashes = hashes[:, np.lexsort(hashes[::-1])]
    first = np.append(True, (hashes[:, 1:] != hashes[:, :-1]).any(0))[: hashes.shape[1]]
    return np.ascontiguousarray(hashes[:, first])


def _find_ids(ids: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """Return the index of each ID among the sorted entries: -1 for those that are not there."""
    if not len(entries):
        return np.full(len(ids), -1)
    indices = np.minimum(np.searchsorted(entries, ids), len(entries) - 1)
    return np.where(entries[indices] == ids, indices, -1)


def _find(hashes: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """Return the index of each hash among the sorted entries: -1 for those that are not there."""
    found = _find_ids(hashes[0], entries[0])
    for i in np.flatnonzero(found >= 0):  # the first entry of this first half
        end = np.searchsorted(entries[0], hashes[0, i], side="right")
        within = np.flatnonzero(entries[1, found[i] : end] == hashes[1, i])
        found[i] = found[i] + within[0] if len(within) else -1
    return found
