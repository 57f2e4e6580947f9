"""Plans a run by the cluster: the same manifest as `write_manifest` makes, whatever the number of images.

    OUTPUT/_work/<run_id>/listing-<attempt>/   parts of the listing, and which of their images are new; removed once the manifest is written

Tasks list the input in parts (`pieces.py`, `listing.py`), and a job of Ray Data finds those of its images that are new (`shuffle.py`). The
driver then knows how many each part has, and so which images each file of the manifest holds; tasks write them (`manifest_files.py`). It
holds the paths of files, and counts: nothing for each image.
"""

import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import pyarrow as pa

from pipeline.config import AnnotateConfig
from pipeline.inputs.manifest import Manifest, default_block_rows
from pipeline.planning.collisions import IdFinder, settle
from pipeline.planning.decide import IdReader, Outcome
from pipeline.planning.listing import list_parts
from pipeline.planning.manifest_files import ManifestWriter, write_files
from pipeline.planning.new_images import NewImages, NewImagesWriter
from pipeline.planning.part import Part, PartWriter
from pipeline.planning.pieces import Division, PieceLister
from pipeline.planning.shuffle import FILES_AT_ONCE, Shuffle, partitions_of
from pipeline.planning.tasks import Tasks, foreseen, is_loss
from pipeline.table.image_ids import PastFiles
from pipeline.table.output_folder import OutputFolder, work_folder
from pipeline.table.suppressed import Suppressed

logger = logging.getLogger(__name__)
ATTEMPTS = 3  # at the shuffle: a node that is lost takes with it what others are to read


class ClusterPlanner:
    """Plans a run by the cluster. Ray is started. `list` comes first, then `write`."""

    def __init__(self, config: AnnotateConfig, output: OutputFolder, division: Division, suppressed: Suppressed):
        self.config, self.output, self.division, self.suppressed = config, output, division, suppressed
        self.folder = f"{work_folder(config.run_id)}/listing-{uuid.uuid4().hex[:8]}"
        self.parts: list[Part] = []

    def list(self) -> None:
        """List the input. Raises UserError, StorageError."""
        config, division = self.config, self.division
        writer = PartWriter(self.output, self.folder, self.suppressed)
        lister = PieceLister(config.input, division.storage, config.storage_options, config.column, writer, division.skip)
        with Tasks(lister) as tasks:
            self.parts = list_parts(division, tasks)
        listed = sum(part.rows for part in self.parts)
        logger.info("planning by the cluster: %d rows are listed, in %d parts", listed, len(self.parts))

    def write(self, past: PastFiles, known: int, folder: str, block_rows: int | None) -> Manifest:
        """Write the manifest to a folder within the output, without the images that are known by files with so many rows.

        Raises UserError, StorageError.
        """
        new = self._new(past, known)
        size = block_rows or default_block_rows(new.rows)
        with Tasks(ManifestWriter(self.output, folder, size)) as tasks:
            write_files(tasks, self.parts, new, size)
        others, retried = new.counts, new.counts[Outcome.RETRIED]
        listed = new.rows + others[Outcome.KNOWN] + others[Outcome.SUPPRESSED]
        return Manifest(folder, new.rows, size, listed, others[Outcome.KNOWN], retried, suppressed=others[Outcome.SUPPRESSED])

    def remove(self) -> None:
        """Remove what only planning needed."""
        with suppress(FileNotFoundError):
            self.output.remove(self.folder, recursive=True)

    def _new(self, past: PastFiles, known: int) -> NewImages:
        reader = IdReader(self.output, past)
        files = [*((number, part.path) for number, part in enumerate(self.parts)), *((-1, path) for path in past.files)]
        rows = sum(part.rows for part in self.parts) + known
        shuffle = Shuffle(reader, NewImagesWriter(self.output, self.folder), len(self.parts), partitions_of(rows))
        for left in reversed(range(ATTEMPTS)):
            try:
                new = NewImages.of(len(self.parts), shuffle(files))
                break
            except Exception as error:
                cause = foreseen(error)
                if cause is not None:
                    raise cause from None
                if not left or not is_loss(error):
                    raise
                logger.warning("what is new is found once more, since the cluster lost a part of it: %s", type(error).__name__)
        settle(self.output, self.parts, new, self.suppressed, lambda ids: self._with_ids(reader, files, ids))
        return new

    def _with_ids(self, reader: IdReader, files: Sequence[tuple[int, str]], image_ids: np.ndarray) -> Iterator[pa.Table]:
        with Tasks(IdFinder(reader)) as tasks:
            for number in range(0, len(files), FILES_AT_ONCE):
                if len(tasks) >= tasks.most:
                    yield tasks.next()[1]
                some = files[number : number + FILES_AT_ONCE]
                tasks.submit(number, pa.table({"part": [part for part, _ in some], "path": [path for _, path in some]}), image_ids)
            while len(tasks):
                yield tasks.next()[1]
