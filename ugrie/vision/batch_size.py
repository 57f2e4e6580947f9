"""The batch size at which a tower embeds fastest, measured on the device.

The best size depends on the tower and on the machine's caches. A convolutional tower on a core whose cache holds a layer of four
crops, but not of sixty-four, takes twice as long for each of sixty-four. A GPU idles with fewer crops than it has room for.
"""

import time

import torch

from ugrie.vision.encoder import Encoder

ON_CPU = (1, 2, 4, 8, 16, 32)
ON_GPU = (1, 32, 64, 128, 256)
WORTH = 0.97  # a larger batch needs memory: take it only if its time per crop is at most this share of the best
MUCH_WORSE = 1.1  # multiple of the best time per crop
LONG_ENOUGH = 0.1  # seconds of measurement per size


@torch.inference_mode()
def best_batch_size(encoder: Encoder, seconds: float = 2.0) -> int:
    """Return the batch size with the least time per crop.

    Sizes are tried in ascending order, for about `seconds` or until two in a row take clearly longer or the memory is full. A
    size's time is the minimum of its measurements. On a CPU one core is used, as `Encoder.stream` does.
    """
    device = encoder.scale.device
    sizes, threads = ON_CPU if device.type == "cpu" else ON_GPU, torch.get_num_threads()
    best, least, worse = sizes[0], float("inf"), 0
    try:
        torch.set_num_threads(1)
        _seconds(encoder, sizes[0])  # warm-up
        began = time.perf_counter()
        for size in sizes:
            if least < float("inf") and time.perf_counter() - began + size * least > seconds:
                break
            times: list[float] = []
            try:
                while sum(times) < LONG_ENOUGH:
                    times.append(_seconds(encoder, size))
            except torch.OutOfMemoryError:
                break
            cost = min(times) / size
            if cost < least * WORTH:
                best, least = size, cost
            worse = worse + 1 if cost > least * MUCH_WORSE else 0
            if worse == 2:  # larger sizes will be, too
                break
    finally:
        torch.set_num_threads(threads)
    return best


def _seconds(encoder: Encoder, size: int) -> float:
    device = encoder.scale.device
    crops = torch.zeros(size, encoder.config.crop_size, encoder.config.crop_size, 3, dtype=torch.uint8, device=device)
    clock = time.perf_counter()
    Encoder.embed(encoder, crops)  # not compiled: compiling for each size would take longer than all else
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - clock
