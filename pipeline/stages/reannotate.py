"""Annotates images again from their stored embeddings: an actor in place of the first two operators."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from pipeline.inputs.manifest import Manifest
from pipeline.sources.embeddings import embeddings_of, read_embedded
from pipeline.stages.annotate import AnnotatorSettings, planned_model
from pipeline.stages.prediction_columns import PredictionColumns
from pipeline.table.output_folder import OutputFolder
from pipeline.table.schema import SUPPRESSED
from pipeline.table.suppressed import NOTHING, Suppressed
from ugrie.model.prediction import Prediction

TEMPLATES = {"cpu": 256, "cuda": 1024}  # filled at once, one for each image; on a CPU by each core


class Reannotator:
    """Operator from a block's number to `Tables.annotated`.

    The model is loaded once, without the weights of an image tower that is not bundled. The actor takes two blocks at once: while one
    uses the device, the other is read and its tables are built.
    """

    def __init__(
        self, settings: AnnotatorSettings, source: OutputFolder, output: OutputFolder, manifest: Manifest, suppressed: Suppressed = NOTHING
    ):
        import torch

        from ugrie.model.model import UGRIE

        self.settings, self.source, self.output, self.manifest, self.suppressed = settings, source, output, manifest, suppressed
        on_cpu = settings.device == "cpu"
        cores = settings.threads or 1 if on_cpu else 1
        self.model = UGRIE.from_pretrained(planned_model(settings), settings.device)
        # A first prediction, before the threads start, builds what they share.
        self.model.predict(torch.zeros(1, self.model.config.tower.embedding_dim), settings.schemes)
        self.templates = TEMPLATES["cpu" if on_cpu else "cuda"]
        # One core for each batch, as in `ugrie.vision.encoder`: the layers are too small to share between cores.
        self.pool = ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,) if on_cpu else (torch.get_num_threads(),))
        self.device = threading.Lock()

    def __call__(self, numbers: pa.Table) -> pa.Table:
        (block,) = numbers.column("block").to_pylist()
        settings, tracker = self.settings, self.settings.tracker
        tracker.begin(block)
        clock = time.perf_counter()
        rows = read_embedded(self.source.fs, self.manifest.read(self.output, block))
        embeddings, count = embeddings_of(rows), len(rows)
        named = self.suppressed.rows(rows)
        wanted = np.flatnonzero(~named)
        tracker.enter(block, "loaded, and not yet annotated")
        read = time.perf_counter() - clock
        with self.device:
            tracker.enter(block, "being annotated")
            clock = time.perf_counter()
            batches = [wanted[start : start + self.templates] for start in range(0, len(wanted), self.templates)]
            found = list(self.pool.map(lambda batch: self._predict(embeddings[batch]), batches))
            annotated = time.perf_counter() - clock
        predictions = PredictionColumns(settings.tables, count)
        for batch, prediction in zip(batches, found, strict=True):
            predictions.fill(batch, prediction, embeddings[batch])
        tracker.enter(block, "annotated, and not yet written")
        columns = predictions.columns(settings.run_id)
        columns |= {name: rows[name] for name in ("image_id", "uri", "content_hash", "width", "height", "bytes")}
        columns |= {"block": pa.repeat(pa.scalar(block, pa.int32()), count), "owner": pa.nulls(count, pa.string())}
        columns |= {"status": pa.array(np.where(named, SUPPRESSED, "ok"), pa.string()), "error": pa.nulls(count, pa.string())}
        seconds = {"fetch": read, "decode": 0.0, "annotate": annotated}
        columns |= {f"{stage}_seconds": pa.repeat(pa.scalar(value / count, pa.float32()), count) for stage, value in seconds.items()}
        schema = settings.tables.annotated
        return pa.table([columns[name] for name in schema.names], schema)

    def _predict(self, embeddings: np.ndarray) -> Prediction:
        import torch

        return self.model.predict(torch.from_numpy(embeddings.astype(np.float32)), self.settings.schemes)
