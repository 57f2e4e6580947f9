"""Annotates a corpus with a bare loop: a DataLoader reads and crops, the model annotates, Parquet is written.

    python benchmarks/contenders/bare.py --input DIR --output FILE.parquet --model ugrie-tiny

Catches no failure and resumes nothing: an upper bound of the machine's speed. Tuned as UGRIE tunes itself: the tower's batch size is
tuned, and each part of a batch runs on one core.
"""

import hashlib
from io import BytesIO

import pyarrow.parquet as pq
import torch
from PIL import Image
from rows import BATCH, files, open_storage, parser, rows
from torch.utils.data import DataLoader, Dataset

from ugrie import UGRIE
from ugrie.vision import preprocess
from ugrie.vision.batch_size import best_batch_size


class Images(Dataset):
    def __init__(self, uris: list[str], size: int):
        self.uris, self.size = uris, size

    def __len__(self) -> int:
        return len(self.uris)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict]:
        data = open_storage(self.uris[index])
        image = Image.open(BytesIO(data))
        known = {"uri": self.uris[index], "bytes": len(data), "content_hash": hashlib.sha256(data).hexdigest()}
        known |= {"width": image.width, "height": image.height}
        return torch.from_numpy(preprocess.crop(image, self.size).copy()), known


def collate(items: list[tuple[torch.Tensor, dict]]) -> tuple[torch.Tensor, list[dict]]:
    return torch.stack([crop for crop, _ in items]), [known for _, known in items]


def main() -> None:
    args = parser(__doc__).parse_args()
    model = UGRIE.from_pretrained(args.model)
    encoder = model.load_encoder()
    encoder.batch_size = best_batch_size(encoder)
    images = Images(files(args.input), model.config.tower.crop_size)
    loader = DataLoader(images, BATCH, num_workers=1, collate_fn=collate, prefetch_factor=2)
    waiting: list[list[dict]] = []

    def crops():
        for batch, known in loader:
            waiting.append(known)
            yield batch.numpy()

    writer = None
    for embeddings in model.encode(crops()):
        table = rows(waiting.pop(0), model.predict(embeddings))
        writer = writer or pq.ParquetWriter(args.output, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()


if __name__ == "__main__":
    main()
