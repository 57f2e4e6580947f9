"""Annotates a corpus with Daft: Daft downloads and decodes, the model is a batch UDF.

    python benchmarks/contenders/with_daft.py --input DIR --output DIR --model ugrie-tiny

Daft's own resize is not CLIP's crop, so the UDF crops. The tower embeds a batch in one forward pass, as in Daft's examples; with
--tuned it is run as UGRIE runs it.
"""

import daft
import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from rows import BATCH, endpoint, parser, rows

from ugrie import UGRIE
from ugrie.model.checkpoint import find, read_config
from ugrie.vision import preprocess
from ugrie.vision.batch_size import best_batch_size


def output_type(name: str) -> daft.DataType:
    """Return the type of the columns that the model adds."""
    model = UGRIE.from_pretrained(name)
    embedding = np.zeros((1, model.config.tower.embedding_dim), np.float32)
    table = rows([{"width": 1, "height": 1}], model.predict(torch.from_numpy(embedding)))
    return daft.DataType.from_arrow_type(pa.struct(list(table.schema)))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--tuned", action="store_true", help="run the tower as UGRIE does instead of one forward pass for a batch")
    args = arguments.parse_args()
    tuned = args.tuned
    kind = output_type(args.model)
    size = read_config(find(args.model)).tower.crop_size

    @daft.cls(max_concurrency=1)
    class Annotate:
        def __init__(self, name: str):
            self.model = UGRIE.from_pretrained(name)
            if tuned:
                self.model.encoder.batch_size = best_batch_size(self.model.encoder)

        @daft.method.batch(return_dtype=kind, batch_size=BATCH)
        def annotate(self, images: daft.Series) -> pa.Array:
            pixels = images.to_pylist()
            crops = np.stack([preprocess.crop(Image.fromarray(image), size) for image in pixels])
            known = [{"width": image.shape[1], "height": image.shape[0]} for image in pixels]
            if tuned:
                (embeddings,) = self.model.encode([crops])
            else:
                with torch.inference_mode():
                    embeddings = self.model.encoder(torch.from_numpy(crops))
            return pa.array(rows(known, self.model.predict(embeddings)).to_struct_array().combine_chunks())

    io = None
    if args.input.startswith("s3://"):
        where = endpoint()
        s3 = daft.io.S3Config(endpoint_url=where["endpoint"], key_id=where["key"], access_key=where["secret"], region_name="us-east-1")
        io = daft.io.IOConfig(s3=s3)
    frame = daft.from_glob_path(f"{args.input.rstrip('/')}/**", io_config=io).select(daft.col("path").alias("uri"), "size")
    frame = frame.with_column("image", daft.functions.decode_image(daft.functions.download(daft.col("uri"), io_config=io), mode="RGB"))
    frame = frame.with_column("row", Annotate(args.model).annotate(daft.col("image")))
    fields = daft.functions.unnest(daft.col("row"))
    frame.select("uri", "size", fields).write_parquet(args.output)


if __name__ == "__main__":
    main()
