"""Embeddings of images, computed once: the tower is frozen while mapper and BART train."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ugrie import preprocess
from ugrie.encoder import Encoder


class EmbeddingCache:
    """Embeds images with a tower and keeps the result in `folder`, under the tower's weights and what tells the images apart.

    That is a file's path, size and time, or the content of an image given as bytes.
    """

    def __init__(self, encoder: Encoder, folder: Path, batch_size: int = 64):
        self.encoder, self.folder, self.batch_size = encoder.eval(), folder, batch_size
        state = hashlib.sha256()
        for name, tensor in encoder.state_dict().items():
            state.update(name.encode() + tensor.cpu().numpy().tobytes())
        self.tower = state.hexdigest()

    def __call__(self, images: Sequence[Path | bytes]) -> np.ndarray:
        """float32 [images, embedding_dim]; the row of an image that can't be decoded is NaN. Raises OSError for a missing file.

        Images are asked for one by one, in their order, and no more than a batch of them is held.
        """
        key = hashlib.sha256("\n".join([self.tower, *map(_identity, images)]).encode()).hexdigest()
        cached = self.folder / f"{key[:32]}.npy"
        if cached.is_file():
            return np.load(cached)
        embeddings = np.full((len(images), self.encoder.config.embedding_dim), np.nan, np.float32)
        with torch.inference_mode():
            for start in tqdm(range(0, len(images), self.batch_size), desc="embedding", unit="batch"):
                rows = range(start, min(start + self.batch_size, len(images)))
                crops = {row: crop for row in rows if (crop := self._crop(images[row])) is not None}
                if crops:
                    embeddings[list(crops)] = self.encoder(torch.from_numpy(np.stack(list(crops.values())))).numpy()
        self.folder.mkdir(parents=True, exist_ok=True)
        np.save(cached, embeddings)
        return embeddings

    def _crop(self, image: Path | bytes) -> np.ndarray | None:
        try:
            with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
                return preprocess.crop(opened, self.encoder.config.crop_size)
        except FileNotFoundError:
            raise
        except Exception:  # decoders raise anything at all on a broken image
            return None


def _identity(image: Path | bytes) -> str:
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    stat = image.stat()
    return f"{image} {stat.st_size} {stat.st_mtime_ns}"
