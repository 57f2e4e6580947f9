"""Embeddings of images, and the reasons why images have none.

embedded = embed(model.encode, table.images, model.config.tower)
embeddings = EmbeddingCache(encoder, Path(".ugrie-cache"))(table.images)  # kept on disk: training doesn't change the tower
"""

import hashlib
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from ugrie.atomic import write_whole
from ugrie.vision import preprocess
from ugrie.vision.config import TowerConfig
from ugrie.vision.encoder import Encoder

logger = logging.getLogger(__name__)

Encode = Callable[[Iterable[np.ndarray]], Iterable[Tensor]]
"""Turns batches of uint8 crops [n, size, size, 3] into float32 [n, embedding_dim]: a model's `encode` or an encoder's `stream`."""


@dataclass(frozen=True)
class Embedded:
    """`embeddings` is float32 [images, embedding_dim]. An image that can't be decoded has NaN there, and its reason in `broken`, by row."""

    embeddings: np.ndarray
    broken: Mapping[int, str]


@torch.inference_mode()
def embed(encode: Encode, images: Sequence[Path | bytes], tower: TowerConfig, batch_size: int = 64) -> Embedded:
    """Embed images, which are read one by one and in order. Raises FileNotFoundError for a missing file."""
    embeddings = np.full((len(images), tower.embedding_dim), np.nan, np.float32)
    broken: dict[int, str] = {}
    decoded: list[int] = []

    def crops() -> Iterator[np.ndarray]:
        for row, image in enumerate(tqdm(images, desc="embedding", unit=" images")):
            try:
                with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
                    crop = preprocess.crop(opened, tower.crop_size)
            except FileNotFoundError:
                raise
            except UnidentifiedImageError:  # its own message names the path or a memory address
                broken[row] = "no image of a format that Pillow reads"
            except Exception as error:  # decoders raise errors of any kind on a broken image
                broken[row] = f"{type(error).__name__}: {error}"
            else:
                decoded.append(row)
                yield crop

    stream = crops()
    batches = iter(lambda: list(islice(stream, batch_size)), [])
    done = 0
    for batch in encode(np.stack(batch) for batch in batches):
        embeddings[decoded[done : done + len(batch)]] = batch.cpu().numpy()
        done += len(batch)
    return Embedded(embeddings, broken)


class EmbeddingCache:
    """Embeds images with a tower and caches the result in `folder`.

    The cache key is the tower, its weights and the images: path, size and modification time of a file, or the content of bytes.
    """

    def __init__(self, encoder: Encoder, folder: Path, batch_size: int = 64):
        self.encoder, self.folder, self.batch_size = encoder.eval(), folder, batch_size
        state = hashlib.sha256(encoder.config.model_dump_json().encode())
        for name, tensor in encoder.state_dict().items():
            state.update(name.encode() + tensor.cpu().numpy().tobytes())
        self.tower = state.hexdigest()

    def __call__(self, images: Sequence[Path | bytes]) -> np.ndarray:
        """Return the embeddings of `embed`. Logs a warning for each image that can't be decoded, also when they come from the cache."""
        key = hashlib.sha256("\n".join([self.tower, *map(_identity, images)]).encode()).hexdigest()
        cached = self.folder / f"{key[:32]}.npz"
        if cached.is_file():
            embedded = _read(cached)
        else:
            embedded = embed(self.encoder.stream, images, self.encoder.config, self.batch_size)
            _write(cached, embedded)
        for row, reason in embedded.broken.items():
            image = images[row]
            logger.warning("can't be decoded: %s: %s", f"image {row}, given as bytes" if isinstance(image, bytes) else image, reason)
        return embedded.embeddings


def _identity(image: Path | bytes) -> str:
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    stat = image.stat()
    return f"{image} {stat.st_size} {stat.st_mtime_ns}"


def _read(path: Path) -> Embedded:
    with np.load(path) as arrays:
        return Embedded(arrays["embeddings"], dict(zip(arrays["broken"].tolist(), arrays["reasons"].tolist(), strict=True)))


def _write(path: Path, embedded: Embedded) -> None:
    rows, reasons = np.array(list(embedded.broken), np.int64), np.array(list(embedded.broken.values()), dtype=str)

    def write(part: Path) -> None:
        with part.open("wb") as file:  # given a name, numpy would append .npz
            np.savez(file, embeddings=embedded.embeddings, broken=rows, reasons=reasons)

    write_whole(path, write)
