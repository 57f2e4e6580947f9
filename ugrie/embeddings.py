"""Embeddings of image files, computed once: the tower is frozen while mapper and BART train."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ugrie import preprocess
from ugrie.encoder import Encoder


class EmbeddingCache:
    """Embeds files with a tower and keeps the result in `folder`, under the tower's weights and the files' sizes and times."""

    def __init__(self, encoder: Encoder, folder: Path, batch_size: int = 64):
        self.encoder, self.folder, self.batch_size = encoder.eval(), folder, batch_size
        state = hashlib.sha256()
        for name, tensor in encoder.state_dict().items():
            state.update(name.encode() + tensor.cpu().numpy().tobytes())
        self.tower = state.hexdigest()

    def __call__(self, files: Sequence[Path]) -> np.ndarray:
        """float32 [files, embedding_dim]. Raises what Pillow raises for a file that is no image."""
        stats = [(str(file), file.stat()) for file in files]
        key = hashlib.sha256("\n".join([self.tower, *(f"{n} {s.st_size} {s.st_mtime_ns}" for n, s in stats)]).encode()).hexdigest()
        cached = self.folder / f"{key[:32]}.npy"
        if cached.is_file():
            return np.load(cached)
        parts = []
        with torch.inference_mode():
            for start in tqdm(range(0, len(files), self.batch_size), desc="embedding", unit="batch"):
                crops = [preprocess.crop(Image.open(f), self.encoder.config.crop_size) for f in files[start : start + self.batch_size]]
                parts.append(self.encoder(torch.from_numpy(np.stack(crops))).numpy())
        embeddings = np.concatenate(parts)
        self.folder.mkdir(parents=True, exist_ok=True)
        np.save(cached, embeddings)
        return embeddings
