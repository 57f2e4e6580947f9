"""Decides on images that share their ID with another image of the listing: each gets a second ID, as in `pipeline.inputs.seen`.

They are few: two images share one in 1 of 40 runs of a billion images. Their second IDs are looked up among all others.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.inputs.seen import hash_image, warn_of_second_id
from pipeline.planning.decide import ANNOTATED, FAILED, NAMED, ROW_BITS, IdReader, Outcome
from pipeline.planning.new_images import NewImages
from pipeline.planning.part import Part
from pipeline.table.output_folder import OutputFolder
from pipeline.table.suppressed import Suppressed


class _Image(NamedTuple):
    place: int
    uri: str
    version: str


@dataclass(frozen=True)
class IdFinder:
    """Finds the images with some IDs, sorted, among those that files name (as for `IdReader`): NAMED."""

    reader: IdReader

    def __call__(self, files: pa.Table, image_ids: np.ndarray) -> pa.Table:
        wanted = pa.array(image_ids)
        found = [named.filter(pc.is_in(named["image_id"], wanted)) for named in self.reader(files)]
        return pa.concat_tables([NAMED.empty_table(), *found])


def settle(
    output: OutputFolder, parts: list[Part], new: NewImages, suppressed: Suppressed, find: Callable[[np.ndarray], Iterable[pa.Table]]
) -> None:
    """Decide on the images of `new.collided`, and add them to the new images; `find` returns what an `IdFinder` finds in all files.

    Of images that are listed twice the first counts. Images whose second IDs are taken, too, get a third, and so on.
    """
    taken: dict[int, int] = {}  # second IDs, each with the rest of its image's hash
    left, salt = _read(output, parts, sorted(new.collided)), 0
    while left:
        salt += 1
        hashed = np.frombuffer(b"".join(hash_image(image.uri, image.version, salt) for image in left), "<i8").reshape(-1, 2)
        others = pa.concat_tables([NAMED.empty_table(), *find(np.unique(hashed[:, 0]))])
        again: list[_Image] = []
        for image, (image_id, rest) in zip(left, hashed.tolist(), strict=True):
            same = others.filter(pc.equal(others["image_id"], image_id))
            listed = same.filter(pc.greater_equal(same["place"], 0)).sort_by("place")
            owner = listed["rest"][0].as_py() if len(listed) else taken.get(image_id)
            if owner is None:
                taken[image_id] = rest
                warn_of_second_id(image.uri, image_id)
                before = set(same["place"].to_pylist())
                named = bool(suppressed.images(np.array([image_id]), [image.uri])[0]) if suppressed else False
                outcome = Outcome.RETRIED if FAILED in before else Outcome.NEW
                outcome = Outcome.KNOWN if ANNOTATED in before else outcome
                new.add(image.place, image_id, Outcome.SUPPRESSED if named else outcome)
            elif owner != rest:
                again.append(image)
        left = again


def _read(output: OutputFolder, parts: list[Part], places: list[int]) -> list[_Image]:
    """Read the images at ascending places."""
    found: list[_Image] = []
    for part in sorted({place >> ROW_BITS for place in places}):
        own = [place for place in places if place >> ROW_BITS == part]
        with output.open(parts[part].path) as file:
            rows = pq.read_table(file, columns=["uri", "version"]).take(pa.array([place & (2**ROW_BITS - 1) for place in own]))
        found += map(_Image, own, rows["uri"].to_pylist(), rows["version"].to_pylist())
    return found
