"""Annotates a corpus with Ray Data as its documentation shows it: read_images, a map to preprocess, an actor where BART generates.

    python benchmarks/contenders/by_hand.py --input DIR --output DIR --model ugrie-tiny

Writes the sentence and the labels parsed from it: `generate` gives no probabilities.
"""

import numpy as np
import pyarrow.fs
import ray
import torch
from PIL import Image
from ray.data import ActorPoolStrategy
from rows import BATCH, endpoint, parser

from ugrie import UGRIE
from ugrie.model.checkpoint import find, read_config
from ugrie.vision import preprocess


class Preprocess:
    def __init__(self, size: int):
        self.size = size

    def __call__(self, row: dict) -> dict:
        crop = preprocess.crop(Image.fromarray(row["image"]), self.size)
        height, width, _ = row["image"].shape
        return {"uri": row["path"], "width": width, "height": height, "crop": crop}


class Annotate:
    def __init__(self, name: str):
        self.model = UGRIE.from_pretrained(name)

    def __call__(self, batch: dict) -> dict:
        with torch.inference_mode():
            annotations = self.model.generate(self.model.encoder(torch.from_numpy(batch.pop("crop"))))
        batch["sentence"] = np.array([annotation.sentence for annotation in annotations])
        for scheme in self.model.config.template().schemes:
            readings = [annotation.readings.get(scheme.name) for annotation in annotations]
            batch[scheme.name] = np.array([str(reading and reading.label) for reading in readings])
        return batch


def main() -> None:
    args = parser(__doc__).parse_args()
    ray.init(address="local", include_dashboard=False)
    storage = None
    if args.input.startswith("s3://"):
        where = endpoint()
        storage = pyarrow.fs.S3FileSystem(access_key=where["key"], secret_key=where["secret"], endpoint_override=where["endpoint"])
    images = ray.data.read_images(args.input, filesystem=storage, mode="RGB", include_paths=True)
    size = read_config(find(args.model)).tower.crop_size
    cropped = images.map(Preprocess(size).__call__)
    annotated = cropped.map_batches(
        Annotate, fn_constructor_args=(args.model,), batch_size=BATCH, compute=ActorPoolStrategy(size=1), num_cpus=1
    )
    annotated.write_parquet(args.output)


if __name__ == "__main__":
    main()
