"""Duplicates among the images of a listing, found by ID."""

from collections.abc import Sequence

import numpy as np
import xxhash

from pipeline.errors import UserError
from pipeline.inputs.item import Item


class Seen:
    """The IDs seen so far, each with a second hash of its URI: 16 bytes an image.

    They are kept as sorted arrays. An array at least half as long as the one before it is merged with that one, so there are few:
    among millions, an image is looked up, and moved, a dozen times.
    """

    def __init__(self) -> None:
        self.arrays: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, ids: np.ndarray, items: Sequence[Item]) -> np.ndarray:
        """Add images, and return which of them are new, as booleans. Raises UserError where two different URIs share an ID."""
        uris = np.fromiter((xxhash.xxh3_64_intdigest(item.uri.encode()) for item in items), np.uint64, len(items))
        order = np.argsort(ids, kind="stable")
        ids, uris = ids[order], uris[order]
        duplicate = np.append(False, ids[1:] == ids[:-1])
        collision = duplicate & np.append(False, uris[1:] != uris[:-1])
        for seen_ids, seen_uris in self.arrays:
            found, indices = lookup(ids, seen_ids)
            duplicate |= found
            collision |= found & (seen_uris[indices] != uris)
        if collision.any():
            i = int(np.flatnonzero(collision)[0])
            uri = items[order[i]].uri
            raise UserError(f"{uri} has the same image_id as another image ({ids[i]}): annotate it in a run of its own, under another URI")
        self._append(ids[~duplicate], uris[~duplicate])
        new = np.empty(len(order), bool)
        new[order] = ~duplicate
        return new

    def _append(self, ids: np.ndarray, uris: np.ndarray) -> None:
        if len(ids):
            self.arrays.append((ids, uris))
        while len(self.arrays) > 1 and 2 * len(self.arrays[-1][0]) >= len(self.arrays[-2][0]):
            ids, uris = (np.concatenate(pair) for pair in zip(*self.arrays[-2:], strict=True))
            order = np.argsort(ids, kind="stable")  # fast for two sorted arrays
            self.arrays[-2:] = [(ids[order], uris[order])]


def lookup(ids: np.ndarray, sorted_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which IDs are in a sorted array, as booleans, and their indices in it (any index for those that are not)."""
    if not len(sorted_ids):
        return np.zeros(len(ids), bool), np.zeros(len(ids), int)
    indices = np.minimum(np.searchsorted(sorted_ids, ids), len(sorted_ids) - 1)
    return sorted_ids[indices] == ids, indices
