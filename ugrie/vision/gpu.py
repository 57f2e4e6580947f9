"""A tower on a GPU: compiled once for parts of one size, fed from pinned memory on a stream of its own, in less memory if there is less.

Nothing is chosen by timing kernels, so that every process with the same card and the same libraries computes the same numbers.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, cuda
from torch.nn.functional import pad

from ugrie.text import one_line

logger = logging.getLogger(__name__)
Embed = Callable[[Tensor], Tensor]


def exact_products() -> None:
    """Let this process compute float32 products as float32, not TF32 (which has 10 bits of mantissa), by reproducible algorithms."""
    # By these names, not the newer fp32_precision: PyTorch's compiler reads them, which is an error once the newer ones were set.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def compiled(embed: Embed) -> Embed:
    return torch.compile(embed, dynamic=False, options={"deterministic": True})


@dataclass(frozen=True)
class Uploaded:
    """Crops on the GPU, uint8 [n, size, size, 3]. They are there once `copied` has happened."""

    crops: Tensor
    copied: cuda.Event


class Gpu:
    """Embeds crops on a GPU in parts of `size`, the shape for which the tower is compiled; a smaller part is padded."""

    def __init__(self, embed: Embed, device: torch.device, crop_size: int):
        self.eager, self.device, self.crop_size = embed, device, crop_size
        self.embed = compiled(embed)
        self.size = 0  # unknown before `warm_up`
        self.copies = cuda.Stream(device)

    @property
    def is_compiled(self) -> bool:
        return self.embed is not self.eager

    def warm_up(self, size: int) -> int:
        """Compile for parts of `size` crops, or of half as many for as long as the memory holds no more. Return the size.

        Where compiling fails (Triton needs a C compiler), the tower runs as it is, after one warning. Raises torch.OutOfMemoryError if
        there is no memory for a single crop.
        """
        self.size = size
        crops = np.zeros((1, self.crop_size, self.crop_size, 3), np.uint8)
        try:
            self.wait(self(self.upload(crops)))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # compilers raise errors of many kinds
            if not self.is_compiled:
                raise
            logger.warning("the image tower can't be compiled (%s): it runs uncompiled, which takes longer", one_line(str(error)))
            self.embed = self.eager
            self.wait(self(self.upload(crops)))
        return self.size

    @torch.inference_mode()
    def upload(self, crops: np.ndarray) -> Uploaded:
        """Begin to copy crops, uint8 [n, size, size, 3], to the GPU, which goes on computing meanwhile. They may be in read-only memory."""
        host = self.pinned(len(crops))
        host.copy_(torch.from_numpy(crops))
        with cuda.stream(self.copies):
            try:
                there = self.copy(host)
            except torch.OutOfMemoryError:
                cuda.empty_cache()
                there = self.copy(host)
            return Uploaded(there, self.copies.record_event())

    def pinned(self, count: int) -> Tensor:
        """Return pinned memory for crops. PyTorch keeps it until its copy is done, and then for the next."""
        return torch.empty(count, self.crop_size, self.crop_size, 3, dtype=torch.uint8, pin_memory=True)

    def copy(self, host: Tensor) -> Tensor:
        return host.to(self.device, non_blocking=True)

    def wait(self, embeddings: Tensor) -> None:
        embeddings.cpu()

    @torch.inference_mode()
    def __call__(self, uploaded: Uploaded) -> Tensor:
        """Return the crops' embeddings, float32 [n, embedding_dim] on the GPU. Where its memory is full, smaller parts are tried."""
        now = cuda.current_stream(self.device)
        now.wait_event(uploaded.copied)
        uploaded.crops.record_stream(now)
        embeddings: list[Tensor] = []
        done = 0
        while done < len(uploaded.crops) or not embeddings:
            part = uploaded.crops[done : done + self.size]
            try:
                embeddings.append(self.embed(pad(part, (0, 0, 0, 0, 0, 0, 0, self.size - len(part))))[: len(part)].float())
            except torch.OutOfMemoryError:
                if self.size == 1:
                    raise
            else:
                done += len(part)
                continue
            self.size //= 2  # here, where the error no longer holds what it could not finish
            cuda.empty_cache()
            logger.warning("the GPU's memory is full: from now on %d crops at once", self.size)
        return torch.cat(embeddings)

    def stream(self, batches: Iterable[np.ndarray | Uploaded]) -> Iterator[Tensor]:
        """Yield the embeddings of each batch. The next one is copied while one is computed."""
        waiting: Uploaded | None = None
        for batch in batches:
            ready, waiting = waiting, batch if isinstance(batch, Uploaded) else self.upload(batch)
            if ready is not None:
                yield self(ready)
        if waiting is not None:
            yield self(waiting)
