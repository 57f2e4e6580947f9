"""Image folders of Hugging Face datasets: images, and beside them `metadata.csv`, `.jsonl` or `.parquet` with a row for each.

A row names its image in the column `file_name`, relative to the metadata's own folder. Where columns are kept, the rows are the input.
"""

import posixpath
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from pipeline.inputs.item import Item
from pipeline.inputs.kinds import suffix_of
from pipeline.storage.listing import File

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
COLUMN = "file_name"
UNNAMED = "an image that no metadata names"


class ImageFolder:
    """The metadata files of a listing, and which of its images their rows name: 16 bytes an image."""

    def __init__(self) -> None:
        self.metadata: list[File] = []
        self._images = array("q")

    def watch(self, files: Iterable[File]) -> Iterator[File]:
        """Return the files as they are, and note those with metadata."""
        for file in files:
            if posixpath.basename(file.name) in NAMES:
                self.metadata.append(file)
            yield file

    def note(self, images: Iterable[Item]) -> None:
        """Note all images of the listing."""
        self._images.extend(hash(item.uri) for item in images)

    def rows(self, rows: Iterable[Item], left_out: Counter[str]) -> Iterator[Item]:
        """Return the rows of the metadata. Count in `left_out` the images that none of them names, and the metadata no more."""
        left_out.subtract(suffix_of(file.name) for file in self.metadata)
        named = array("q")
        for item in rows:
            named.append(hash(item.uri))
            yield item
        left_out[UNNAMED] += len(np.setdiff1d(np.frombuffer(self._images, np.int64), np.frombuffer(named, np.int64)))
        for reason in [reason for reason, count in left_out.items() if count <= 0]:
            del left_out[reason]
