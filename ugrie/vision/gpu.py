"""A tower on a GPU: compiled once for parts of one size, fed from pinned memory on a stream of its own, in less memory if there is less.

No choice that changes a number is made by timing kernels, so that processes with the same card, libraries and batch size agree.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, cuda
from torch.nn.functional import pad

from ugrie.memory import Portions, is_out_of_memory
from ugrie.text import one_line

logger = logging.getLogger(__name__)
Embed = Callable[[Tensor], Tensor]


def exact_products() -> None:
    """Let this process add up float32 products as float32, not TF32 (10 bits of mantissa), and fp16 ones in float32, reproducibly."""
    # By these names, not the newer fp32_precision: PyTorch's compiler reads them, which is an error once the newer ones were set.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def compiled(embed: Embed) -> Embed:
    """Compile a tower as one graph; an error if it can't be one."""
    from torch._inductor import config

    options: dict[str, Any] = {"deterministic": True} if hasattr(config, "deterministic") else {}  # from PyTorch 2.10 on
    return torch.compile(embed, dynamic=False, fullgraph=True, options=options)


@dataclass(frozen=True)
class Uploaded:
    """Crops on the GPU, uint8 [n, size, size, 3]. They are there once `copied` has happened."""

    crops: Tensor
    copied: cuda.Event


class Gpu:
    """Embeds crops on a GPU in parts of one size, the shape for which the tower is compiled; a smaller part is padded.

    `exact` embeds in float32 what is too large for the tower's own precision.
    """

    def __init__(self, embed: Embed, exact: Embed, device: torch.device, crop_size: int):
        self.eager, self.exact, self.device, self.crop_size = embed, exact, device, crop_size
        self.embed = compiled(embed)
        self.portions = Portions(0, "crops")  # unknown before `warm_up`
        self.compiled_sizes: set[int] = set()
        self.problem: str | None = None  # why the tower is not compiled
        self.overflowed = False  # whether an image was too large for the tower's precision
        self.copies = cuda.Stream(device)

    def warm_up(self, size: int) -> int:
        """Compile for parts of `size` crops, or of half as many for as long as the memory holds no more. Return the size.

        Raises an error of a full memory if there is none for a single crop.
        """
        self.portions.size = size
        self(np.zeros((1, self.crop_size, self.crop_size, 3), np.uint8)).cpu()
        cuda.empty_cache()  # others may share the card
        return self.portions.size

    @torch.inference_mode()
    def upload(self, crops: np.ndarray) -> Uploaded:
        """Begin to copy crops, uint8 [n, size, size, 3], to the GPU, which goes on computing meanwhile. They may be in read-only memory.

        Raises an error of a full memory.
        """
        host = self.pinned(len(crops))
        host.copy_(torch.from_numpy(crops))
        with cuda.stream(self.copies):
            return Uploaded(self.copy(host), self.copies.record_event())

    def try_upload(self, crops: np.ndarray) -> np.ndarray | Uploaded:
        """Begin to copy crops to the GPU, or return them if its memory is full: they are then copied part by part when it is their turn."""
        try:
            return self.upload(crops)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        return crops

    def pinned(self, count: int) -> Tensor:
        """Return pinned memory for crops. PyTorch keeps it until its copy is done, and then for the next."""
        return torch.empty(count, self.crop_size, self.crop_size, 3, dtype=torch.uint8, pin_memory=True)

    def copy(self, host: Tensor) -> Tensor:
        return host.to(self.device, non_blocking=True)

    @torch.inference_mode()
    def __call__(self, batch: np.ndarray | Uploaded) -> Tensor:
        """Return the crops' embeddings, float32 [n, embedding_dim] on the GPU. Where its memory is full, smaller parts are tried."""
        if isinstance(batch, Uploaded):
            return torch.cat(self.portions(self._embed, self._arrived(batch)))
        return torch.cat(self.portions(lambda part, size: self._embed(self._arrived(self.upload(part)), size), batch))

    def stream(self, batches: Iterable[np.ndarray | Uploaded]) -> Iterator[Tensor]:
        """Yield the embeddings of each batch. The next one is copied while one is computed."""
        waiting: np.ndarray | Uploaded | None = None
        for batch in batches:
            ready, waiting = waiting, batch if isinstance(batch, Uploaded) else self.try_upload(batch)
            if ready is not None:
                yield self(ready)
        if waiting is not None:
            yield self(waiting)

    def _arrived(self, uploaded: Uploaded) -> Tensor:
        """Return uploaded crops, for the current stream."""
        now = cuda.current_stream(self.device)
        now.wait_event(uploaded.copied)
        uploaded.crops.record_stream(now)
        return uploaded.crops

    def _embed(self, crops: Tensor, size: int) -> Tensor:
        padded = pad(crops, (0, 0, 0, 0, 0, 0, 0, size - len(crops)))
        found = self._compiled(padded, size)[: len(crops)].float()
        is_finite = found.isfinite().all(1)
        if not is_finite.all():
            self.overflowed = True
            logger.warning("%d images are too large for the tower's precision: they are embedded in float32", int((~is_finite).sum()))
            found[~is_finite] = self.exact(crops[~is_finite]).float()
        return found

    def _compiled(self, crops: Tensor, size: int) -> Tensor:
        """Run the tower compiled, or as it is where compiling fails (Triton needs a C compiler), after one warning."""
        if size in self.compiled_sizes or self.problem is not None:
            return self.embed(crops)
        try:
            found = self.embed(crops)
        except Exception as error:  # compilers raise errors of many kinds
            if is_out_of_memory(error):
                raise
            problem = one_line(str(error))
        else:
            self.compiled_sizes.add(size)
            return found
        found = self.eager(crops)  # raises what is no fault of the compiler's
        self.problem, self.embed = problem, self.eager
        logger.warning("the image tower can't be compiled (%s): it runs uncompiled, which takes longer", problem)
        return found
