"""Gives the images and the rows of a listing their IDs, and finds those that it names twice.

An image's ID is the first 8 bytes of the BLAKE2b hash of its URI and version. Where that is the ID of another image listed before, the
hash is salted with 1, 2 and so on until the ID is free, so that no pair of images ends a run. Rows have IDs where columns are kept from
the input (`pipeline.table.kept_columns`): equal rows of one listing have different ones.
"""

import hashlib
import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.inputs.item import Item
from pipeline.table.kept_columns import MAX_ROW_BYTES, hash_row, row_texts
from pipeline.table.schema import ROW_ID

logger = logging.getLogger(__name__)


def hash_image(uri: str, version: str, salt: int = 0) -> bytes:
    """Return the 16-byte BLAKE2b hash of an image's URI and version: the ID, and 8 bytes that tell apart images with the same ID."""
    return hashlib.blake2b(f"{uri}\0{version}".encode(), digest_size=16, salt=salt.to_bytes(8, "little")).digest()


def hash_images(items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
    """Return the images' IDs, and the rest of their hashes: int64. An ID that a table of ours states is kept."""
    hashes = np.frombuffer(b"".join([hash_image(item.uri, item.version) for item in items]), "<i8").reshape(-1, 2)
    if items and items[0].image_id is not None:
        return np.fromiter((item.image_id for item in items), np.int64, len(items)), hashes[:, 1]
    return hashes[:, 0], hashes[:, 1]


class SortedIds:
    """IDs, each with a number, in sorted arrays.

    An array at least half as long as the one before it is merged with that one, so there are few: among millions, an ID is looked up, and
    moved, a dozen times.
    """

    def __init__(self) -> None:
        self.arrays: list[tuple[np.ndarray, np.ndarray]] = []

    def append(self, ids: np.ndarray, numbers: np.ndarray) -> None:
        """Add IDs that are not here yet, sorted."""
        if len(ids):
            self.arrays.append((ids, numbers))
        while len(self.arrays) > 1 and 2 * len(self.arrays[-1][0]) >= len(self.arrays[-2][0]):
            ids, numbers = (np.concatenate(pair) for pair in zip(*self.arrays[-2:], strict=True))
            order = np.argsort(ids, kind="stable")  # fast for two sorted arrays
            self.arrays[-2:] = [(ids[order], numbers[order])]


class SeenRows(SortedIds):
    """The IDs of the rows seen so far, each with how often its row was listed: 16 bytes a row."""

    def add(self, items: Sequence[Item], image_ids: np.ndarray, kept: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Add rows by their images and kept values. Return their IDs, and which of them are new, as booleans.

        A row equal to one before is another row, with an ID of its own. But of rows whose ID an earlier run has given, the first counts.
        Raises UserError where a row's values take too many bytes.
        """
        if ROW_ID in kept.column_names:
            given = kept[ROW_ID].to_numpy()
            return given, self._repeats(given) == 0
        texts = row_texts(image_ids, kept)
        if (longest := max(map(len, texts))) > MAX_ROW_BYTES:
            uri = items[next(i for i, text in enumerate(texts) if len(text) == longest)].uri
            large = f"the row of {uri or 'an empty URI'} has {longest:,} bytes in the columns to keep, more than {MAX_ROW_BYTES:,}"
            raise UserError(f"keep_columns: {large}: keep fewer columns, or a key to join the others by")
        ids = np.frombuffer(b"".join(map(hash_row, texts)), "<i8").copy()
        repeats = self._repeats(ids)
        for i in np.flatnonzero(repeats):
            ids[i] = int.from_bytes(hash_row(texts[i], int(repeats[i])), "little", signed=True)
        return ids, np.ones(len(ids), bool)

    def _repeats(self, ids: np.ndarray) -> np.ndarray:
        """Add IDs. Return how often each was added before."""
        order = np.argsort(ids, kind="stable")
        unique, starts, counts = np.unique(ids[order], return_index=True, return_counts=True)
        before = np.zeros(len(unique), int)
        for seen_ids, seen_counts in self.arrays:
            found, indices = lookup(unique, seen_ids)
            before[found] = seen_counts[indices[found]]
            seen_counts[indices[found]] += counts[found]
        self.append(unique[before == 0], counts[before == 0])
        repeats = np.empty(len(ids), int)
        repeats[order] = np.arange(len(ids)) - np.repeat(starts - before, counts)
        return repeats


class Seen(SortedIds):
    """The IDs of the images seen so far, each with the rest of its image's hash: 16 bytes an image."""

    def add(self, items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
        """Add images. Return their IDs, and which of them are new, as booleans."""
        ids, rests = hash_images(items)
        order = np.argsort(ids, kind="stable")
        sorted_ids, sorted_rests = ids[order], rests[order]
        new = np.append(True, sorted_ids[1:] != sorted_ids[:-1])
        firsts = np.maximum.accumulate(np.where(new, np.arange(len(ids)), 0))
        owners = sorted_rests[firsts]  # of each ID, the rest of the hash of the image that was listed first
        for seen_ids, seen_rests in self.arrays:
            found, indices = lookup(sorted_ids, seen_ids)
            new &= ~found
            owners = np.where(found, seen_rests[indices], owners)
        self.append(sorted_ids[new], sorted_rests[new])
        ids, is_new = ids.copy(), np.empty(len(ids), bool)
        is_new[order] = new
        for i in np.sort(order[owners != sorted_rests]):
            ids[i], is_new[i] = self._add_salted(items[i])
        return ids, is_new

    def _add_salted(self, item: Item) -> tuple[int, bool]:
        """Add an image whose ID another image has. Return the first salted ID that no other has, and whether the image is new."""
        salt = 0
        while True:
            salt += 1
            hashed = np.frombuffer(hash_image(item.uri, item.version, salt), "<i8")
            owner = next((rests[i] for ids, rests in self.arrays for found, (i,) in [lookup(hashed[:1], ids)] if found), None)
            if owner is None:
                warn_of_second_id(item.uri, int(hashed[0]))
                self.append(hashed[:1], hashed[1:])
            if owner in (None, hashed[1]):
                return int(hashed[0]), owner is None


def warn_of_second_id(uri: str, image_id: int) -> None:
    logger.warning("%s has the image_id of another image, and gets %d instead", uri, image_id)


def lookup(ids: np.ndarray, sorted_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which IDs are in a sorted array, as booleans, and their indices in it (any index for those that are not)."""
    if not len(sorted_ids):
        return np.zeros(len(ids), bool), np.zeros(len(ids), int)
    indices = np.minimum(np.searchsorted(sorted_ids, ids), len(sorted_ids) - 1)
    return sorted_ids[indices] == ids, indices
