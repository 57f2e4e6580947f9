"""Image tower: turns uint8 crops into embeddings, with open_clip.

A tower is known by name (`ViT-L-14-quickgelu`, `openai`: open_clip downloads its weights at first use, or reads them from a file), or
described by open_clip's `vision_cfg`, which may name a timm trunk. The checkpoint then holds its weights, as it does BART's.
"""

import copy
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ugrie.vision.config import TowerConfig, check_weights
from ugrie.vision.download import fetch_weights
from ugrie.vision.gpu import Gpu, Uploaded, exact_products
from ugrie.vision.int8 import Int8Tower
from ugrie.vision.stage_tower import StageTower

# auto: fp16 on a GPU, fp32 on a CPU. fp16 is eight times as exact as bf16 and as fast; bf16 is for towers whose numbers are too large for
# it. On a CPU fp16 is slow, bf16 fast only on some, and int8 needs a transformer and an extra package.
Precision = Literal["auto", "fp32", "fp16", "bf16", "int8"]

warnings.filterwarnings(
    "ignore", message="The given NumPy array is not writable"
)  # arrays in Ray's memory are read-only; the tower only reads them


class Encoder(nn.Module):
    """Turns uint8 crops [batch, size, size, 3] into float32 embeddings [batch, embedding_dim]. Normalises on the device."""

    scale: Tensor
    shift: Tensor

    def __init__(self, config: TowerConfig, tower: nn.Module):
        super().__init__()
        self.config = config
        self.tower = tower
        mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.deviation))
        self.register_buffer("scale", 1 / (255 * deviation), persistent=False)
        self.register_buffer("shift", -mean / deviation, persistent=False)
        self.dtype = torch.float32
        self.batch_size = 8
        self.gpu: Gpu | None = None
        self.exact: list[nn.Module] = []  # not a module of this one, whose weights a checkpoint holds

    @classmethod
    def bundled(cls, config: TowerConfig) -> "Encoder":
        """Build a tower from its `vision_cfg`, with random weights."""
        if config.stages is not None:
            assert config.vision_cfg is not None
            from ugrie.libraries import timm

            trunk = timm.create_model(config.vision_cfg["timm_model_name"])
            return cls(config, StageTower(trunk, config.stages).eval())
        from ugrie.libraries import open_clip

        # open_clip builds a tower only as part of a CLIP model: give that the smallest text tower.
        text = {"width": 64, "heads": 1, "layers": 1, "vocab_size": 2, "context_length": 1}
        clip = open_clip.CLIP(embed_dim=config.embedding_dim, vision_cfg=config.vision_cfg, text_cfg=text)
        return cls(config, clip.visual.eval())

    @classmethod
    def pretrained(cls, config: TowerConfig, weights: str | None = None) -> "Encoder":
        """Load a tower by name, its weights from the local file `weights` or by open_clip's download. Its `config` states their SHA-256.

        Raises FileNotFoundError if there is no such file, ValueError if it holds other weights, OSError if the download fails.
        """
        assert config.name is not None
        if weights is not None and not Path(weights).is_file():
            raise FileNotFoundError(f"there is no file of CLIP weights at {weights}")
        file = weights or fetch_weights(config)
        digest = check_weights(config, file)
        from ugrie.libraries import open_clip

        try:
            clip = open_clip.create_model(config.name, pretrained=file, require_pretrained=True)
        except Exception as error:
            raise ValueError(f"{file} does not hold the weights of {config.name}: {error}") from error
        return cls(config.model_copy(update={"sha256": digest}), clip.visual.eval())

    def prepare(self, device: str, precision: str) -> "Encoder":
        """Move the tower to a device and a precision (see `Precision`), in place. Raises Int8Error, or ValueError for int8 on a GPU."""
        on_gpu = torch.device(device).type == "cuda"
        if precision == "auto":
            precision = "fp16" if on_gpu else "fp32"
        if precision == "int8":
            if on_gpu:
                raise ValueError("int8 is for the CPU; on a GPU leave the precision at auto, which is fp16")
            self.tower = Int8Tower(self.tower, self.config.crop_size)
            return self
        self.dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
        self.to(device=device)
        self.tower.to(dtype=self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]  # as crops lie in memory
        if on_gpu:
            exact_products()
            self.gpu = Gpu(self.embed, self.embed_exactly, torch.device(device), self.config.crop_size)
            self.batch_size = 32
        return self

    def forward(self, crops: Tensor) -> Tensor:
        return self.embed(crops.to(self.scale.device, non_blocking=True)).float()

    def embed(self, crops: Tensor) -> Tensor:
        """Embed crops on the tower's device, in its precision. One function, so that it compiles to one graph."""
        pixels = crops.permute(0, 3, 1, 2).float() * self.scale + self.shift
        return self.tower(pixels.to(self.dtype))

    def embed_exactly(self, crops: Tensor) -> Tensor:
        """Embed crops on the tower's device in float32, by a second copy of the tower, made when it is first needed."""
        if not self.exact:
            self.exact.append(copy.deepcopy(self.tower).float())
        return self.exact[0](crops.permute(0, 3, 1, 2).float() * self.scale + self.shift)

    def warm_up(self) -> None:
        """Compile a tower on a GPU for `batch_size` crops at once; it is lowered where the GPU's memory holds fewer."""
        if self.gpu is not None:
            self.batch_size = self.gpu.warm_up(self.batch_size)

    def upload(self, crops: np.ndarray) -> np.ndarray | Uploaded:
        """Begin to copy crops to the GPU, for `stream`. Without a GPU, or memory in it, return them as they are."""
        return crops if self.gpu is None else self.gpu.try_upload(crops)

    def stream(self, batches: Iterable[np.ndarray | Uploaded]) -> Iterator[Tensor]:
        """Yield the embeddings of each batch of crops, float32 [n, embedding_dim] on the tower's device.

        Batches are uint8 [n, size, size, 3], in read-only memory or not, or what `upload` made of them, and of any size: `batch_size`
        crops at a time go through the tower.
        """
        if self.gpu is None:
            yield from self._on_cores(batches)  # type: ignore[arg-type]
            return
        if not self.gpu.portions.size:
            self.warm_up()
        yield from self.gpu.stream(batches)

    def _on_cores(self, batches: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """Split each batch into one part per torch thread, and run each part on a single core.

        No core waits for another between two layers, which costs most when other processes compete for the cores, and each core
        finds its data in its own cache.
        """
        cores = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                for batch in batches:
                    rounds = max(1, -(-len(batch) // (self.batch_size * cores)))
                    parts = np.array_split(batch, min(rounds * cores, max(1, len(batch))))
                    yield torch.cat(list(pool.map(self._part, parts)))
        finally:
            torch.set_num_threads(cores)  # the pool's threads also changed it for threads started later

    @torch.inference_mode()
    def _part(self, crops: np.ndarray) -> Tensor:
        return self(torch.from_numpy(crops))
