"""An actor that annotates images again from their embeddings: the one operator before the writer, where no image is read."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from pipeline.inputs.embeddings import embeddings_of, read_embedded
from pipeline.inputs.manifest import Manifest
from pipeline.stages.annotate import AnnotatorSettings, planned
from pipeline.stages.prediction_columns import Answers
from pipeline.table.output_folder import OutputFolder
from ugrie.model.prediction import Prediction

FILLED_AT_ONCE = {"cpu": 256, "cuda": 4096}  # templates; on a CPU, by each core


class Reannotator:
    """{block} -> `Tables.annotated`. The model is loaded once, without its image tower's weights where those are not bundled.

    Two blocks may be in it at once: while one has the device, the other is read and its tables are made.
    """

    def __init__(self, settings: AnnotatorSettings, source: OutputFolder, output: OutputFolder, manifest: Manifest):
        import torch

        from ugrie.model.model import UGRIE

        self.settings, self.source, self.output, self.manifest = settings, source, output, manifest
        on_cpu = settings.device == "cpu"
        cores = settings.threads or 1 if on_cpu else 1
        self.model = UGRIE.from_pretrained(planned(settings), settings.device)
        self.model.predict(torch.zeros(1, self.model.config.tower.embedding_dim), settings.schemes)  # what the threads share is made here
        self.size = FILLED_AT_ONCE["cpu" if on_cpu else "cuda"]
        # A core for each part, as in `ugrie.vision.encoder`: the layers are too small to be shared between cores.
        self.pool = ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,) if on_cpu else (torch.get_num_threads(),))
        self.device = threading.Lock()

    def __call__(self, numbers: pa.Table) -> pa.Table:
        (block,) = numbers.column("block").to_pylist()
        settings, board = self.settings, self.settings.board
        board.begin(block)
        clock = time.perf_counter()
        rows = read_embedded(self.source.fs, self.manifest.read(self.output, block))
        embeddings, count = embeddings_of(rows), len(rows)
        answers = Answers(settings.tables, count)
        board.enter(block, "loaded, and not yet annotated")
        read = time.perf_counter() - clock
        with self.device:
            board.enter(block, "being annotated")
            clock = time.perf_counter()
            parts = [np.arange(start, min(start + self.size, count)) for start in range(0, count, self.size)]
            for part, prediction in zip(parts, self.pool.map(lambda part: self._predict(embeddings[part]), parts), strict=True):
                answers.take(part, prediction, embeddings[part])
            annotated = time.perf_counter() - clock
        board.enter(block, "annotated, and not yet written")
        columns = answers.columns(settings.run_id)
        columns |= {name: rows[name] for name in ("image_id", "uri", "content_hash", "width", "height", "bytes")}
        columns |= {"block": pa.repeat(pa.scalar(block, pa.int32()), count), "owner": pa.nulls(count, pa.string())}
        columns |= {"status": pa.repeat("ok", count), "error": pa.nulls(count, pa.string())}
        seconds = {"fetch": read, "decode": 0.0, "annotate": annotated}
        columns |= {f"{stage}_seconds": pa.repeat(pa.scalar(value / count, pa.float32()), count) for stage, value in seconds.items()}
        schema = settings.tables.annotated
        return pa.table([columns[name] for name in schema.names], schema)

    def _predict(self, embeddings: np.ndarray) -> Prediction:
        import torch

        return self.model.predict(torch.from_numpy(embeddings.astype(np.float32)), self.settings.schemes)
