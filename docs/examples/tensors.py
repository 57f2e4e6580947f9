"""Read the table as tensors: batches of probabilities to train on, read a row group at a time, without pandas.

python docs/examples/tensors.py OUTPUT --scheme polarity2
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset


class Annotations(IterableDataset):
    """Yields {image_id int64, probs float32 [labels]} for each row of committed runs that is annotated with the scheme.

    An image that was annotated again comes again. DataLoader workers divide the files among themselves.
    """

    def __init__(self, output: Path, scheme: str):
        records = [json.loads(path.read_text()) for path in sorted((output / "runs").glob("*.json"))]
        lists = [json.loads((output / path).read_text()) for record in records for path in record.get("file_lists", ())]
        self.files = [str(output / file) for each in records + lists for file in each["files"]]
        self.scheme = scheme

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        worker = torch.utils.data.get_worker_info()
        files = self.files[worker.id :: worker.num_workers] if worker else self.files
        if not files:
            return
        columns = {"image_id": ds.field("image_id"), "probs": ds.field(self.scheme, "probs")}
        schema = pa.unify_schemas([pq.read_schema(file) for file in self.files])  # nights may have different schemes
        for batch in ds.dataset(files, schema=schema).to_batches(columns=columns, filter=ds.field(self.scheme).is_valid()):
            if not len(batch):
                continue
            probs = batch["probs"].values.to_numpy().reshape(len(batch), -1) if batch["probs"].offset == 0 else np.stack(batch["probs"])
            for image_id, row in zip(batch["image_id"].to_numpy(), probs, strict=True):
                yield {"image_id": torch.tensor(image_id), "probs": torch.tensor(row)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--scheme", default="polarity2")
    args = parser.parse_args()
    for batch in DataLoader(Annotations(args.output, args.scheme), batch_size=32):
        print({name: (tuple(tensor.shape), tensor.dtype) for name, tensor in batch.items()})


if __name__ == "__main__":
    main()
